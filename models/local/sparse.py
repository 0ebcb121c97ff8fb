"""Learned sparse embeddings (SPLADE and its kin) from a model that runs here."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.embeddings import Embedder, InputType, OnBatch, SparseEmbeddings
from models.errors import ModelLoadError
from models.local.engine.batching import TokenBatch
from models.local.engine.run import Engine
from models.local.engine.workers import Workers
from models.local.tokens import Tokens
from models.local.vectors import must_be_finite


class SparseRows(NamedTuple):
    """The sparse embeddings of one batch.

    Attributes:
        counts: int64 [texts]; entries of each text.
        token_ids: int32 [entries].
        weights: float32 [entries]; descending within a text.
    """

    counts: npt.NDArray[np.int64]
    token_ids: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]


def sort_rows(
    rows: npt.NDArray[np.int64],
    token_ids: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float32],
    texts: int,
) -> SparseRows:
    """Put entries (row, token id, weight) into order: by row, within a row by descending weight."""
    order = np.lexsort(
        (token_ids, -weights, rows)
    )  # the last key counts first; equal weights stand by token id
    counts = np.bincount(rows, minlength=texts).astype(np.int64)
    return SparseRows(counts, token_ids[order].astype(np.int32), weights[order])


def _reorder(
    found: Sequence[SparseRows], order: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Join the rows of several batches, in another order: row pointers, token ids and weights."""
    counts, token_ids, weights = (np.concatenate(part) for part in zip(*found, strict=True))
    starts = np.cumsum(counts) - counts
    sizes = counts[order]
    indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    # Each row's entries move as one block: the same shift, old start less new start, for all of them.
    entries = np.repeat(starts[order] - indptr[:-1], sizes) + np.arange(indptr[-1])
    return indptr, token_ids[entries], weights[entries]


class SparseEmbedder(Embedder):
    """A loaded sparse model. Safe to call from several threads."""

    def __init__(
        self,
        compute: Callable[[TokenBatch], SparseRows],
        tokens: Tokens,
        *,
        workers: Workers,
        device: str = "cpu",
        token_budget: int = 1024,
        idf: npt.NDArray[np.float32] | None = None,
        rename: Callable[[str], str] = str,
    ) -> None:
        """Build an embedder around a model.

        Args:
            compute: the model: one batch in, its sparse rows out.
            tokens: the model's tokenizer.
            workers: the copies to compute on.
            device: where the model is.
            token_budget: tokens of one batch.
            idf: weight of each token of a query, for models whose queries need no model.
            rename: gives a token the name that it has in the embeddings.
        """
        self.device = device
        self._idf = idf
        self._special = tokens.special_ids()
        self._tokens = tokens
        self._workers = workers
        self._vocabulary = tuple(map(rename, tokens.vocabulary()))
        self._compute = compute
        self._engine: Engine[SparseRows] = Engine(tokens.encode, workers, device, token_budget)

    def embed(
        self, texts: Sequence[str], input_type: InputType, on_batch: OnBatch | None = None
    ) -> SparseEmbeddings:
        """Embed `texts` in order; see `models.embeddings.Embedder`."""
        if input_type == "search" and self._idf is not None:
            return self._weigh_queries(texts, self._idf)
        is_truncated = np.zeros(len(texts), np.bool_)
        tokens = np.zeros(len(texts), np.int32)
        order: list[npt.NDArray[np.intp]] = [np.zeros(0, np.intp)]
        found = [SparseRows(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))]
        for rows, tokenized, parts in self._engine.run(texts, self._compute, on_batch=on_batch):
            tokens[rows], is_truncated[rows] = tokenized.lengths, tokenized.is_truncated
            order += [rows[batch_rows] for batch_rows, _ in parts]
            found += [batch for _, batch in parts]
        # `order` says which text each row belongs to; its sorting permutation says where each text's row is.
        in_order = np.argsort(np.concatenate(order))
        indptr, token_ids, weights = _reorder(found, in_order)
        must_be_finite(weights)
        return SparseEmbeddings(indptr, token_ids, weights, self._vocabulary, is_truncated, tokens)

    def _weigh_queries(self, texts: Sequence[str], idf: npt.NDArray[np.float32]) -> SparseEmbeddings:
        """Give each distinct token of a query its weight from the table."""
        tokenized = self._tokens.encode(texts)
        rows = np.repeat(np.arange(len(texts)), tokenized.lengths)
        keys = np.unique(
            rows * len(idf) + tokenized.ids
        )  # (row, token) as one number, to count each pair once
        rows, token_ids = np.divmod(keys, len(idf))
        kept = (idf[token_ids] > 0) & ~np.isin(token_ids, self._special)
        found = sort_rows(rows[kept], token_ids[kept], idf[token_ids[kept]], len(texts))
        indptr = np.concatenate([[0], np.cumsum(found.counts)]).astype(np.int64)
        return SparseEmbeddings(
            indptr,
            found.token_ids,
            found.weights,
            self._vocabulary,
            tokenized.is_truncated,
            tokenized.lengths,
        )

    def count_tokens(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
        """Count each text's tokens before truncation, special tokens included."""
        return self._tokens.count(texts)

    def close(self) -> None:
        """Stop the copies."""
        self._workers.close()


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
    wrong = next((token for token, weight in weights.items() if not math.isfinite(weight)), None)
    if wrong is not None:
        raise ModelLoadError(f"[{found[0]}] gives the token [{wrong}] the weight [{weights[wrong]}]")
    return np.array([weights.get(token, 0.0) for token in vocabulary], np.float32)
