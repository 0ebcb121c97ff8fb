"""Propose a run config for files that nobody has described: `init`.

A sample of the documents says what the fields are: ids, dates, numbers, keywords, and texts, of which the longest are
embedded. Nothing of it is certain, so the config says in comments what was seen.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.config.mapping import RESERVED
from pipeline.errors import PipelineError
from transforms.read.formats import FORMATS, read_rows
from transforms.read.rows.readers import SourceFormat
from transforms.read.splits import list_source
from transforms.records import Piece

SAMPLE = 1_000
"""Documents that are looked at."""

SAMPLED_FILES = 50
"""Files that they are taken from."""

IDS = ("_id", "id", "doc_id", "docid", "document_id", "uuid", "guid", "key", "url", "path")
TITLES = ("title", "headline", "subject", "name", "heading", "question")
_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?")
_INTEGER = re.compile(r"-?(0|[1-9]\d{0,17})")
_NUMBER = re.compile(r"-?\d+\.\d+([eE][+-]?\d+)?")
_ENGLISH = frozenset("the of and to in is that for it with as was on are this be by at from".split())  # noqa: SIM905


@dataclass
class FieldSeen:
    """What a sample says of one field.

    Attributes:
        name: its full name, with dots.
        values: its values, those of lists one by one.
        documents: documents that have it.
    """

    name: str
    values: list[Any] = field(default_factory=list)
    documents: int = 0

    @property
    def type(self) -> str:
        """The field type of Elasticsearch that fits all values."""
        kinds = {_kind(value) for value in self.values}
        if kinds == {"long", "double"}:
            return "double"
        if len(kinds) == 1:
            (kind,) = kinds
            return kind if kind != "string" else self._string_type()
        return self._string_type() if kinds <= {"string", "date", "long", "double", "boolean"} else "object"

    def _string_type(self) -> str:
        is_title = self.name.rpartition(".")[2].lower() in TITLES
        return "text" if is_title or self.words > 8 or self.longest > 256 else "keyword"

    @property
    def words(self) -> float:
        """Words of a value, on average."""
        return sum(len(str(value).split()) for value in self.values) / max(len(self.values), 1)

    @property
    def longest(self) -> int:
        """Characters of the longest value."""
        return max((len(str(value)) for value in self.values), default=0)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "long" if abs(value) < 2**63 else "string"
    if isinstance(value, float):
        return "double"
    if not isinstance(value, str):
        return "object"
    text = value.strip()
    for kind, pattern in (("date", _DATE), ("long", _INTEGER), ("double", _NUMBER)):
        if pattern.fullmatch(text):
            return kind
    return "boolean" if text in ("true", "false") else "string"


@dataclass(frozen=True)
class Proposal:
    """A config and what it was made from.

    Attributes:
        config: the config's values.
        notes: section -> what was seen, a sentence each.
    """

    config: dict[str, Any]
    notes: dict[str, list[str]]


def propose(path: str) -> Proposal:
    """Look at files and propose a config.

    Args:
        path: a file or a folder.

    Raises:
        PipelineError: there is nothing that can be read.
    """
    source = _source(path)
    rows = list(islice(_rows(source), SAMPLE))
    if not rows:
        raise PipelineError(f"[{path}] has no document that can be read as {source['format']}")
    is_hit = all("_source" in row for row in rows)
    documents = [row["_source"] for row in rows] if is_hit else rows
    seen = [one for one in _fields(documents) if one.name.partition(".")[0] not in RESERVED]
    notes = {"source": [f"{len(rows):,} documents were looked at"]}
    if FORMATS[source["format"]].is_one_document:
        notes["source"].append("a document's id is its path")
    else:
        source["id"] = "_id" if is_hit else _id(_fields(documents))
        if source["id"] is None:
            notes["source"].append("no field names every document: its id is made of its content")
    mappings, notes["mappings"] = _mappings(seen, source["format"])
    name = re.sub(r"[^\w-]+", "-", Path(path).resolve().name.partition(".")[0]).strip("-").lower() or "corpus"
    config = {
        "source": source,
        "mappings": mappings,
        "table": {"path": f"out/{name}/table"},
        "index": {"path": f"out/{name}/index"},
    }
    return Proposal(config, notes)


def _source(path: str) -> dict[str, Any]:
    """The source section: format by the endings of the files, and how CSV is written by looking at it."""
    if os.path.isdir(path):
        endings = Counter(
            Path(name).suffix.lower()
            for _, _, names in os.walk(path)
            for name in names
            if not name.startswith(".")
        )
    elif os.path.isfile(path):
        endings = Counter([_ending(path)])
    else:
        raise PipelineError(f"[{path}] does not exist")
    format = _format(path, endings)
    source: dict[str, Any] = {"format": format, "path": path}
    if format == "csv":
        source |= _dialect(next(_files(path, format)))
    return source


def _ending(path: str) -> str:
    name = path.lower()
    for packed in (".gz", ".bz2", ".xz", ".zst", ".zip"):
        name = name.removesuffix(packed)
    return Path(name).suffix


def _format(path: str, endings: Counter[str]) -> str:
    # A folder of one kind is read as that; what is mixed, or of another kind, is a folder of documents.
    counted: Counter[str] = Counter()
    for ending, count in endings.items():
        known = [name for name, one in FORMATS.items() if ending in one.endings and ending]
        counted[known[0] if known else "files"] += count
    if not counted:
        raise PipelineError(f"[{path}] has no files")
    format = counted.most_common(1)[0][0] if len(counted) == 1 else "files"
    rows = {name: count for name, count in counted.items() if name in ("jsonl", "parquet", "csv")}
    if len(rows) == 1 and format == "files":
        format = next(iter(rows))  # data beside a README
    return _json_format(path) if format == "jsonl" else format


def _json_format(path: str) -> str:
    """Whether ``.json`` files hold a line a document, or one array or object."""
    with open(next(_files(path, "jsonl")), "rb") as handle:
        head = handle.read(65_536).lstrip()
    first = head.split(b"\n", 1)[0].rstrip()
    return "jsonl" if (first[:1] == b"{" and first[-1:] == b"}") or first[:1] not in b"[{" else "json"


def _files(path: str, format: str) -> Iterator[str]:
    for split in list_source([path], format, 1 << 30).splits:
        yield from (piece.path for piece in split.pieces)


def _dialect(path: str) -> dict[str, Any]:
    """Delimiter and encoding of CSV, where they are not the usual ones."""
    if _ending(path) != Path(path).suffix.lower():
        return {}
    with open(path, "rb") as handle:
        head = handle.read(1 << 20)
    found: dict[str, Any] = {}
    cut = head[: head.rfind(b"\n") + 1] or head
    try:
        text = cut.decode("utf-8-sig")
    except UnicodeDecodeError:
        is_wide = head[:2] in (b"\xff\xfe", b"\xfe\xff")
        found["encoding"] = "utf-16" if is_wide else "cp1252"
        text = head.decode(found["encoding"], errors="replace")
    first = text.partition("\n")[0]
    counts = {character: first.count(character) for character in ",;\t|"}
    most = max(counts, key=lambda character: counts[character])
    if counts[most] > counts[","]:
        found["delimiter"] = most
    return found


def _rows(source: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Fields of the first documents, from several files where there are several."""
    reader = SourceFormat(
        source["format"],
        None,
        100 << 20,
        delimiter=source.get("delimiter"),
        encoding=source.get("encoding", "utf-8"),
    )
    pieces: list[Piece] = [
        piece
        for split in list_source([source["path"]], source["format"], 1 << 30).splits
        for piece in split.pieces
    ]
    if FORMATS[source["format"]].is_folder:
        yield {"title": "", "text": "a text of more than a few words, as it is extracted from each file"}
        return
    each = max(SAMPLE // min(len(pieces), SAMPLED_FILES), 1)
    for piece in pieces[:SAMPLED_FILES]:
        for _, row in islice(read_rows(piece, reader), each):
            if isinstance(row, dict) and not (len(row) == 1 and next(iter(row)) in ("index", "create")):
                yield row


def _fields(documents: Sequence[Mapping[str, Any]]) -> list[FieldSeen]:
    """The fields of the documents, objects taken apart, in the order in which they turn up."""
    seen: dict[str, FieldSeen] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                add(f"{name}.{key}", inner)
            return
        one = seen.setdefault(name, FieldSeen(name))
        values = [value] if not isinstance(value, list) else value
        values = [item for item in values if item is not None and item != ""]
        one.values += values
        one.documents += bool(values)

    for document in documents:
        for name, value in document.items():
            add(str(name), value)
    return [one for one in seen.values() if one.values]


def _id(seen: Sequence[FieldSeen]) -> str | None:
    """A field that every document has, each with its own value: one with the name of an id."""
    most = max((one.documents for one in seen), default=0)
    unique = [
        one.name
        for one in seen
        if one.documents == most == len({str(value) for value in one.values})
        and {_kind(value) for value in one.values} <= {"long", "string"}
        and one.longest <= 512
        and "." not in one.name
    ]
    named = [name for wanted in IDS for name in unique if name.lower() == wanted]
    named += [name for name in unique if name.lower().endswith(("_id", "-id"))]
    return named[0] if named else None


def _mappings(seen: Sequence[FieldSeen], format: str) -> tuple[dict[str, Any], list[str]]:
    """Types of all fields, and a semantic field over the texts; what was seen, as notes."""
    usable = [one for one in seen if one.type != "object" and re.fullmatch(r"[^.\s]+(\.[^.\s]+)*", one.name)]
    left_out = sorted({one.name for one in seen} - {one.name for one in usable})
    if not usable:
        raise PipelineError("no field of the documents has a text, a number or a date")
    texts = [one for one in usable if one.type == "text"]
    texts = texts or [max(usable, key=lambda one: one.words)]
    longest = max(one.words for one in texts)
    names = {one.name for one in usable}
    semantic = next(one for one in ("semantic", "semantic_text", "semantic_field") if one not in names)
    embedded = [
        one.name for one in texts if one.words >= longest / 4 or one.name.rpartition(".")[2].lower() in TITLES
    ]
    properties: dict[str, Any] = {}
    for one in usable:
        place = properties
        *parents, last = one.name.split(".")
        for parent in parents:
            place = place.setdefault(parent, {"properties": {}})["properties"]
        type_ = "text" if one in texts else one.type
        place[last] = {"type": type_, "copy_to": [semantic]} if one.name in embedded else {"type": type_}
    chunks = {"strategy": "sentence", "max_chunk_size": 150, "sentence_overlap": 1}
    if format in ("markdown", "files"):
        chunks = {"strategy": "recursive", "max_chunk_size": 150, "separator_group": "markdown"}
    properties[semantic] = {
        "type": "semantic_text",
        "inference_id": ".minilm-l6-v2",
        "chunking_settings": chunks,
    }
    notes = [f"[{semantic}] embeds {', '.join(embedded)}"]
    if format != "files":
        notes[0] += f"; the longest has some {longest:,.0f} words"
        if not _is_english([str(value) for one in texts for value in one.values]):
            notes.append(
                "the texts do not look English, which is all that .minilm-l6-v2 knows; better for them is"
                " .multilingual-e5-small-elasticsearch, whose weights you name under `models`: docs/endpoints.md"
            )
    if left_out:
        notes.append(f"left out, since columns hold plain values: {', '.join(left_out[:10])}")
    return {"properties": properties}, notes


def _is_english(texts: Sequence[str]) -> bool:
    """Whether one word in ten is among the most frequent ones of English; short texts tell less and pass."""
    words = [word.lower() for text in texts[:300] for word in text.split()[:200]]
    if len(words) < 50:
        return True
    return sum(word in _ENGLISH for word in words) >= 0.08 * len(words)


def to_yaml(proposal: Proposal, schema: str) -> str:
    """The config as YAML with comments.

    Args:
        proposal: what to write.
        schema: where an editor finds the config's JSON Schema.
    """
    import yaml

    lines = [f"# yaml-language-server: $schema={schema}", ""]
    for section, values in proposal.config.items():
        lines += [f"# {note}." for note in proposal.notes.get(section, [])]
        dumped = yaml.safe_dump({section: values}, sort_keys=False, allow_unicode=True, width=110)
        lines += [dumped.rstrip(), ""]
    lines += [
        "# Failed documents are listed beside the table; `semantic-ingest schema` knows every other key."
    ]
    return "\n".join(lines) + "\n"
