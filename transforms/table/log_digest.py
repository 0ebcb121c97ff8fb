"""A digest of what a version of the table is made of, kept with its commit, so that the log proves itself.

A damaged line of the log may lose a part file, bring one back or change the schema without a word. Whoever opens the
newest version compares it with the digest that its commit holds. A commit of another program has none.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from deltalake import DeltaTable

KEY = "semantic_ingest"
"""Key of a commit's metadata that holds what this program says of it."""


class DamagedLogError(OSError):
    """The log does not say what was committed."""


def parse_logged(what: str, text: str) -> Any:
    """Parse JSON that the log holds as a text.

    Raises:
        DamagedLogError: it is none; the message says `what` it should be.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        raise DamagedLogError(f"the {what} in the table's log is damaged: {error}") from None


def state_digest(parts: Iterable[str], schema: str, properties: Mapping[str, str]) -> str:
    """Digest of a version.

    Args:
        parts: its part files.
        schema: its schema, as Delta Lake's JSON.
        properties: the table's properties.
    """
    fields = parse_logged("schema", schema)
    content = json.dumps([sorted(parts), fields, dict(properties)], sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def commit_mark(
    said: Mapping[str, Any], parts: Iterable[str], schema: str, properties: Mapping[str, str]
) -> dict[str, Any]:
    """Metadata of a commit: what this program says of it, and the digest of the version that it makes."""
    return {KEY: {**said, "state": state_digest(parts, schema, properties)}}


def said_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What this program says of a commit in the table's history; empty for a commit of another one."""
    said = entry.get(KEY) or {}
    try:
        parsed = json.loads(said) if isinstance(said, str) else said
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def log_problem(table: "DeltaTable") -> str | None:
    """Say that the log does not describe what its last commit made, or describes what cannot be read here; else None.

    What another program committed has no digest and is taken as it is.
    """
    import pyarrow as pa
    from deltalake.exceptions import DeltaError

    if "deletionVectors" in (table.protocol().reader_features or ()) and _has_deletion_vectors(table):
        return (
            "another program deleted rows with deletion vectors, which are not read here, so that these rows would come"
            " back; let that program write the files anew (REORG TABLE ... APPLY (PURGE)) and set"
            " delta.enableDeletionVectors to false"
        )
    try:
        entries = table.history(1)
    except DeltaError as error:
        raise DamagedLogError(f"the newest commit in the table's log is damaged: {error}") from None
    expected = said_of(entries[0]).get("state") if entries else None
    if not expected or int(entries[0].get("version", -1)) != table.version():
        return None
    parts = [
        unquote(path) for path in pa.table(table.get_add_actions(flatten=True)).column("path").to_pylist()
    ]
    found = state_digest(parts, table.schema().to_json(), table.metadata().configuration)
    if found == expected:
        return None
    return (
        f"the log of the table does not describe what version {table.version()} was committed as: a line of it is"
        " damaged. `restore` goes back to a version that is whole, and the next run makes what is missing"
    )


def _has_deletion_vectors(table: "DeltaTable") -> bool:
    import pyarrow as pa
    from deltalake.exceptions import DeltaError

    try:
        return any(len(batch) for batch in pa.RecordBatchReader.from_stream(table.deletion_vectors()))
    except DeltaError:
        return True


def check_log(table: "DeltaTable") -> None:
    """Refuse a table whose log is damaged.

    Raises:
        DamagedLogError: it is.
    """
    problem = log_problem(table)
    if problem:
        raise DamagedLogError(problem)
