"""A small table to index, made by the functions that a run uses, with hashing models and one chunk a line."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from deltalake import DeltaTable

from models.endpoints.registry import Registry
from models.open_model import open_model
from pipeline.config.mapping import Mappings
from pipeline.table.delta import active_parts, commit, describe_table, open_table, read_state
from transforms.records import Chunk, ChunkedDocument, Document, EmbeddedField, Location
from transforms.table.parts import write_part
from transforms.table.schema import SemanticColumn, TableLayout
from transforms.table.write import build_table

ENDPOINTS = {"text_sparse": ".hashing-sparse", "text_dense": ".hashing-dense"}
PLAIN = {"title": "string", "year": "int64", "genre": "string", "open": "bool", "day": "string"}
TYPES = {
    "title": "text",
    "text": "text",
    "year": "long",
    "genre": "keyword",
    "open": "boolean",
    "day": "date",
}


class IndexTable:
    """A Delta table of documents `{"text", "title", "year", "genre", "open", "day"}`, chunked by line."""

    def __init__(
        self, path: Path, endpoints: dict[str, str] | None = None, chunking: dict[str, str] | None = None
    ) -> None:
        self.path = str(path)
        self.endpoints = endpoints or ENDPOINTS
        self.chunking = chunking or {}
        self.models = {name: open_model(Registry(None).get(id_), {}) for name, id_ in self.endpoints.items()}
        self.embedders = {name: model.load() for name, model in self.models.items()}
        self.runs = 0

    def put(self, *documents: dict[str, Any], delete: tuple[str, ...] = ()) -> int:
        """Commit one version: each document in place of the row with its id, and these ids deleted."""
        table = open_table(self.path)
        parts = active_parts(table) if table else []
        gone = {document["_id"] for document in documents} | set(delete)
        added, removed = [], []
        for part in parts:
            ids = read_state(self.path, [part]).ids.to_pylist()
            if gone & set(ids):
                rows = pq.read_table(f"{self.path}/{part}")
                kept = rows.filter([id_ not in gone for id_ in ids])
                removed.append(part)
                if len(kept):
                    added.append(write_part(kept, self.path, f"run{self.runs}"))
        if documents:
            rows = build_table(
                [self._embed(document) for document in documents], self.layout(), "r", datetime.now(UTC)
            )
            added.append(write_part(rows, self.path, f"run{self.runs}"))
        self.runs += 1
        version = commit(self.path, table, self.layout(), added, removed, {})
        return version

    def layout(self) -> TableLayout:
        """The layout of the rows."""
        columns = tuple(
            SemanticColumn(name, id_, "sparse" if model.endpoint.task_type == "sparse_embedding" else "float")
            for (name, id_), model in zip(self.endpoints.items(), self.models.values(), strict=True)
        )
        properties: dict[str, Any] = {name: {"type": kind} for name, kind in TYPES.items()}
        properties["text"]["copy_to"] = list(self.endpoints)
        properties |= {
            name: {"type": "semantic_text", "inference_id": id_} for name, id_ in self.endpoints.items()
        }
        fields = {name: self._definition(name) for name in self.endpoints}
        fingerprint = {name: f"{field['embedding_fingerprint']}." for name, field in fields.items()}
        mappings = Mappings.model_validate({"properties": properties})
        description = {"format": 1, **mappings.describe(), "models": {}, "fields": fields}
        return TableLayout(
            {**PLAIN, "text": "string"}, columns, json.dumps(fingerprint), json.dumps(description)
        )

    def _definition(self, name: str) -> dict[str, Any]:
        model = self.models[name]
        return {
            "inference_id": self.endpoints[name],
            "search_inference_id": self.endpoints[name],
            "sources": [name, "text"],
            "model_settings": model.model_settings,
            "endpoint": model.endpoint.to_json(),
            "model": model.describe(),
            "embedding_fingerprint": model.fingerprint[:16],
            "chunking_settings": {"strategy": self.chunking.get(name, "line")},
        }

    def _embed(self, document: dict[str, Any]) -> ChunkedDocument:
        source = {name: value for name, value in document.items() if name != "_id"}
        columns = {name: source.get(name) for name in self.layout().plain}
        embedded = {}
        for name, embedder in self.embedders.items():
            chunks = chunk(source.get("text", ""), self.chunking.get(name, "line"))
            texts = [chunk.text for chunk in chunks]
            embedded[name] = EmbeddedField(chunks, embedder.embed(texts, "ingest") if texts else None)
        hashed = Document(
            document["_id"], source, json.dumps(source, sort_keys=True), Location("memory", 0), columns
        )
        return ChunkedDocument(hashed, {}, embedded)

    @property
    def version(self) -> int:
        """The table's newest version."""
        return int(DeltaTable(self.path).version())


def chunk(text: str, strategy: str) -> tuple[Chunk, ...]:
    """One chunk a line (`line`) or the whole text (`none`), offsets in UTF-16 code units."""
    chunks, start = [], 0
    for line in text.split("\n") if strategy == "line" else [text]:
        end = start + len(line.encode("utf-16-le")) // 2
        if line:
            chunks.append(Chunk("text", 0, start, end, line))
        start = end + 1
    return tuple(chunks)


def newest_description(path: str) -> dict[str, Any]:
    """What the newest part of a table says about itself."""
    table = open_table(path)
    assert table is not None
    return describe_table(path, table)
