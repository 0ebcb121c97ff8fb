"""Byte-level BPE (Qwen3, jina-embeddings-v5, ModernBERT, EuroBERT) in bulk, with the library ``fastokens``.

It gives the ids of ``tokenizers`` many times as fast and without Python lists, but needs a second or more to open a
large vocabulary. So it takes over where there is much to do, and only for tokenizers whose parts were all compared with
``tokenizers``: the patterns below, over every code point. Before it does, it has to give the same ids for some texts.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import orjson

from models.local.engine.batching import TokenizedTexts

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_log = logging.getLogger(__name__)
WORTH_OPENING = 1 << 22
"""Characters that come before: what they cost with ``tokenizers`` is what opening costs."""

_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_PATTERNS = (_LETTERS + _REST, _LETTERS + "{1,3}" + _REST)  # Qwen's, and that of Llama 3 and EuroBERT
_PROBES = (
    "I'm sure they'LL've 3.14 or 1,000,000 ways: don't say “naïve” — e-mail me@x.org!!\r\n\r\n\tdone  \n ",
    "  leading,  double and trailing   ",
    "Ünïcödé e\u0301\u0327 ﬁ Å ſ'ſ ½ Ⅷ ² １２３ ١٢٣ \u00a0\u2003\u3000\u200b\u00ad\ufeff\0\ufffd",
    "中文测试。日本語の文章です、한국어 텍스트 ภาษาไทย हिन्दी العربية עברית русский Ελληνικά",
    "😀👩\u200d👩\u200d👧🇩🇪1️⃣ 𝒳𝒴 𠀀𠀁 \U000e0041 \U0010ffff",
    "def f(x):\n\n    return {'a': x[0] ** 2}  # ...\n" + " " * 40 + "a" * 200,
    "",
)


class BytePairs:
    """A tokenizer with byte-level BPE. Safe to call from several threads."""

    def __init__(self, read: Callable[[], bytes], library: "Tokenizer", tail: int) -> None:
        """Make a tokenizer that opens when it is worth it.

        Args:
            read: gives the ``tokenizer.json``.
            library: the same tokenizer, which decides what is right.
            tail: special tokens that close every text; a cut text keeps them.
        """
        self._read, self._library, self._tail = read, library, tail
        self._seen = 0
        self._fast: Any = None
        self._opening = threading.Lock()  # taken for good by the first who finds it worth it

    def encode(
        self, texts: Sequence[str], window: int | None, offsets: bool = False
    ) -> tuple[TokenizedTexts, npt.NDArray[np.intp]]:
        """Tokenize `texts`.

        Args:
            texts: what to tokenize.
            window: most tokens of a text, special tokens included; None for no limit.
            offsets: tell where in its text each token is; only the other library can.

        Returns:
            The tokens, and the rows of the texts that are left to the other library and have none: all or nothing.
        """
        self._seen += sum(map(len, texts))
        if self._fast is None and self._seen >= WORTH_OPENING and self._opening.acquire(blocking=False):
            self._fast = self._open()
        if self._fast is not None and not offsets:
            try:
                return cut(*_encode(self._fast, texts), window, self._tail), np.zeros(0, np.intp)
            except UnicodeEncodeError:
                pass  # half a surrogate pair: the other library says so
        none, every = np.zeros(len(texts), np.int32), np.arange(len(texts))
        places = np.zeros((0, 2), np.int32) if offsets else None
        return TokenizedTexts(np.zeros(0, np.int32), none, np.zeros(len(texts), np.bool_), places), every

    def _open(self) -> Any:
        """Open the fast tokenizer; None where it is not there, not known, or not the same."""
        try:
            from fastokens import Tokenizer
        except ImportError:
            return None
        content = self._read()
        description = orjson.loads(content)
        if not is_known(description):
            return None
        try:
            fast = Tokenizer.from_json_str(content.decode())
        except ValueError as error:  # a part that it does not have
            _log.debug("fastokens cannot open a tokenizer: %s", error)
            return None
        fast.no_truncation()
        fast.no_padding()
        added = [token["content"] for token in description["added_tokens"]]
        probes = [*_PROBES, *(f"a{token}b {token}  {token}\n" for token in added)]
        ids, _ = _encode(fast, probes)
        expected = [id for encoding in self._library.encode_batch_fast(probes) for id in encoding.ids]
        if ids.tolist() == expected:
            return fast
        _log.warning("fastokens gives other ids than tokenizers; it is not used")
        return None


def is_known(tokenizer: Mapping[str, Any]) -> bool:
    """Whether every part of a ``tokenizer.json`` is one that was compared."""
    model = tokenizer.get("model") or {}
    extras = (
        "dropout",
        "unk_token",
        "continuing_subword_prefix",
        "end_of_word_suffix",
        "byte_fallback",
        "fuse_unk",
    )
    return (
        model.get("type") == "BPE"
        and not any(model.get(name) for name in extras)
        and tokenizer.get("normalizer") in (None, {"type": "NFC"})
        and _is_known_added(tokenizer)
        and _is_known_splitter(tokenizer.get("pre_tokenizer") or {})
        and _is_known_processor(tokenizer.get("post_processor"))
    )


def _is_known_added(tokenizer: Mapping[str, Any]) -> bool:
    """Without a normalizer fastokens looks for all added tokens at once, tokenizers for one kind after the other."""
    kinds = {bool(token["normalized"]) for token in tokenizer.get("added_tokens") or []}
    return tokenizer.get("normalizer") is not None or len(kinds) < 2


def _is_known_splitter(splitter: Mapping[str, Any]) -> bool:
    if splitter.get("type") == "ByteLevel":
        return bool(splitter.get("use_regex", True))
    parts = splitter.get("pretokenizers") or []
    if splitter.get("type") != "Sequence" or [part.get("type") for part in parts] != ["Split", "ByteLevel"]:
        return False
    split, bytes_ = parts
    return (
        split.get("pattern") in [{"Regex": pattern} for pattern in _PATTERNS]
        and split.get("behavior") == "Isolated"
        and not split.get("invert")
        and not bytes_.get("use_regex", True)
        and not bytes_.get("add_prefix_space")
    )


def _is_known_processor(processor: Mapping[str, Any] | None) -> bool:
    if processor is None or processor.get("type") in ("ByteLevel", "TemplateProcessing"):
        return True
    return processor.get("type") == "Sequence" and all(map(_is_known_processor, processor["processors"]))


def _encode(fast: Any, texts: Sequence[str]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Ids of all texts end to end, and the tokens of each."""
    ids, bounds = fast.encode_batch_flat(list(texts), add_special_tokens=True)
    return np.frombuffer(ids, np.uint32).view(np.int32), np.diff(np.frombuffer(bounds, np.uint64)).astype(
        np.int32
    )


def cut(
    ids: npt.NDArray[np.int32], lengths: npt.NDArray[np.int32], window: int | None, tail: int
) -> TokenizedTexts:
    """Cut texts to a window; each keeps its last `tail` tokens.

    Args:
        ids: of all texts, end to end.
        lengths: tokens of each text.
        window: most tokens of a text; None for no limit.
        tail: special tokens that close every text.
    """
    is_cut = np.zeros(len(lengths), np.bool_) if window is None else lengths > window
    if window is None or not is_cut.any():
        return TokenizedTexts(ids, lengths, is_cut)
    ends = np.cumsum(lengths, dtype=np.int64)
    place = np.arange(len(ids)) - np.repeat(ends - lengths, lengths)
    # Of a text that is cut, the tokens between the window's end and the tail go.
    begin = np.repeat(np.where(is_cut, window - tail, lengths), lengths)
    end = np.repeat(np.where(is_cut, lengths - tail, 0), lengths)
    return TokenizedTexts(ids[(place < begin) | (place >= end)], np.minimum(lengths, window), is_cut)
