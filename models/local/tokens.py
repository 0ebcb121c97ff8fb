"""Texts to token ids, with the Rust tokenizer that the checkpoint carries."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from models.errors import ModelLoadError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


_CUT_FACTOR = 16  # characters kept per token of the window before a text is cut unseen
_MIN_CUT = 4096


@dataclass(frozen=True, slots=True)
class TokenizedTexts:
    """Token ids of n texts, end to end in one array.

    Attributes:
        ids: int32 [tokens]; cut to the window, special tokens included.
        lengths: int32 [n]; tokens of each text in `ids`.
        is_truncated: bool [n].
    """

    ids: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int32]
    is_truncated: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.lengths)

    def starts(self) -> npt.NDArray[np.int64]:
        """Where each text's ids begin (int64 [n])."""
        return np.cumsum(self.lengths, dtype=np.int64) - self.lengths


class Tokens:
    """A checkpoint's tokenizer. Safe to call from several threads."""

    def __init__(self, source: "Path | Tokenizer", max_tokens: int | None) -> None:
        """Open a tokenizer.

        Args:
            source: the checkpoint's folder, with a ``tokenizer.json``, or the tokenizer itself.
            max_tokens: the model's window, special tokens included.

        Raises:
            ModelLoadError: there is no ``tokenizer.json`` or it cannot be read.
        """
        self._tokenizer = _read_tokenizer(source) if isinstance(source, Path) else source
        # Stored settings would pad or cut to lengths of their own.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.max_tokens = max_tokens
        self._tail = self._special_tail()
        self._cut = None if max_tokens is None else max(_MIN_CUT, max_tokens * _CUT_FACTOR)

    def _special_tail(self) -> int:
        """Count the special tokens that close every text; a cut text keeps them."""
        mask: list[int] = self._tokenizer.encode("a").special_tokens_mask
        return len(mask) - len("".join(map(str, mask)).rstrip("1"))

    def special_ids(self) -> npt.NDArray[np.int64]:
        """List the ids of the special tokens."""
        added = self._tokenizer.get_added_tokens_decoder()
        return np.array(sorted(id for id, token in added.items() if token.special), np.int64)

    def vocabulary(self) -> tuple[str, ...]:
        """List the tokens by id."""
        size = self._tokenizer.get_vocab_size(with_added_tokens=True)
        return tuple(self._tokenizer.id_to_token(id) or "" for id in range(size))

    def count(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
        """Count each text's tokens before truncation, special tokens included."""
        encodings = self._tokenizer.encode_batch_fast(list(texts))
        return np.fromiter(map(len, encodings), np.int32, len(encodings))

    def encode(self, texts: Sequence[str]) -> TokenizedTexts:
        """Tokenize `texts` and cut them to the window."""
        if self._cut is None:
            return self._pack(self._tokenizer.encode_batch_fast(list(texts)))
        shortened = [_cut_at_space(text, self._cut) for text in texts]
        encodings = self._tokenizer.encode_batch_fast(shortened)
        # A cut text that still fills the window is what the whole text would have been; any other is done in full.
        again = [
            row
            for row, (text, short) in enumerate(zip(texts, shortened, strict=True))
            if len(short) < len(text) and len(encodings[row]) <= (self.max_tokens or 0)
        ]
        if again:
            whole = self._tokenizer.encode_batch_fast([texts[row] for row in again])
            for row, encoding in zip(again, whole, strict=True):
                encodings[row] = encoding
        return self._pack(encodings)

    def _pack(self, encodings: Sequence["_Encoding"]) -> TokenizedTexts:
        full = np.fromiter(map(len, encodings), np.int32, len(encodings))
        window = self.max_tokens
        if window is None:
            return TokenizedTexts(_join([e.ids for e in encodings]), full, np.zeros(len(full), np.bool_))
        ids = [e.ids if len(e) <= window else self._cut_ids(e.ids, window) for e in encodings]
        return TokenizedTexts(_join(ids), np.minimum(full, window).astype(np.int32), full > window)

    def _cut_ids(self, ids: list[int], window: int) -> list[int]:
        return ids[: window - self._tail] + ids[len(ids) - self._tail :]


def _read_tokenizer(folder: Path) -> "Tokenizer":
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelLoadError(
            f"The checkpoint in [{folder}] has no tokenizer.json; write one with transformers'"
            " AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        )
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust side raises plain Exception
        raise ModelLoadError(f"[{path}] cannot be read: {error}") from error


def word_piece_tokens(vocabulary: Sequence[str], max_tokens: int | None) -> Tokens:
    """Make the tokenizer of an uncased BERT from its vocabulary alone.

    Args:
        vocabulary: the tokens by id.
        max_tokens: the model's window, special tokens included.
    """
    from tokenizers import BertWordPieceTokenizer

    made = BertWordPieceTokenizer({token: id for id, token in enumerate(vocabulary)}, lowercase=True)
    return Tokens(made._tokenizer, max_tokens)


class _Encoding(Protocol):
    """The part of ``tokenizers.Encoding`` that is used here."""

    @property
    def ids(self) -> list[int]: ...

    def __len__(self) -> int: ...


def _join(ids: list[list[int]]) -> npt.NDArray[np.int32]:
    if not ids:
        return np.zeros(0, np.int32)
    return np.concatenate([np.array(row, np.int32) for row in ids])


def _cut_at_space(text: str, limit: int) -> str:
    """Cut a long text between two words, where tokens never reach across.

    Only a space between two ASCII letters counts: every tokenizer of the supported models ends a token
    there. A text without one is left whole.
    """
    if len(text) <= limit:
        return text
    end = limit
    while True:
        end = text.rfind(" ", 1, end)
        if end < limit // 2:
            return text
        before, after = text[end - 1], text[end + 1 : end + 2]
        if before.isascii() and before.isalpha() and after.isascii() and after.isalpha():
            return text[:end]


@lru_cache(maxsize=16)
def open_tokens(folder: Path, max_tokens: int | None) -> Tokens:
    """Open a checkpoint's tokenizer, once a process."""
    # The Rust threads of a forked child would hang; set before the first batch, not for a caller who chose.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    return Tokens(folder, max_tokens)
