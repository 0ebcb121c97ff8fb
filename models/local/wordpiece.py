"""BERT's tokenizer in C++ (`models/local/kernels/wordpiece.cpp`): the ids of the Rust library, many times as fast.

It knows one kind of tokenizer, the one of BERT and most small embedding models, and of that kind only what `describe`
accepts. It compiles when the package is installed; where there is no compiler, and for every other tokenizer, the
library does the work.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.local.engine.batching import TokenizedTexts
from models.local.engine.workers import usable_cores

_CLEAN, _SET_APART, _STRIP, _LOWER = (1 << bit for bit in range(4))  # as in wordpiece.inc
_LEFT = -1  # to the library
_NO_LIMIT = 1 << 40

_NORMALIZER = {"type", "clean_text", "handle_chinese_chars", "strip_accents", "lowercase"}
_MODEL = {"type", "unk_token", "continuing_subword_prefix", "max_input_chars_per_word", "vocab"}
_ADDED = {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"}


@dataclass(frozen=True, slots=True)
class Description:
    """What a ``tokenizer.json`` says, as far as the C++ code needs it.

    Attributes:
        vocabulary: token -> id.
        added: tokens that are found in a text before it is normalized -> id; -1 for those that take blanks along or
            want to be whole words: a text with one of them is left to the library.
        stops: characters that leave a normalized text to the library, because a token may begin with them.
        prefix: of tokens that go on with a word.
        head: ids put before every text.
        tail: ids put after it.
        options: steps of the normalizer, as bits.
        unknown: id of words that have no tokens.
        most_characters: of a word that is looked up.
    """

    vocabulary: dict[str, int]
    added: dict[str, int]
    stops: str
    prefix: str
    head: tuple[int, ...]
    tail: tuple[int, ...]
    options: int
    unknown: int
    most_characters: int


def describe(tokenizer: Mapping[str, Any]) -> Description | None:
    """Read a ``tokenizer.json``; None where anything in it is not exactly what the C++ code does."""
    model, splitter = tokenizer.get("model") or {}, tokenizer.get("pre_tokenizer")
    options = _options(tokenizer.get("normalizer") or {})
    around = _around(tokenizer.get("post_processor"))
    if model.get("type") != "WordPiece" or set(model) != _MODEL or splitter != {"type": "BertPreTokenizer"}:
        return None
    vocabulary, prefix = model["vocab"], model["continuing_subword_prefix"]
    if options is None or around is None or not prefix or model["unk_token"] not in vocabulary:
        return None
    added = _added(tokenizer.get("added_tokens") or [], vocabulary, bool(options & _LOWER))
    if added is None or len(set(vocabulary.values())) != len(vocabulary):
        return None
    return Description(
        vocabulary=vocabulary,
        added=added[0],
        stops=added[1],
        prefix=prefix,
        head=around[0],
        tail=around[1],
        options=options,
        unknown=vocabulary[model["unk_token"]],
        most_characters=model["max_input_chars_per_word"],
    )


def _options(normalizer: Mapping[str, Any]) -> int | None:
    if set(normalizer) != _NORMALIZER or normalizer["type"] != "BertNormalizer":
        return None
    strip = normalizer["strip_accents"]
    steps = {
        _CLEAN: normalizer["clean_text"],
        _SET_APART: normalizer["handle_chinese_chars"],
        _STRIP: normalizer["lowercase"] if strip is None else strip,
        _LOWER: normalizer["lowercase"],
    }
    return sum(bit for bit, wanted in steps.items() if wanted)


def _added(
    tokens: Sequence[Mapping[str, Any]], vocabulary: Mapping[str, int], lower: bool
) -> tuple[dict[str, int], str] | None:
    """Return the tokens that are found in raw texts, and how those begin that are found in normalized ones."""
    added: dict[str, int] = {}
    stops = ""
    for token in tokens:
        if set(token) != _ADDED or vocabulary.get(token["content"]) != token["id"] or not token["content"]:
            return None
        first = token["content"][0]
        if token["normalized"]:
            if not first.isascii() or first.isspace() or not first.isprintable():
                return None
            stops += first.lower() if lower else first
        else:
            is_plain = not (token["single_word"] or token["lstrip"] or token["rstrip"])
            added[token["content"]] = token["id"] if is_plain else _LEFT
    return added, stops


def _around(processor: Mapping[str, Any] | None) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return the ids before and after every text."""
    kind = processor.get("type") if processor else None
    if processor is None:
        return (), ()
    if kind in ("BertProcessing", "RobertaProcessing"):
        return (processor["cls"][1],), (processor["sep"][1],)
    if kind != "TemplateProcessing":
        return None
    parts = [next(iter(part.items())) for part in processor["single"]]
    texts = [place for place, (name, _) in enumerate(parts) if name == "Sequence"]
    if len(texts) != 1:
        return None
    special = processor["special_tokens"]
    ids = [tuple(special[part["id"]]["ids"]) if name == "SpecialToken" else () for name, part in parts]
    return sum(ids[: texts[0]], ()), sum(ids[texts[0] :], ())


class WordPiece:
    """A tokenizer of BERT's kind. Safe to call from several threads, which run side by side."""

    def __init__(self, native: Any, description: Description) -> None:
        """Open a tokenizer.

        Args:
            native: the compiled module.
            description: what `describe` returned.
        """
        self._native = native
        self._special = len(description.head) + len(description.tail)
        self._tokenizer = native.open(
            description.vocabulary,
            description.added,
            description.stops,
            description.prefix,
            description.head,
            description.tail,
            description.options,
            description.unknown,
            description.most_characters,
        )

    def fits(self, window: int | None) -> bool:
        """Whether a window has room for the special tokens at least."""
        return window is None or window >= self._special

    def encode(
        self, texts: Sequence[str], window: int | None, offsets: bool = False
    ) -> tuple[TokenizedTexts, npt.NDArray[np.intp]]:
        """Tokenize `texts` on this process's share of the cores; a full window ends the work on a text.

        Args:
            texts: what to tokenize.
            window: most tokens of a text, special tokens included; None for no limit.
            offsets: tell where in its text each token is.

        Returns:
            The tokens, and the rows of the texts that are left to the library and have none.

        Raises:
            TypeError: a text is not a string.
        """
        room = _NO_LIMIT if window is None else window - self._special
        found = self._native.encode(self._tokenizer, tuple(texts), room, usable_cores(), offsets)
        numbers, lengths = (np.frombuffer(part, np.int32) for part in found[:2])
        tokens = len(numbers) // 3 if offsets else len(numbers)
        left = np.flatnonzero(lengths == _LEFT)
        lengths[left] = 0
        places = numbers[tokens:].reshape(-1, 2) if offsets else None
        return TokenizedTexts(numbers[:tokens], lengths, np.frombuffer(found[2], np.bool_), places), left


def open_word_piece(tokenizer: Mapping[str, Any]) -> WordPiece | None:
    """Open a ``tokenizer.json`` that was read; None where it is of another kind, or nothing was compiled."""
    try:
        from models import _wordpiece  # type: ignore[attr-defined]
    except ImportError:
        return None
    description = describe(tokenizer)
    return WordPiece(_wordpiece, description) if description else None
