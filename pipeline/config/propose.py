"""Propose a run config for documents that nobody has described: `init`.

A sample of the documents says what the fields are: ids, dates, numbers, keywords, and texts, of which the longest are
embedded. Nothing of it is certain, so the config says in comments what was seen.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config.fields_seen import TITLES, FieldSeen, fields_of
from pipeline.config.mapping import RESERVED
from pipeline.config.source_seen import look
from pipeline.errors import PipelineError

_ENGLISH = frozenset("the of and to in is that for it with as was on are this be by at from".split())  # noqa: SIM905


@dataclass(frozen=True)
class Proposal:
    """A config and what it was made from.

    Attributes:
        config: the config's values.
        notes: section -> what was seen, a sentence each.
    """

    config: dict[str, Any]
    notes: dict[str, list[str]]


def propose(path: str, table: str | None = None) -> Proposal:
    """Look at documents and propose a config.

    Args:
        path: a file or a folder, or the address of a database.
        table: the table of the database; None takes the only one.

    Raises:
        PipelineError: there is nothing that can be read.
        ConnectionFailed: the database does not answer.
    """
    source = look(path, table)
    format = source.config["format"]
    if format == "files":
        mappings, note = (
            _DOCUMENTS,
            "[semantic] embeds each document's text, cut at its headings and paragraphs",
        )
        notes = [note]
    else:
        seen = [one for one in fields_of(source.documents) if one.name.partition(".")[0] not in RESERVED]
        mappings, notes = _mappings(seen, format)
    name = re.sub(r"[^\w-]+", "-", source.name).strip("-").lower() or "corpus"
    config: dict[str, Any] = {
        "source": source.config,
        "mappings": mappings,
        "table": {"path": f"out/{name}/table"},
        "index": {"path": f"out/{name}/index"},
    }
    said = {"source": source.notes, "mappings": notes}
    if format == "files":
        config["failures"] = {"max_ratio": 0.2}
        said["failures"] = [
            "files that cannot be read are listed beside the table; a run with more than a fifth of them fails"
        ]
    return Proposal(config, said)


_DOCUMENTS: dict[str, Any] = {
    "properties": {
        "title": {"type": "text"},
        "content_type": {"type": "keyword"},
        "language": {"type": "keyword"},
        "text": {"type": "text", "copy_to": ["semantic"]},
        "semantic": {
            "type": "semantic_text",
            "inference_id": ".minilm-l6-v2",
            "chunking_settings": {
                "strategy": "recursive",
                "max_chunk_size": 150,
                "separator_group": "markdown",
            },
        },
    }
}
"""What every document has that is extracted from a file, see docs/documents.md."""


def _mappings(seen: Sequence[FieldSeen], format: str) -> tuple[dict[str, Any], list[str]]:
    """Types of all fields, and a semantic field over the texts; what was seen, as notes."""
    usable = [one for one in seen if one.type != "object" and re.fullmatch(r"[^.\s]+(\.[^.\s]+)*", one.name)]
    left_out = sorted({one.name for one in seen if one.name.strip()} - {one.name for one in usable})
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
    if format == "markdown":
        chunks = {"strategy": "recursive", "max_chunk_size": 150, "separator_group": "markdown"}
    properties[semantic] = {
        "type": "semantic_text",
        "inference_id": ".minilm-l6-v2",
        "chunking_settings": chunks,
    }
    notes = [f"[{semantic}] embeds {', '.join(embedded)}; the longest has some {longest:,.0f} words"]
    if not _is_english([str(value) for one in texts for value in one.values]):
        notes.append(
            "the texts do not look English, which is all that .minilm-l6-v2 knows; better for them is"
            " .multilingual-e5-small-elasticsearch, whose weights you name under `models`: docs/endpoints.md"
        )
    python = [one.name for one in usable if one.type == "keyword" and {*one.values} <= {"True", "False"}]
    if python:
        notes.append(
            f"{', '.join(python)}: True and False as Python writes them, so a keyword: {python[0]}=True"
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
