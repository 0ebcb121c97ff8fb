"""At most 512 chunks are stored for a value; the embeddings of more are folded together, as Elasticsearch does."""

from collections.abc import Sequence
from itertools import groupby, pairwise

import numpy as np
import numpy.typing as npt

from models.embeddings import DenseEmbeddings, Embeddings, SparseEmbeddings
from models.text import Utf16Text
from transforms.records import Chunk

MAX_CHUNKS = 512


def merge_chunks(chunks: Sequence[Chunk], embeddings: Embeddings) -> tuple[tuple[Chunk, ...], Embeddings]:
    """Fold the chunks of every value that has more than 512 into 512, and their embeddings with them.

    Every chunk has been embedded on its own. Dense embeddings are averaged and not normalised again, bytes are
    rounded; sparse ones keep the largest weight of each token. A folded chunk is truncated if one of its members is.

    Args:
        chunks: the chunks of one field, by source field and value, in order.
        embeddings: one row for each chunk.

    Returns:
        The chunks and embeddings to store; the ones that were given where no value has more than 512 chunks.
    """
    if len(chunks) <= MAX_CHUNKS:
        return tuple(chunks), embeddings
    targets = _target_rows(chunks)
    if int(targets[-1]) + 1 == len(chunks):
        return tuple(chunks), embeddings
    # Targets never go down, so a stored row begins wherever they go up.
    firsts = np.flatnonzero(np.diff(targets, prepend=-1))
    bounds = [*firsts.tolist(), len(chunks)]
    merged = tuple(_join(chunks[start:end]) for start, end in pairwise(bounds))
    if isinstance(embeddings, DenseEmbeddings):
        return merged, _merge_dense(embeddings, firsts)
    return merged, _merge_sparse(embeddings, targets, firsts)


def count_stored(chunks: Sequence[Chunk]) -> int:
    """Return how many of the chunks will be stored after the fold."""
    targets = _target_rows(chunks)
    return int(targets[-1]) + 1 if len(targets) else 0


def _target_rows(chunks: Sequence[Chunk]) -> npt.NDArray[np.int64]:
    """Return the stored row of each chunk: chunk i of n of a value goes to its row ``i * 512 // n``."""
    rows: list[npt.NDArray[np.int64]] = []
    stored = 0
    for _, members in groupby(chunks, key=lambda chunk: (chunk.source_field, chunk.value)):
        count = sum(1 for _ in members)
        kept = min(count, MAX_CHUNKS)
        rows.append(stored + np.arange(count, dtype=np.int64) * kept // count)
        stored += kept
    return np.concatenate(rows) if rows else np.zeros(0, np.int64)


def _join(members: Sequence[Chunk]) -> Chunk:
    """Return the chunk from the start of the first member to the end of the last one."""
    first, last = members[0], members[-1]
    if len(members) == 1:
        return first
    texts = [first.text]
    end = first.end_offset
    for member in members[1:]:
        if member.end_offset > end:
            # Members overlap or touch; only what is new is added.
            text = Utf16Text(member.text)
            texts.append(text.slice(end - member.start_offset, text.length))
            end = member.end_offset
    return first._replace(end_offset=last.end_offset, text="".join(texts))


def _merge_dense(embeddings: DenseEmbeddings, firsts: npt.NDArray[np.intp]) -> DenseEmbeddings:
    # In double precision, so that the sum of many float32 or int8 rows loses nothing.
    sizes = np.diff(firsts, append=len(embeddings))
    means = np.add.reduceat(embeddings.values.astype(np.float64), firsts) / sizes[:, None]
    is_float = embeddings.values.dtype == np.float32
    return DenseEmbeddings(
        # Bytes are rounded half up, as Java's Math.round does.
        means.astype(np.float32) if is_float else np.floor(means + 0.5).astype(np.int8),
        np.logical_or.reduceat(embeddings.is_truncated, firsts),
        np.add.reduceat(embeddings.tokens, firsts),
    )


def _merge_sparse(
    embeddings: SparseEmbeddings, targets: npt.NDArray[np.int64], firsts: npt.NDArray[np.intp]
) -> SparseEmbeddings:
    # The stored row of each entry; then sort by row, token and falling weight.
    rows = np.repeat(targets, np.diff(embeddings.indptr))
    order = np.lexsort((-embeddings.weights, embeddings.token_ids, rows))
    rows, tokens, weights = rows[order], embeddings.token_ids[order], embeddings.weights[order]
    # The heaviest entry of each token comes first in its row; the others go.
    heaviest = np.ones(len(rows), np.bool_)
    heaviest[1:] = (rows[1:] != rows[:-1]) | (tokens[1:] != tokens[:-1])
    rows, tokens, weights = rows[heaviest], tokens[heaviest], weights[heaviest]
    # Within a row the heaviest token comes first, as the models give them.
    by_weight = np.lexsort((tokens, -weights, rows))
    return SparseEmbeddings(
        np.searchsorted(rows, np.arange(len(firsts) + 1)).astype(np.int64),
        tokens[by_weight],
        weights[by_weight],
        embeddings.vocabulary,
        np.logical_or.reduceat(embeddings.is_truncated, firsts),
        np.add.reduceat(embeddings.tokens, firsts),
    )
