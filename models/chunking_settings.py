"""`chunking_settings`: how a value is cut into chunks, parsed and refused as Elasticsearch does.

Four keys are extensions of this project, absent from Elasticsearch and off by default: `segmenter`,
`language`, `size_unit` and `contiguous`. A fifth is a value: `word` also takes ``"overlap": 0``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, overload

from models.errors import ValidationError, illegal_argument, type_problem
from models.text import java_string

Strategy = Literal["word", "sentence", "recursive", "none"]
Segmenter = Literal["icu", "punkt"]
SizeUnit = Literal["words", "tokens"]

MAX_SEPARATORS = 50
ELSER_MAX_CHUNK_SIZE = 300
SMALLEST_CHUNK: Mapping[str, int] = {"word": 10, "sentence": 20, "recursive": 10}

SEPARATOR_GROUPS: Mapping[str, tuple[str, ...]] = {
    "markdown": (
        *("\n" + "#" * level + " " for level in range(1, 7)),
        "\n" + r"^(?!\s*$).*\n-{1,}\n",
        "\n" + r"^(?!\s*$).*\n={1,}\n",
    ),
    "plaintext": (r"(?<!\n)\n\n(?!\n)", r"(?<!\n)\n(?!\n)"),
}

PUNKT_LANGUAGES = (
    *("czech", "danish", "dutch", "english", "estonian", "finnish", "french", "german", "greek", "italian"),
    *(
        "malayalam",
        "norwegian",
        "polish",
        "portuguese",
        "russian",
        "slovene",
        "spanish",
        "swedish",
        "turkish",
    ),
)

_SCOPE = "chunking_settings"
_OWN_KEYS: Mapping[str, tuple[str, ...]] = {
    "word": ("max_chunk_size", "overlap"),
    "sentence": ("max_chunk_size", "sentence_overlap"),
    "recursive": ("max_chunk_size", "separators", "separator_group"),
    "none": (),
}
_EXTENSION_KEYS: Mapping[str, tuple[str, ...]] = {
    "word": ("size_unit", "contiguous"),
    "sentence": ("segmenter", "language", "size_unit", "contiguous"),
    "recursive": ("segmenter", "language", "size_unit", "contiguous"),
    "none": ("contiguous",),
}
_LARGEST_INT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class ChunkingSettings:
    """How a value is cut into chunks.

    Attributes:
        strategy: ``word``, ``sentence``, ``recursive`` or ``none`` (one chunk for each value).
        max_chunk_size: largest chunk, in `size_unit`; None for ``none``.
        overlap: words that a chunk repeats of the one before it; ``word`` only.
        sentence_overlap: sentences that a chunk repeats of the one before it, 0 or 1; ``sentence`` only.
        separators: Java regular expressions, tried in order; ``recursive`` only.
        segmenter: what finds the sentences: ``icu`` as Elasticsearch does, or ``punkt`` (extension).
        language: language of the Punkt model (extension).
        size_unit: ``words`` as Elasticsearch does, or ``tokens`` of the endpoint's own tokenizer (extension).
        contiguous: cut away overlaps and gaps, so that the chunks cover each value exactly once (extension).
    """

    strategy: Strategy
    max_chunk_size: int | None = None
    overlap: int | None = None
    sentence_overlap: int | None = None
    separators: tuple[str, ...] | None = None
    segmenter: Segmenter = "icu"
    language: str | None = None
    size_unit: SizeUnit = "words"
    contiguous: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the settings as Elasticsearch prints them, extensions only where they are used."""
        own = {
            "max_chunk_size": self.max_chunk_size,
            "overlap": self.overlap,
            "sentence_overlap": self.sentence_overlap,
            "separators": None if self.separators is None else list(self.separators),
        }
        extensions = {
            "segmenter": None if self.segmenter == "icu" else self.segmenter,
            "language": self.language,
            "size_unit": None if self.size_unit == "words" else self.size_unit,
            "contiguous": self.contiguous or None,
        }
        known = {key: value for key, value in {**own, **extensions}.items() if value is not None}
        return {"strategy": self.strategy, **known}


DEFAULT = ChunkingSettings("sentence", 250, sentence_overlap=1)
"""What an empty `chunking_settings` and an endpoint without one mean since Elasticsearch 8.16."""

OLD_DEFAULT = ChunkingSettings("word", 250, overlap=100)
"""What a null `chunking_settings` means: an endpoint that was stored before Elasticsearch 8.16."""


@overload
def parse_chunking_settings(
    raw: Mapping[str, Any] | None, *, return_defaults: Literal[True] = True
) -> ChunkingSettings: ...


@overload
def parse_chunking_settings(
    raw: Mapping[str, Any] | None, *, return_defaults: bool
) -> ChunkingSettings | None: ...


def parse_chunking_settings(
    raw: Mapping[str, Any] | None, *, return_defaults: bool = True
) -> ChunkingSettings | None:
    """Parse a `chunking_settings` object.

    Args:
        raw: the object as it was written.
        return_defaults: whether null and ``{}`` become the default settings (an endpoint) or None (a mapping,
            where they mean "not set").

    Returns:
        The settings. None only where `return_defaults` is false.

    Raises:
        ValidationError: the settings are wrong; every problem at once.
        InferenceError: there is no strategy, or it is unknown (status 400).
    """
    if raw is not None and not isinstance(raw, Mapping):
        raise ValidationError([type_problem(_SCOPE, raw, "Map")])
    if not raw:
        if not return_defaults:
            return None
        return OLD_DEFAULT if raw is None else DEFAULT
    strategy = _parse_strategy(raw)
    return _SettingsParser(strategy, raw).parse()


def check_elser_chunk_size(settings: ChunkingSettings) -> None:
    """Refuse chunks that are too large for an ELSER model of the ``elasticsearch`` service.

    Raises:
        InferenceError: `max_chunk_size` is above 300 words (status 400).
    """
    size = settings.max_chunk_size
    if size is not None and size > ELSER_MAX_CHUNK_SIZE:
        raise illegal_argument(
            f"ELSER based models do not support chunk sizes larger than {ELSER_MAX_CHUNK_SIZE}. "
            f"Requested chunk size: {size}"
        )


def _parse_strategy(raw: Mapping[str, Any]) -> Strategy:
    """Read the strategy, the one setting that the others depend on."""
    strategy = raw.get("strategy")
    if strategy is None:
        raise illegal_argument("Can't generate Chunker without ChunkingStrategy provided")
    if not isinstance(strategy, str) or strategy not in _OWN_KEYS:
        known = ", ".join(_OWN_KEYS)
        raise illegal_argument(
            f"Invalid chunkingStrategy {java_string(strategy)} (known strategies: {known})"
        )
    return cast(Strategy, strategy)


def _separator_count_problems(separators: tuple[str, ...]) -> list[str]:
    """Find what is wrong with the number of separators."""
    if not separators:
        return ["Recursive chunking settings can not have an empty list of separators"]
    if len(separators) > MAX_SEPARATORS:
        return [f"separators list size [{len(separators)}] must not exceed [{MAX_SEPARATORS}]"]
    return []


class _SettingsParser:
    """Reads the settings of one strategy and collects every problem on the way."""

    def __init__(self, strategy: Strategy, raw: Mapping[str, Any]) -> None:
        self.strategy = strategy
        self.raw = raw
        self.problems: list[str] = []

    def parse(self) -> ChunkingSettings:
        """Read every setting; raise all problems together."""
        self._refuse_unknown_keys()
        read = {"word": self._word, "sentence": self._sentence, "recursive": self._recursive, "none": dict}
        settings: dict[str, Any] = {**read[self.strategy](), **self._extensions()}
        if self.problems:
            raise ValidationError(self.problems)
        return ChunkingSettings(self.strategy, **settings)

    def _refuse_unknown_keys(self) -> None:
        allowed = {"strategy", *_OWN_KEYS[self.strategy], *_EXTENSION_KEYS[self.strategy]}
        unknown = ", ".join(key for key in self.raw if key not in allowed)
        if not unknown:
            return
        if self.strategy == "none":
            self.problems.append(
                f"When chunking is disabled (none), settings can not have the following: [{unknown}]"
            )
            return
        kind = "Recursive" if self.strategy == "recursive" else f"{self.strategy.capitalize()} based"
        self.problems.append(f"{kind} chunking settings can not have the following settings: [{unknown}]")

    def _word(self) -> dict[str, Any]:
        size = self._chunk_size()
        # Elasticsearch reads the overlap only where it knows what to compare it with.
        overlap = None if size is None else self._overlap(size // 2)
        return {"max_chunk_size": size, "overlap": overlap}

    def _sentence(self) -> dict[str, Any]:
        size = self._chunk_size()
        overlap = self._typed("sentence_overlap", int, "Integer")
        if overlap not in (None, 0, 1):
            self.problems.append(f"sentence_overlap[{overlap}] must be either 0 or 1")
        return {"max_chunk_size": size, "sentence_overlap": 1 if overlap is None else overlap}

    def _recursive(self) -> dict[str, Any]:
        size = self._chunk_size()
        group = self._choice("separator_group", tuple(SEPARATOR_GROUPS), loose=True)
        separators = self._separators()
        if separators is not None and group is not None:
            self.problems.append("Recursive chunking settings can not have both separators and separator_set")
        if group is not None:
            separators = SEPARATOR_GROUPS[group]
        elif separators is not None:
            self.problems += _separator_count_problems(separators)
        return {"max_chunk_size": size, "separators": separators or SEPARATOR_GROUPS["plaintext"]}

    def _extensions(self) -> dict[str, Any]:
        segmenter = self._choice("segmenter", ("icu", "punkt")) or "icu"
        language = self._choice("language", PUNKT_LANGUAGES)
        if segmenter == "punkt":
            language = language or "english"
        elif language is not None:
            self.problems.append(f"[{_SCOPE}] [language] can only be set together with [segmenter] [punkt]")
        return {
            "segmenter": segmenter,
            "language": language,
            "size_unit": self._choice("size_unit", ("words", "tokens")) or "words",
            "contiguous": bool(self._typed("contiguous", bool, "Boolean")),
        }

    def _typed(self, key: str, kind: type, java_name: str) -> Any:
        """Read an optional setting; a value of another JSON type is a problem and counts as absent."""
        value = self.raw.get(key)
        if value is None:
            return None
        fits = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
        if fits and not (kind is int and abs(value) > _LARGEST_INT):
            return value
        self.problems.append(type_problem(key, value, java_name))
        return None

    def _integer(self, key: str, smallest: int) -> int | None:
        """Read a required integer that is not below `smallest` (1, or 0 where Elasticsearch demands 1)."""
        before = len(self.problems)
        value: int | None = self._typed(key, int, "Integer")
        if value is None:
            if len(self.problems) == before:
                self.problems.append(f"[{_SCOPE}] does not contain the required setting [{key}]")
            return None
        if value < smallest:
            self.problems.append(f"[{_SCOPE}] Invalid value [{value}]. [{key}] must be a positive integer")
            return None
        return value

    def _chunk_size(self) -> int | None:
        size = self._integer("max_chunk_size", 1)
        smallest = SMALLEST_CHUNK[self.strategy]
        if size is not None and size < smallest:
            self.problems.append(
                f"[{_SCOPE}] Invalid value [{size}.0]. [max_chunk_size] must be greater than or equal to"
                f" [{smallest}.0]"
            )
            return None
        return size

    def _overlap(self, largest: int) -> int | None:
        overlap = self._integer("overlap", 0)
        if overlap is not None and overlap > largest:
            self.problems.append(
                f"[{_SCOPE}] Invalid value [{overlap}.0]. [overlap] must be less than or equal to"
                f" [{largest}.0]"
            )
        return overlap

    def _choice(self, key: str, choices: tuple[str, ...], *, loose: bool = False) -> str | None:
        """Read one of a few names; `loose` trims it and ignores case, as for a separator group."""
        value: str | None = self._typed(key, str, "String")
        if value is None:
            return None
        if not value:
            self.problems.append(f"[{_SCOPE}] Invalid value empty string. [{key}] must be a non-empty string")
            return None
        name = value.strip().lower() if loose else value
        if name not in choices:
            known = ", ".join(sorted(choices))
            self.problems.append(
                f"[{_SCOPE}] Invalid value [{value}] received. [{key}] must be one of [{known}]"
            )
            return None
        return name

    def _separators(self) -> tuple[str, ...] | None:
        separators: list[Any] | None = self._typed("separators", list, "List")
        if separators is None:
            return None
        wrong = [separator for separator in separators if not isinstance(separator, str)]
        self.problems += [type_problem("separators", value, "String") for value in wrong]
        return None if wrong else tuple(separators)
