"""A job for tests whose one text field is copied to one semantic field, over data as people have it."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow.dataset as ds
import yaml
from deltalake import DeltaTable

from pipeline.__main__ import main
from pipeline.api import open_index
from pipeline.search.filters import parse_filters

SEMANTIC = {"type": "semantic_text", "inference_id": ".hashing-dense"}
TEXT = {"type": "text", "copy_to": "sem"}


class Job:
    """A run config whose one text field is copied to one semantic field.

    Attributes:
        folder: where the config lies.
        out: where table, index and reports lie.
        config: the config; change it between commands.
    """

    def __init__(self, folder: Path, source: Any, *, name: str = "out", **properties: Any) -> None:
        self.folder = folder
        self.out = folder / name
        self.config: dict[str, Any] = {
            "source": {"format": "jsonl", "path": str(source)},
            "mappings": {"properties": {"text": TEXT, "sem": SEMANTIC, **properties}},
            "table": {"path": str(self.out / "table")},
            "index": {"path": str(self.out / "index")},
            "failures": {"path": str(self.out / "failures")},
        }

    def run(self, *arguments: str, command: str = "run", **source: Any) -> int:
        """Run a command, by default after changes of `source`; returns the exit code."""
        self.config["source"].update(source)
        path = self.folder / "run.yaml"
        path.write_text(yaml.safe_dump(self.config))
        return main([command, str(path), *arguments])

    @property
    def summary(self) -> dict[str, Any]:
        """What the last run wrote to run.json."""
        return json.loads((self.out / "run.json").read_text())

    def rows(self) -> dict[str, dict[str, Any]]:
        """The table's rows by id, read by plain pyarrow from the active files."""
        rows = ds.dataset([unquote(uri) for uri in self.table.file_uris()]).to_table().to_pylist()
        assert len({row["_id"] for row in rows}) == len(rows), "an id occurs twice"
        return {row["_id"]: row for row in rows}

    @property
    def table(self) -> DeltaTable:
        """The table, as any program opens it."""
        return DeltaTable(str(self.out / "table"))

    def ids(self, query: Any) -> list[str]:
        """Ids that a filter finds in the index: a query, or filters as they stand on a command line."""
        filter_ = parse_filters(query if isinstance(query, list) else [json.dumps(query)])
        hits = open_index(str(self.out / "index")).search("one", mode="dense", k=100, filter=filter_)
        return sorted({hit["_id"] for hit in hits.to_arrow().to_pylist()})


def lines(path: Path, *documents: Any) -> Path:
    """Write documents as JSON lines; returns the path."""
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    return path
