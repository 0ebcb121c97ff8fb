"""A loaded cross-encoder: pairs of a query and a text through the engine, a score for each out."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.errors import InferenceError, ModelLoadError
from models.local.architectures import cross_encoder
from models.local.engine.batching import CPU_TOKENS, GPU_TOKENS, TokenizedTexts
from models.local.engine.run import Engine
from models.local.engine.workers import Workers
from models.local.vectors import must_be_finite
from models.reranker import Relevance, Reranker


class PairTokens:
    """A checkpoint's tokenizer for pairs. Safe to call from several threads."""

    def __init__(self, folder: Path, window: int | None, shift: int) -> None:
        """Open a tokenizer.

        Args:
            folder: the checkpoint, with a ``tokenizer.json``.
            window: most tokens of a pair; the longer text of a pair is cut first.
            shift: added to the ids of the second text, see `cross_encoder.read_pair_weights`.

        Raises:
            ModelLoadError: there is no ``tokenizer.json``, or it cannot be read.
        """
        from tokenizers import Tokenizer

        path = folder / "tokenizer.json"
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the Rust side raises plain Exception
            raise ModelLoadError(f"[{path}] cannot be read: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        if window is not None:
            self._tokenizer.enable_truncation(window, strategy="longest_first")
        self._shift = shift

    def encode(self, query: str, texts: Sequence[str]) -> TokenizedTexts:
        """Tokenize the query with each text."""
        encodings = self._tokenizer.encode_batch([(query, text) for text in texts])
        rows = [
            np.array(one.ids, np.int32) + self._shift * np.array(one.type_ids, np.int32) for one in encodings
        ]
        return TokenizedTexts(
            np.concatenate([np.zeros(0, np.int32), *rows]),
            np.array([len(row) for row in rows], np.int32),
            np.array([bool(one.overflowing) for one in encodings], np.bool_),
        )


class CrossEncoder(Reranker):
    """A loaded cross-encoder. Safe to call from several threads."""

    def __init__(
        self, score: cross_encoder.Score, tokens: PairTokens, workers: Workers, device: str = "cpu"
    ) -> None:
        """Build a reranker around a model.

        Args:
            score: the model.
            tokens: its tokenizer.
            workers: the copies to compute on.
            device: where the model is.
        """
        self.device = device
        self._score, self._tokens, self._workers = score, tokens, workers

    def rerank(self, query: str, texts: Sequence[str]) -> Relevance:
        """See `models.reranker.Reranker`."""
        budget = CPU_TOKENS if self.device == "cpu" else GPU_TOKENS
        engine: Engine[npt.NDArray[np.float32]] = Engine(
            partial(self._tokens.encode, query), self._workers, self.device, budget
        )
        scores, tokens = np.zeros(len(texts), np.float32), 0
        for rows, tokenized, parts in engine.run(texts, self._score):
            tokens += int(tokenized.lengths.sum())
            for batch_rows, found in parts:
                scores[rows[batch_rows]] = found
        must_be_finite(scores)
        return Relevance(scores, tokens)

    def close(self) -> None:
        """Stop the copies."""
        self._workers.close()


_PROBES = ("what is it", ["a short text", "a text that is a good deal longer than the other one", "5 . x"])
_MOST_DIFFERENCE = 0.05


def must_agree(found: CrossEncoder, expected: CrossEncoder) -> None:
    """Score a few pairs on a GPU and on the CPU, so that a broken GPU is noticed at once.

    Raises:
        ModelLoadError: the GPU fails, or gives something else.
    """
    try:
        ours = found.rerank(*_PROBES).scores
    except (InferenceError, RuntimeError) as error:
        raise ModelLoadError(
            f"The model cannot run on [{found.device}]: {error}; set [device: cpu]"
        ) from error
    wanted = expected.rerank(*_PROBES).scores
    if not (np.abs(ours - wanted) <= _MOST_DIFFERENCE * np.maximum(1, np.abs(wanted))).all():
        raise ModelLoadError(
            f"The model gives other scores on [{found.device}] than on the CPU: {ours.tolist()}, expected"
            f" {wanted.tolist()}; set [device: cpu], or try [dtype: float32] in [models]"
        )
