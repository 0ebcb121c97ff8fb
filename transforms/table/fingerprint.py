"""The fingerprint of a row: made, read and compared here."""

import json
from collections.abc import Mapping

import orjson

NO_EMBEDDING = ""
"""In a row's fingerprint: the row was kept when the field's model changed, and has no embedding in that field."""


def parse_fingerprint(fingerprint: str) -> dict[str, str]:
    """Field name -> fingerprint of its embedding, of a row's ``fingerprint`` column (see `pipeline.layout`)."""
    fields: dict[str, str] = orjson.loads(fingerprint)
    return {name: value.partition(".")[0] for name, value in fields.items()}


def has_stale_embedding(fingerprint: str, current: Mapping[str, str]) -> bool:
    """Whether a row holds an embedding of one of the `current` fields that another model made."""
    held = parse_fingerprint(fingerprint)
    return any(held.get(name) not in (None, NO_EMBEDDING, wanted) for name, wanted in current.items())


def mark_empty(fingerprint: str, current: Mapping[str, str]) -> str:
    """Mark the fields of a row whose embedding is stale as without one."""
    held = parse_fingerprint(fingerprint)
    empty = {name: NO_EMBEDDING for name, wanted in current.items() if held.get(name) not in (None, wanted)}
    return json.dumps({**json.loads(fingerprint), **empty}, sort_keys=True, separators=(",", ":"))
