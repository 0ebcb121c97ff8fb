"""The code that workers need, as a wheel made from the running program.

Engines that start workers from a container image get our code this way, so that it is always the launcher's and works
from a source checkout and from an installed wheel alike. Only `transforms` and `models` are in it.
"""

import base64
import functools
import hashlib
import tempfile
import zipfile
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

PACKAGES = ("transforms", "models")
NAME = "semantic_ingest_worker"


@functools.cache
def build_worker_package() -> str:
    """Write the wheel to a temporary folder, once a process.

    Its dependencies are the worker image's business, so none are declared.

    Returns:
        Path of the wheel.
    """
    try:
        release = version("semantic-ingest")
    except PackageNotFoundError:
        release = "0"
    contents = {
        path: content for package in PACKAGES for path, content in _contents(files(package), package).items()
    }
    info = f"{NAME}-{release}.dist-info"
    contents[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {release}\n".encode()
    contents[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    records = [f"{path},sha256={_digest(content)},{len(content)}" for path, content in contents.items()]
    contents[f"{info}/RECORD"] = "\n".join([*records, f"{info}/RECORD,,", ""]).encode()
    wheel = Path(tempfile.mkdtemp(prefix="semantic-ingest-")) / f"{NAME}-{release}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in contents.items():
            archive.writestr(path, content)
    return str(wheel)


def _contents(folder: Traversable, name: str) -> dict[str, bytes]:
    """Every file below a package folder except caches: path in the wheel -> content."""
    found: dict[str, bytes] = {}
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir() and entry.name != "__pycache__":
            found |= _contents(entry, f"{name}/{entry.name}")
        elif entry.is_file():
            found[f"{name}/{entry.name}"] = entry.read_bytes()
    return found


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
