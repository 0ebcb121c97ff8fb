"""What a table says about itself: mapping, endpoints, models and settings, as properties of the Delta table.

Properties and rows cannot change in one commit. The new description is committed before the rows that it describes,
and the one that it replaces is kept beside it: whoever reads between the two, after a run that was killed there, takes
the one that fits the rows.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from transforms.table.fingerprint import stale_fields
from transforms.table.log_digest import parse_logged
from transforms.table.parts import open_part

DESCRIPTION = "semantic_ingest.description"
PREVIOUS = "semantic_ingest.previous_description"


def read_description(
    properties: Mapping[str, str], path: str, columns: Collection[str], parts: Sequence[str]
) -> dict[str, Any]:
    """The description that fits a table's rows; empty where the table has none.

    Args:
        properties: the Delta table's properties.
        path: the table.
        columns: names of the table's columns.
        parts: its part files, the newest last.
    """
    current, previous = (
        parse_logged("description", properties.get(name, "{}")) for name in (DESCRIPTION, PREVIOUS)
    )
    if not previous or not parts or described_fingerprints(current) == described_fingerprints(previous):
        return dict(current)
    fits = current["fields"].keys() <= set(columns) and not is_stale(path, parts[-1], current)
    return dict(current if fits else previous)


def described_fingerprints(description: Mapping[str, Any]) -> dict[str, str]:
    """Semantic field -> fingerprint of its embedding."""
    return {name: field["embedding_fingerprint"] for name, field in description.get("fields", {}).items()}


def is_stale(path: str, part: str, description: Mapping[str, Any]) -> bool:
    """Whether a part file holds embeddings of other models than those described."""
    current = described_fingerprints(description)
    column = open_part(path, part).read(columns=["fingerprint"]).column("fingerprint")
    return any(stale_fields(fingerprint, current) for fingerprint in column.unique().to_pylist())
