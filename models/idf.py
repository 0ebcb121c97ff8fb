"""Queries without a model: the term weights that OpenSearch's document-side sparse models bring along."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.errors import ModelLoadError

_NAMES = ("idf.json", "query_token_weights.txt", "query_0_SparseStaticEmbedding/idf.json")


def read_idf(folder: Path, vocabulary: tuple[str, ...]) -> npt.NDArray[np.float32]:
    """Read the weight of each token of the vocabulary (float32 [vocabulary]); absent ones weigh nothing.

    Args:
        folder: the checkpoint, with ``idf.json`` (token -> weight) or ``query_token_weights.txt``.
        vocabulary: the tokens by id.

    Raises:
        ModelLoadError: there is no such file, or it does not hold weights.
    """
    found = [folder / name for name in _NAMES if (folder / name).is_file()]
    if not found:
        raise ModelLoadError(f"The checkpoint in [{folder}] has no table of query weights: no [{_NAMES[0]}]")
    try:
        text = found[0].read_text("utf-8")
        if found[0].suffix == ".json":
            weights = {token: float(weight) for token, weight in json.loads(text).items()}
        else:
            rows = (line.split("\t") for line in text.splitlines() if line)
            weights = {token: float(weight) for token, weight in rows}
    except (ValueError, AttributeError, TypeError) as error:
        raise ModelLoadError(f"[{found[0]}] is not a table of token weights: {error}") from error
    return np.array([weights.get(token, 0.0) for token in vocabulary], np.float32)
