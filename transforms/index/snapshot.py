"""One version of the table as the index sees it: part files, and the empty index that its description asks for."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa

from transforms.index.state import FieldState, IndexState, IndexUnusable, UnitState
from transforms.index.tantivy_schema import DEFAULT_ANALYZER
from transforms.table.description import DESCRIPTION, is_stale, read_description
from transforms.table.log_digest import DamagedLogError, check_log
from transforms.table.parts import open_part

if TYPE_CHECKING:
    from deltalake import DeltaTable


@dataclass(frozen=True)
class Snapshot:
    """The part files that one version of the table is made of.

    Attributes:
        path: the table.
        id: the table's own id, which a table that was made anew does not share.
        version: its version.
        parts: the part files, relative to the table, the newest last.
        description: mapping, fields and models of its rows.
    """

    path: str
    id: str
    version: int
    parts: tuple[str, ...]
    description: dict[str, Any]

    @classmethod
    def of_table(cls, table_path: str, version: int | None = None) -> "Snapshot":
        """Look at a table.

        Raises:
            IndexUnusable: there is no table, or no such version, or another program wrote it.
        """
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError

        try:
            table = DeltaTable(table_path, version=version)
            if version is None:
                check_log(table)
        except DamagedLogError as error:
            raise IndexUnusable(f"[{table_path}]: {error}") from None
        except (DeltaError, OSError, ValueError) as error:
            if version is not None and DeltaTable.is_deltatable(table_path):
                raise IndexUnusable(f"the table [{table_path}] has no version {version}: {error}") from None
            said = str(error).partition("\n")[0]
            raise IndexUnusable(f"[{table_path}] has no table yet; `run` makes it ({said})") from None
        return cls.of_delta(table_path, table)

    @classmethod
    def of_delta(cls, table_path: str, table: "DeltaTable") -> "Snapshot":
        """The version at which a Delta table is open.

        Raises:
            IndexUnusable: another program wrote it.
        """
        actions = pa.table(table.get_add_actions(flatten=True))
        actions = actions.sort_by([("modification_time", "ascending"), ("path", "ascending")])
        parts = tuple(unquote(path) for path in actions["path"].to_pylist())
        columns = [field.name for field in table.schema().fields]
        description = read_description(table.metadata().configuration, table_path, columns, parts)
        if not description:
            raise IndexUnusable(
                f"the table [{table_path}] was not written by this program: it has no property [{DESCRIPTION}]"
            )
        return cls(table_path, str(table.metadata().id), table.version(), parts, description)


def identity(metadata: dict[str, Any]) -> str:
    """What must be the same for old and new documents to share an index."""
    settings = {name: field.get("model_settings") for name, field in metadata["fields"].items()}
    return json.dumps(
        [metadata.get("filters"), metadata.get("texts"), _fingerprints(metadata), settings], sort_keys=True
    )


def new_state(snapshot: Snapshot, serial: int, *, shared: bool) -> IndexState:
    """The state of an index that holds nothing yet; units, fields and filters follow from the table's description."""
    metadata = snapshot.description
    for name in snapshot.parts:
        if is_stale(snapshot.path, name, metadata):
            raise IndexUnusable(
                f"the table {snapshot.path} mixes embeddings of different models ({name} has others than the table's"
                " newest); a full run with `sync: full` embeds every document anew"
            )
    table = {"path": snapshot.path, "id": snapshot.id, "version": snapshot.version}
    state = IndexState(f"g{serial:06d}", f"e{serial:06d}", table, metadata)
    state.parts = {name: number for number, name in enumerate(snapshot.parts)}
    state.plain = metadata.get("filters", {})
    state.fields = {name: _field_state(field) for name, field in metadata["fields"].items()}
    for name, field_state in state.fields.items():
        if field_state.task_type == "sparse_embedding":
            field_state.step = largest_weight(snapshot, name) / 255
    state.units = _units(state, metadata.get("texts", {}), shared)
    state.texts = {
        unit.sources[0]: metadata["texts"][unit.sources[0]]["sources"]
        for unit in state.units
        if not unit.fields
    }
    return state


def _fingerprints(metadata: dict[str, Any]) -> dict[str, Any]:
    return {
        name: (field.get("embedding_fingerprint"), field.get("chunking_settings"), field.get("sources"))
        for name, field in metadata["fields"].items()
    }


def _field_state(definition: dict[str, Any]) -> FieldState:
    settings = definition["model_settings"]
    if settings["task_type"] == "sparse_embedding":
        return FieldState("sparse_embedding", definition)
    return FieldState(
        "text_embedding",
        definition,
        dimensions=int(settings["dimensions"]),
        similarity=settings.get("similarity") or "cosine",
        element_type=settings.get("element_type") or "float",
    )


def _units(state: IndexState, texts: dict[str, Any], shared: bool) -> list[UnitState]:
    """Group the semantic fields that have the same chunks; then a unit for each text field that none embeds."""
    groups: dict[str, list[str]] = {}
    for name, field in state.fields.items():
        definition = field.definition
        chunking = definition.get("chunking_settings") or {}
        # The tokenizer decides where chunks end only where sizes are counted in tokens.
        counted_by = name if not shared or chunking.get("size_unit") == "tokens" else ""
        sources = [source for source in definition["sources"] if source != name]
        groups.setdefault(json.dumps([sources or [name], chunking, counted_by], sort_keys=True), []).append(
            name
        )
    units: list[UnitState] = []
    for names in groups.values():
        sources = list(
            dict.fromkeys(source for name in names for source in state.fields[name].definition["sources"])
        )
        units.append(UnitState(f"u{len(units)}", names, sources, _analyzer(texts, sources)))
    embedded = {source for unit in units for source in unit.sources}
    for name in texts:
        if name not in embedded:
            units.append(UnitState(f"u{len(units)}", [], [name], _analyzer(texts, [name])))
    return units


def _analyzer(texts: dict[str, Any], sources: list[str]) -> str:
    named = [texts[source]["analyzer"] for source in sources if texts.get(source, {}).get("analyzer")]
    return str(named[0]) if named else DEFAULT_ANALYZER


def largest_weight(snapshot: Snapshot, name: str) -> float:
    """The largest weight of a sparse field, from the parts' statistics; 1 where it has none."""
    largest = 0.0
    for part in snapshot.parts:
        metadata = open_part(snapshot.path, part).metadata
        for group in range(metadata.num_row_groups):
            # A map's values are the Parquet column <field>.chunks.<...>.value; its statistics hold the largest one.
            for number in range(metadata.num_columns):
                column = metadata.row_group(group).column(number)
                path = column.path_in_schema
                if (
                    path.startswith(f"{name}.chunks.")
                    and path.endswith(".value")
                    and column.statistics is not None
                ):
                    largest = max(largest, float(column.statistics.max or 0.0))
    return largest or 1.0
