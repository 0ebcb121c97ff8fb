"""What happens to embeddings after the model: a look at their numbers, fewer dimensions, unit length, bytes or bits."""

import numpy as np
import numpy.typing as npt

from models.errors import InferenceError


def must_be_finite(values: npt.NDArray[np.float32]) -> None:
    """Refuse what would silently spoil a ranking.

    Raises:
        InferenceError: a number is infinite or none at all.
    """
    if not np.isfinite(values).all():
        raise InferenceError(
            "The model gave numbers that are not finite; take another [dtype], such as float32, or another checkpoint"
        )


def normalize(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Scale each row to length 1; a zero row stays zero."""
    # Squares add up in double precision, so that the length is right to the last digit of float32.
    norms = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
    return (values / np.maximum(norms, 1e-12)[:, None]).astype(np.float32, copy=False)


def shorten(values: npt.NDArray[np.float32], dimensions: int | None, unit: bool) -> npt.NDArray[np.float32]:
    """Keep the first `dimensions` (Matryoshka), then scale to length 1 where the model's embeddings are.

    Args:
        values: the model's embeddings.
        dimensions: None keeps all.
        unit: whether the embeddings have length 1.
    """
    if dimensions is not None and dimensions < values.shape[1]:
        values = np.ascontiguousarray(values[:, :dimensions])
    return normalize(values) if unit else values


def encode_elements(
    values: npt.NDArray[np.float32], element_type: str, similarity: str = "cosine"
) -> npt.NDArray[np.float32] | npt.NDArray[np.int8]:
    """Encode floats as Elasticsearch's ``dense_vector`` wants an element type.

    ``byte`` rounds to -127..127. Under cosine each row is first stretched to use that whole range, which
    changes no cosine; other similarities depend on the length, so one scale (1.0 -> 127) serves all rows.
    ``bit`` keeps the signs, eight a byte, high bit first, as signed bytes.
    """
    if element_type == "float":
        return values
    if element_type == "bit":
        # One bit a dimension. Elasticsearch's bytes are signed, so that the same eight bits are read as int8.
        return np.packbits(values > 0, axis=1).view(np.int8)
    largest = np.abs(values).max(axis=1, keepdims=True, initial=1e-12) if similarity == "cosine" else 1.0
    return np.clip(np.rint(values / largest * 127), -127, 127).astype(np.int8)
