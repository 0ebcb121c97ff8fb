"""A checkpoint on this machine: its files found, and what its own files say of it read.

Descriptions of models are asked often (a fingerprint for each document), so that what is found is kept for the life of
the process.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from models.errors import ModelLoadError
from models.local.architectures import bert
from models.local.architectures.adapters import adapter_files
from models.local.architectures.static import is_static, open_static_tokens
from models.local.architectures.torchscript import find_script, read_vocabulary
from models.local.catalog import Checkpoint, Recipe, complete
from models.local.tokens import Tokens, open_tokens, word_piece_tokens
from models.local.weights import content_hash, find_folder, read_json, revision_of


@dataclass(frozen=True)
class OpenCheckpoint:
    """A checkpoint whose files are here. Holds no weights and no tokenizer: both are read when they are asked for.

    Attributes:
        checkpoint: which weights these are.
        folder: where its files are.
        recipe: how to use it; what the catalogue leaves open comes from the files.
        window: most tokens of a text, special tokens included; None where nothing is ever cut.
    """

    checkpoint: Checkpoint
    folder: Path
    recipe: Recipe
    window: int | None

    @property
    def is_script(self) -> bool:
        """Whether it is a TorchScript file, with a bare vocabulary for a tokenizer."""
        return self.checkpoint.backend == "torchscript"

    @property
    def is_static(self) -> bool:
        """Whether it has a vector for each token and nothing that computes."""
        return is_static(read_json(self.folder, "config.json"))

    @property
    def revision(self) -> str:
        """Which version of the weights this is: the hub's commit, or a hash of the files."""
        if self.is_script:
            return content_hash([find_script(self.folder)])
        adapters = adapter_files(self.folder) if self.recipe.adapters else []
        return revision_of(self.folder, self.checkpoint.revision, adapters)

    @property
    def tokens(self) -> Tokens:
        """Its tokenizer, opened once a process."""
        if self.is_script:
            return word_piece_tokens(read_vocabulary(self.folder), self.window)
        if self.is_static:
            return open_static_tokens(self.folder, self.window)
        return open_tokens(self.folder, self.window)


def open_checkpoint(checkpoint: Checkpoint, limit: int | None = None) -> OpenCheckpoint:
    """Find the files of a checkpoint.

    Args:
        checkpoint: which weights.
        limit: most tokens that the endpoint wants of a text; None takes the whole window.

    Raises:
        ModelLoadError: they are not on this machine.
    """
    folder = _folder_of(checkpoint)
    recipe = _completed(checkpoint, folder)
    return OpenCheckpoint(checkpoint, folder, recipe, window_of(recipe, limit))


def int8_problems(opened: OpenCheckpoint) -> list[str]:
    """Say why a checkpoint that is to compute in int8 cannot: only the compiled kernels do."""
    checkpoint = opened.checkpoint
    if checkpoint.precision != "int8":
        return []
    config = read_json(opened.folder, "config.json")
    activation = bert.setting(config, "hidden_act")
    if checkpoint.backend != "auto":
        reason = f"has [backend: {checkpoint.backend}]"
    elif config.get("model_type") not in bert.MODEL_TYPES:
        reason = f"is of type [{config.get('model_type')}]"
    elif activation != "gelu":
        reason = f"has the activation [{activation}]"
    else:
        return []
    return [
        "[dtype: int8] is known to the compiled kernels alone, which compute models of BERT's family with the"
        f" activation [gelu]; [{checkpoint.model_id}] {reason}: leave [dtype] out of its entry in [models]"
    ]


def described(checkpoint: Checkpoint) -> dict[str, Any]:
    """Say which weights these are, as JSON; also where their files are not here."""
    try:
        revision: str | None = open_checkpoint(checkpoint).revision
    except ModelLoadError:
        revision = checkpoint.revision
    return {
        "model_id": checkpoint.model_id,
        "location": checkpoint.location,
        "revision": revision,
        "substituted_for": checkpoint.substituted_for,
        "licence": recipe_of(checkpoint).licence,
        **({"dtype": "int8"} if checkpoint.precision == "int8" else {}),
    }


def recipe_of(checkpoint: Checkpoint) -> Recipe:
    """How to use a checkpoint: the catalogue's word, completed from the files where they are here."""
    try:
        folder = _folder_of(checkpoint)
    except ModelLoadError:
        return checkpoint.recipe
    return _completed(checkpoint, folder)


def window_of(recipe: Recipe, limit: int | None) -> int | None:
    """Return the smaller of a model's window and an endpoint's limit; None where neither has one."""
    return min((tokens for tokens in (recipe.max_tokens, limit) if tokens), default=None)


def _folder_of(checkpoint: Checkpoint) -> Path:
    if checkpoint.location is None:
        raise ModelLoadError(_unobtainable(checkpoint), status=404)
    return _find_folder(checkpoint.location, checkpoint.revision, checkpoint.download)


def _unobtainable(checkpoint: Checkpoint) -> str:
    model_id = checkpoint.model_id
    owned = f"The weights of [{model_id}] are Elastic's property and cannot be shipped or downloaded here."
    if checkpoint.recipe.task_type == "rerank":
        return (
            f"{owned} Let an open cross-encoder stand in, for example"
            f" [models: {{{model_id}: cross-encoder/ms-marco-MiniLM-L6-v2}}]"
        )
    return (
        f"{owned} Two ways on: export the model from your own cluster and name its folder as [location] in the run"
        " config's [models] section, with [backend: torchscript]; or let an open model stand in, for"
        f" example [models: {{{model_id}: splade-tiny}}]"
    )


_find_folder = lru_cache(maxsize=64)(find_folder)
_COMPLETED: dict[tuple[str, Path], Recipe] = {}


def _completed(checkpoint: Checkpoint, folder: Path) -> Recipe:
    key = (repr(checkpoint.recipe), folder)  # a recipe holds dicts and has no hash
    if key not in _COMPLETED:
        _COMPLETED[key] = complete(checkpoint.recipe, folder)
    return _COMPLETED[key]
