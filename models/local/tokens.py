"""Texts to token ids, with the tokenizer that the checkpoint carries.

BERT's kind has code of its own (`models.local.wordpiece`), and byte-level BPE has a faster library where there is much
to do (`models.local.byte_pairs`). Every other one is the Rust library's, and so is what these two leave to it.
"""

import copy
import os
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import orjson

from models.errors import ModelLoadError
from models.local.byte_pairs import BytePairs
from models.local.engine.batching import TokenizedTexts
from models.local.engine.workers import usable_cores
from models.local.wordpiece import WordPiece, open_word_piece

if TYPE_CHECKING:
    from tokenizers import Tokenizer


_CUT_FACTOR = 16  # characters kept per token of the window before a text is cut unseen
_MIN_CUT = 4096


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
        self.max_tokens = max_tokens
        self._cut = None if max_tokens is None else max(_MIN_CUT, max_tokens * _CUT_FACTOR)
        self._source = source
        self._opened: Tokenizer | None = None
        self._fast: WordPiece | BytePairs | None = _open_word_piece(source, max_tokens)
        if self._fast is None and type(self._library().model).__name__ == "BPE":
            self._fast = BytePairs(lambda: _read(source), self._library(), self._tail)

    def _library(self) -> "Tokenizer":
        """The Rust tokenizer, read when something first needs it."""
        if self._opened is None:
            opened = _read_tokenizer(self._source) if isinstance(self._source, Path) else self._source
            # Stored settings would pad or cut to lengths of their own.
            opened.no_padding()
            opened.no_truncation()
            self._opened = opened
        return self._opened

    @cached_property
    def _tail(self) -> int:
        """Special tokens that close every text; a cut text keeps them."""
        mask: list[int] = self._library().encode("a").special_tokens_mask
        return len(mask) - len("".join(map(str, mask)).rstrip("1"))

    @cached_property
    def whole(self) -> "Tokens":
        """The same tokenizer without a window: it cuts nothing."""
        other = copy.copy(self)
        other.max_tokens = other._cut = None
        return other

    def special_ids(self) -> npt.NDArray[np.int64]:
        """List the ids of the special tokens."""
        added = self._library().get_added_tokens_decoder()
        return np.array(sorted(id for id, token in added.items() if token.special), np.int64)

    def vocabulary(self) -> tuple[str, ...]:
        """List the tokens by id."""
        size = self._library().get_vocab_size(with_added_tokens=True)
        return tuple(self._library().id_to_token(id) or "" for id in range(size))

    def count(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
        """Count each text's tokens before truncation, special tokens included."""
        if self._fast is None:
            return self._count_by_library(texts)
        found, left = self._fast.encode(texts, None)
        if len(left):
            found.lengths[left] = self._count_by_library([texts[row] for row in left])
        return found.lengths

    def _count_by_library(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
        encodings = self._library().encode_batch_fast(list(texts))
        return np.fromiter(map(len, encodings), np.int32, len(encodings))

    def encode(self, texts: Sequence[str], offsets: bool = False) -> TokenizedTexts:
        """Tokenize `texts` and cut them to the window.

        Args:
            texts: what to tokenize.
            offsets: tell where in its text each token is.
        """
        if self._fast is None:
            return self._encode_by_library(texts, offsets)
        found, left = self._fast.encode(texts, self.max_tokens, offsets)
        if not len(left):
            return found
        return found.replaced(left, self._encode_by_library([texts[row] for row in left], offsets))

    def _encode_by_library(self, texts: Sequence[str], offsets: bool) -> TokenizedTexts:
        encode = self._library().encode_batch if offsets else self._library().encode_batch_fast
        if self._cut is None:
            return self._pack(encode(list(texts)), offsets)
        shortened = [_cut_at_space(text, self._cut) for text in texts]
        encodings = encode(shortened)
        # A cut text that still fills the window is what the whole text would have been; any other is done in full.
        again = [
            row
            for row, (text, short) in enumerate(zip(texts, shortened, strict=True))
            if len(short) < len(text) and len(encodings[row]) <= (self.max_tokens or 0)
        ]
        if again:
            whole = encode([texts[row] for row in again])
            for row, encoding in zip(again, whole, strict=True):
                encodings[row] = encoding
        return self._pack(encodings, offsets)

    def _pack(self, encodings: Sequence["_Encoding"], offsets: bool) -> TokenizedTexts:
        full = np.fromiter(map(len, encodings), np.int32, len(encodings))
        window = int(full.max(initial=0)) if self.max_tokens is None else self.max_tokens
        return TokenizedTexts(
            _join([self._cut_to(window, e.ids) for e in encodings], ()),
            np.minimum(full, window).astype(np.int32),
            full > window,
            _join([self._cut_to(window, e.offsets) for e in encodings], (2,)) if offsets else None,
        )

    def _cut_to(self, window: int, items: list[Any]) -> list[Any]:
        if len(items) <= window:
            return items
        return items[: window - self._tail] + items[len(items) - self._tail :]


def _read(source: "Path | Tokenizer") -> bytes:
    """The ``tokenizer.json``; nothing where there is none."""
    if not isinstance(source, Path):
        return source.to_str().encode()
    path = source / "tokenizer.json"
    return path.read_bytes() if path.is_file() else b""


def _open_word_piece(source: "Path | Tokenizer", window: int | None) -> WordPiece | None:
    content = _read(source)
    if b'"WordPiece"' not in content:
        return None  # others are large, and not read twice
    try:
        opened = open_word_piece(orjson.loads(content))
    except ValueError:
        return None  # the library says what is wrong
    return opened if opened is not None and opened.fits(window) else None


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

    @property
    def offsets(self) -> list[tuple[int, int]]: ...

    def __len__(self) -> int: ...


def _join(rows: list[list[Any]], shape: tuple[int, ...]) -> npt.NDArray[np.int32]:
    """Join rows of items of a shape."""
    return np.concatenate(
        [np.zeros((0, *shape), np.int32), *(np.array(row, np.int32).reshape(-1, *shape) for row in rows)]
    )


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
    os.environ.setdefault("RAYON_NUM_THREADS", str(usable_cores()))
    return Tokens(folder, max_tokens)
