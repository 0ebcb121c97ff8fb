"""What the index holds on disk, and how it is named: shared by what writes it and what searches it.

    index.json            the state; renamed into place last, so it only ever names complete files
    lock                  held by the process that updates the index
    <epoch>/              append-only files of one full build: texts.bin and one file of vectors a dense field
    <generation>/         documents.arrow, and for each unit its chunks, its tantivy folder and its token counts

A **unit** is a set of chunks that share their text: the chunks of the semantic fields that have the same
sources and the same chunking, or the whole values of a text field that no semantic field embeds. Documents
are numbered in the order in which they came; a chunk is ``document << CHUNK_BITS | position``, and the rows
of every array are in that order.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from transforms.plain_values import PlainField

Ints = npt.NDArray[np.int64]

FORMAT = 2
CHUNK_BITS = 20
"""A document has fewer than 2^20 chunks in a unit (512 per value, by Elasticsearch's limit)."""

STATE = "index.json"


CHUNKS = pa.schema(
    [
        ("document", pa.int32()),
        ("source", pa.int16()),
        ("start_offset", pa.int32()),
        ("end_offset", pa.int32()),
        ("text_start", pa.int64()),
        ("text_bytes", pa.int32()),
        ("page", pa.int32()),
    ]
)


class IndexUnusable(Exception):
    """The index cannot be opened or brought up to date; the message says why and what to do."""


@dataclass
class FieldState:
    """One semantic field in the index.

    Attributes:
        task_type: ``sparse_embedding`` or ``text_embedding``.
        definition: what the table says of the field: endpoint, model, fingerprint, chunking.
        dimensions: length of its vectors (dense), in numbers.
        similarity: ``cosine``, ``dot_product``, ``l2_norm`` or ``max_inner_product`` (dense).
        element_type: ``float``, ``byte`` or ``bit`` (dense).
        step: weight of the lowest bit (sparse).
        bits: number of bit slices (sparse).
        postings: number of (chunk, token) pairs ever added (sparse).
    """

    task_type: Literal["sparse_embedding", "text_embedding"]
    definition: dict[str, Any]
    dimensions: int = 0
    similarity: str = "cosine"
    element_type: str = "float"
    step: float = 0.0
    bits: int = 8
    postings: int = 0

    @property
    def dtype(self) -> str:
        """Numpy's name of the stored numbers."""
        return "<f4" if self.element_type == "float" else "|i1"

    @property
    def stored_dimensions(self) -> int:
        """Numbers stored for one vector (bit vectors hold 8 dimensions in each)."""
        return self.dimensions // 8 if self.element_type == "bit" else self.dimensions


@dataclass
class UnitState:
    """One set of chunks that share their text.

    Attributes:
        name: prefix of its files.
        fields: the semantic fields whose chunks these are; none for the whole values of a text field.
        sources: the fields that hold the text.
        analyzer: how BM25 splits text into terms.
        rows: chunks in its arrays, deleted ones included.
    """

    name: str
    fields: list[str]
    sources: list[str]
    analyzer: str
    rows: int = 0


@dataclass
class IndexState:
    """The content of ``index.json``.

    Attributes:
        generation: folder of the files that an update replaces.
        epoch: folder of the append-only files.
        table: path, id and version of the table that the index shows.
        metadata: what the table's part files say of mapping, fields and models.
        parts: part files that the index shows -> their number in the documents' ``part`` column.
        units: the sets of chunks.
        fields: the semantic fields.
        plain: fields that filters can use -> the arguments of their `PlainField`.
        texts: text fields that no semantic field embeds -> the fields whose values they have.
        documents: documents that can be found.
        rows: documents in the arrays, deleted ones included.
        chunks: chunks that can be found.
        text_bytes: bytes of ``texts.bin`` that belong to the index.
        manifest: every file, relative to the index -> its size and CRC-32, see `transforms.index.manifest`.
    """

    generation: str
    epoch: str
    table: dict[str, Any]
    metadata: dict[str, Any]
    parts: dict[str, int] = field(default_factory=dict)
    units: list[UnitState] = field(default_factory=list)
    fields: dict[str, FieldState] = field(default_factory=dict)
    plain: dict[str, dict[str, Any]] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)
    documents: int = 0
    rows: int = 0
    chunks: int = 0
    text_bytes: int = 0
    manifest: dict[str, tuple[int, int]] = field(default_factory=dict)
    format: int = FORMAT

    @classmethod
    def load(cls, index_path: str | Path) -> "IndexState | None":
        """Read the state of an index; None where there is no index.

        Raises:
            IndexUnusable: the state is unreadable, or was written in another format.
        """
        path = Path(index_path) / STATE
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            checksum, found = values.pop("checksum", None), values.get("format")
            if found == FORMAT and checksum == _checksum(values):
                values["units"] = [UnitState(**unit) for unit in values["units"]]
                values["fields"] = {name: FieldState(**value) for name, value in values["fields"].items()}
                values["manifest"] = {name: (size, crc) for name, (size, crc) in values["manifest"].items()}
                return cls(**values)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise IndexUnusable(f"{path} cannot be read: {error.strerror}") from None
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            checksum = found = None
        if checksum and found != FORMAT:
            raise IndexUnusable(
                f"{path} has format {found!r}, this version reads {FORMAT}; the next `run` or `index` builds it anew"
            )
        raise IndexUnusable(f"{path} is damaged; the next `run` or `index` builds the index anew")

    def filters(self) -> dict[str, PlainField]:
        """The fields that filters can use."""
        return {
            name: PlainField(
                **{**values, "formats": tuple(values["formats"]), "sources": tuple(values["sources"])}
            )
            for name, values in self.plain.items()
        }

    def save(self, index_path: str | Path) -> None:
        """Make this state the one that is opened from now on, in one rename."""
        folder = Path(index_path)
        aside = folder / f"{STATE}.{os.getpid()}"
        with aside.open("w", encoding="utf-8") as file:
            values = asdict(self)
            json.dump({**values, "checksum": _checksum(values)}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(folder / STATE)

    def files(self) -> list[str]:
        """Files that the index is made of, relative to it."""
        names = [f"{self.generation}/documents.arrow", f"{self.epoch}/texts.bin"]
        for unit in self.units:
            names += [
                f"{self.generation}/{unit.name}.chunks.arrow",
                f"{self.generation}/{unit.name}/meta.json",
            ]
        for name, state in self.fields.items():
            if state.task_type == "text_embedding":
                names += [self.vectors_path(name), self.norms_path(name)]
            else:
                names.append(self.tokens_path(name))
        return names

    def field_number(self, name: str) -> int:
        """Number of a semantic field, which names its files."""
        return list(self.fields).index(name)

    def vectors_path(self, name: str) -> str:
        """File of a dense field's vectors, relative to the index."""
        return f"{self.epoch}/vectors-{self.field_number(name)}.bin"

    def norms_path(self, name: str) -> str:
        """File of the lengths of a dense field's vectors, relative to the index."""
        return f"{self.epoch}/norms-{self.field_number(name)}.bin"

    def tokens_path(self, name: str) -> str:
        """File of a sparse field's token counts, relative to the index."""
        return f"{self.generation}/tokens-{self.field_number(name)}.arrow"


def _checksum(values: dict[str, Any]) -> str:
    """Hash of what ``index.json`` says, whatever its layout."""
    return blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=16).hexdigest()


KEY_BYTES = 16


def document_keys(batch: pa.RecordBatch) -> list[bytes]:
    """What tells whether a row is the same as before: a hash over id, content hash and fingerprint."""
    columns = [batch.column(name).to_pylist() for name in ("_id", "content_hash", "fingerprint")]
    return [
        blake2b("\0".join(map(str, row)).encode(), digest_size=KEY_BYTES).digest()
        for row in zip(*columns, strict=True)
    ]
