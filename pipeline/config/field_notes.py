"""What each field of a mapping becomes here, and which of its parameters have no effect: what `check` tells."""

from dataclasses import dataclass

from pipeline.config.mapping import ANALYZED, Mappings, Property, is_known_analyzer
from pipeline.config.mapping_parameters import PARAMETERS, TOP_PARAMETERS
from transforms.index.tantivy_schema import DEFAULT_ANALYZER
from transforms.plain_values import COLUMN_TYPES, TEXT_TYPES


@dataclass(frozen=True)
class FieldNote:
    """One line about a field.

    Attributes:
        name: full dotted name; for a key at the top of the mapping that key.
        type: its type in the mapping.
        becomes: what it is here.
        without_effect: its parameters that change nothing here.
    """

    name: str
    type: str
    becomes: str
    without_effect: tuple[str, ...] = ()


def field_notes(mappings: Mappings, default_endpoint: str) -> list[FieldNote]:
    """A note for each field, objects left out, then for each key at the top."""
    notes = []
    for name, field, parent in mappings.with_multi_fields():
        becomes = _becomes(mappings, name, field, parent, default_endpoint)
        ignored = [one for one in field.model_extra or {} if one in PARAMETERS]
        if field.analyzer and field.type in ANALYZED and not is_known_analyzer(field.analyzer):
            ignored.append(f"analyzer [{field.analyzer}], {DEFAULT_ANALYZER} takes its place")
        notes.append(FieldNote(name, field.type, becomes, tuple(ignored)))
    return notes + [FieldNote(name, "", TOP_PARAMETERS[name]) for name in mappings.model_extra or {}]


def _becomes(mappings: Mappings, name: str, field: Property, parent: str, default_endpoint: str) -> str:
    if field.type == "semantic_text":
        sources = ", ".join(f"[{source}]" for source in mappings.sources(name))
        return f"column of chunks and embeddings of {sources} by [{field.inference_id or default_endpoint}]"
    if field.type not in COLUMN_TYPES:
        return "only in _source"
    use = "BM25" if field.type in TEXT_TYPES else "filters"
    if name != parent:
        return f"only used by search ({use}), values of [{parent}]"
    return f"column of {COLUMN_TYPES[field.type]}, {use}"
