"""A small run for tests: a config over a JSON-lines file with the fast hashing endpoints."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import yaml
from deltalake import DeltaTable

from pipeline.__main__ import main

SENTENCES = [
    "The red fox jumps over the lazy dog.",
    "Rain falls mainly on the plain.",
    "A ship sails across the wide sea.",
    "Mountains rise behind the old town.",
    "Music plays in every street tonight.",
]


def document(number: int, edition: int = 0) -> dict[str, Any]:
    """A document of several sentences; another edition changes its middle one."""
    sentences = [f"{SENTENCES[(number + place) % 5]} Number {number} at {place}." for place in range(5)]
    sentences[2] = f"Edition {edition} of document {number} says something new."
    return {
        "_id": f"d{number}",
        "title": f"Title {number}",
        "text": " ".join(sentences),
        "year": 2000 + number,
    }


class SmallRun:
    """A run config in a folder, and the ways to run it and look at its table."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.folder = folder
        self.corpus = folder / "corpus.jsonl"
        self.config_path = folder / "run.yaml"
        self.config: dict[str, Any] = {
            "source": {"format": "jsonl", "path": str(self.corpus)},
            "mappings": {
                "properties": {
                    "title": {"type": "text", "copy_to": ["dense"]},
                    "text": {"type": "text", "copy_to": ["dense", "sparse"]},
                    "year": {"type": "integer"},
                    "dense": {
                        "type": "semantic_text",
                        "inference_id": ".hashing-dense",
                        "chunking_settings": {
                            "strategy": "sentence",
                            "max_chunk_size": 20,
                            "sentence_overlap": 0,
                        },
                    },
                    "sparse": {
                        "type": "semantic_text",
                        "inference_id": ".hashing-sparse",
                        "chunking_settings": {
                            "strategy": "sentence",
                            "max_chunk_size": 20,
                            "sentence_overlap": 1,
                        },
                    },
                }
            },
            "table": {"path": str(folder / "table"), "part_rows": 4},
            "index": {"path": str(folder / "index")},
            "failures": {"path": str(folder / "failures"), "max_ratio": 0.5},
            **changes,
        }

    def write(self, documents: list[Any]) -> None:
        """Replace the corpus; bytes are written as they are."""
        lines = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in documents]
        self.corpus.write_bytes(b"".join(line + b"\n" for line in lines))

    def run(self, *arguments: str, command: str = "run") -> int:
        """Run a command on the config; returns the exit code."""
        self.config_path.write_text(yaml.safe_dump(self.config, sort_keys=False))
        return main([command, str(self.config_path), *arguments])

    @property
    def summary(self) -> dict[str, Any]:
        """What the last run wrote to run.json."""
        return json.loads((self.folder / "run.json").read_text())

    @property
    def table_path(self) -> str:
        """Folder of the table."""
        return self.config["table"]["path"]

    def table(self) -> pa.Table:
        """The table's rows by id, read by plain pyarrow from the active files."""
        files = DeltaTable(self.table_path).file_uris()
        return ds.dataset(files).to_table().sort_by("_id")

    def rows(self) -> dict[str, dict[str, Any]]:
        """The table's rows: id -> row, without what differs from run to run."""
        rows = self.table().drop_columns(["run_id", "ingested_at"]).to_pylist()
        assert len({row["_id"] for row in rows}) == len(rows), "an id occurs twice"
        return {row["_id"]: row for row in rows}

    def version(self) -> int:
        """Version of the table."""
        return DeltaTable(self.table_path).version()
