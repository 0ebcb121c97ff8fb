"""What a load sends: the rows of a table, or the files of an export."""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import PipelineError
from pipeline.exchange.elasticsearch.bulk import MAX_BYTES, Body, all_parts, bodies, read_bulk
from pipeline.exchange.elasticsearch.forms import DocumentForm
from pipeline.exchange.elasticsearch.index import index_body
from pipeline.exchange.rows import TableRows, all_rows, changed_rows
from transforms.table.parts import open_part


class TableSource:
    """The newest version of a table.

    Attributes:
        table_id: the table's own id.
        version: the version that the index shows after the load.
        form: how documents are written.
        index: what the index is created with.
    """

    def __init__(self, path: str, form: DocumentForm, vector_index: str | None = None) -> None:
        self._path, self._form = path, form
        self._all = self._rows = all_rows(path)
        self.table_id, self.version = self._all.snapshot.id, self._all.snapshot.version
        self.form, self.index = form.form, index_body(self._all, form, vector_index)

    def units(self, known: Sequence[int], failed: Sequence[str]) -> list[str]:
        """Names of the pieces to send, in order.

        Args:
            known: versions that the index may show now; none where it is empty or was never complete.
            failed: documents that were refused before and are to be tried again.
        """
        if known:
            self._rows = _with(changed_rows(self._path, known, self.version), failed)
        return all_parts(self._rows)

    def forget(self, pending: Sequence[int]) -> None:
        """Send all rows, and delete what only loads of other versions that were broken off have left."""
        deleted = changed_rows(self._path, pending, self.version).deleted
        self._rows = TableRows(self._all.snapshot, None, deleted)

    def bodies(self, unit: str) -> Iterator[Body]:
        """The bodies of one piece."""
        return bodies(self._rows, unit, self._form, MAX_BYTES)

    def count(self) -> int:
        """Documents to send."""
        return self._rows.count() + len(self._rows.deleted)

    def total(self) -> int | None:
        """Documents that the index has afterwards; None where that is not known."""
        return self._all.count()

    def sample(self, count: int) -> dict[str, dict[str, Any]]:
        """Some documents as they were read: id -> source."""
        found: dict[str, dict[str, Any]] = {}
        for part in self._rows.parts():
            for table in self._rows.read(part, ["_id", "_source"]):
                step = max(1, table.num_rows // 3)
                for row in range(0, table.num_rows, step):
                    found[table["_id"][row].as_py()] = orjson.loads(table["_source"][row].as_py())
                    if len(found) >= count:
                        return found
        return found


def _with(rows: TableRows, ids: Sequence[str]) -> TableRows:
    """Add the rows of some documents."""
    if not ids:
        return rows
    selected = dict(rows.selected or {})
    wanted = pa.array(ids, pa.string())
    for part in rows.snapshot.parts:
        column = open_part(rows.snapshot.path, part).read(columns=["_id"])["_id"]
        places = np.flatnonzero(pc.is_in(column, value_set=wanted).to_numpy())
        if len(places):
            selected[part] = np.union1d(selected.get(part, places), places)
    return TableRows(rows.snapshot, selected, rows.deleted, rows.since)


class ExportSource:
    """The files of `export elasticsearch`; its attributes are those of `TableSource`."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        try:
            self._manifest = json.loads((Path(folder) / "manifest.json").read_text())
            self.index = json.loads((Path(folder) / "index.json").read_text())
        except FileNotFoundError as error:
            raise PipelineError(
                f"[{folder}] is not a complete export: there is no {Path(error.filename).name}; run "
                "`export elasticsearch` again, it goes on where it stopped"
            ) from None
        self.table_id, self.version = self._manifest["table"]["id"], int(self._manifest["table"]["version"])
        self.form = self._manifest["form"]
        self._files = {entry["name"]: entry for entry in self._manifest["files"]}

    def units(self, known: Sequence[int], failed: Sequence[str]) -> list[str]:
        """See `TableSource`."""
        since = self._manifest["since"]
        behind = [version for version in known if version not in (*since, self.version)]
        if known and (behind or not since):
            raise PipelineError(
                f"the index shows version {known[0]} of the table, and [{self._folder}] holds "
                + (f"what changed since {since}" if since else "all of it, so deletions would be missed")
                + f"; export with --changes-since {known[0]}, load from the run config, or load into a new index"
            )
        if since and not known:
            raise PipelineError(
                f"[{self._folder}] holds only what changed since {since}; the index has nothing yet"
            )
        return list(self._files)

    def bodies(self, unit: str) -> Iterator[Body]:
        """See `TableSource`."""
        body = Body(unit)
        lines = iter(read_bulk(self._folder, self._files[unit]))
        for action in lines:
            ((verb, target),) = orjson.loads(action).items()
            body.entries[target["_id"]] = (action, next(lines)) if verb == "index" else (action,)
        yield body

    def count(self) -> int:
        """Documents to send."""
        return int(self._manifest["documents"]) + int(self._manifest["deletions"])

    def total(self) -> int | None:
        """See `TableSource`."""
        return None if self._manifest["since"] else int(self._manifest["documents"])

    def sample(self, count: int) -> dict[str, dict[str, Any]]:
        """See `TableSource`."""
        found: dict[str, dict[str, Any]] = {}
        with suppress(StopIteration):
            for body in self.bodies(next(iter(self._files))):
                for id_, lines in list(body.entries.items())[:count]:
                    if len(lines) == 2:
                        found[id_] = orjson.loads(lines[1])
        return found
