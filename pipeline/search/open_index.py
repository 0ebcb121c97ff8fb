"""An index opened for searching: its arrays mapped into memory, its tantivy folders open at one generation.

What is opened stays as it is: an update in another process writes other files, and the files that it removes
live on until this process lets go of them. Open the index again to see the new state.
"""

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import PipelineError
from transforms.index.manifest import DamagedFileError, check_bytes, check_file, size_problems, unit_files
from transforms.index.state import CHUNK_BITS, FieldState, IndexState, IndexUnusable, Ints, UnitState
from transforms.index.tantivy_schema import open_tantivy, text_analyzer

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class FoundChunk:
    """A chunk as a hit shows it.

    Attributes:
        field: the field that holds the text.
        start_offset: first UTF-16 code unit in that field's value.
        end_offset: UTF-16 code unit after the last one.
        text: the text.
        page: the page that it begins on, from 1; None for a document without pages.
    """

    field: str
    start_offset: int
    end_offset: int
    text: str
    page: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The chunk as a hit shows it."""
        return {name: value for name, value in asdict(self).items() if name != "page" or value is not None}


class OpenUnit:
    """The chunks of one unit: arrays, and an open tantivy searcher.

    Attributes:
        state: what the unit holds.
        documents: document number of each chunk, ascending.
        firsts: row at which each document that has chunks begins.
        searcher: tantivy's searcher.
        schema: tantivy's schema.
        analyzer: splits text into BM25's terms.
    """

    def __init__(self, folder: Path, state: UnitState) -> None:
        self.state = state
        self.chunks = _arrow(folder / f"{state.name}.chunks.arrow")
        self.documents: Ints = self.chunks["document"].to_numpy()
        self.firsts: Ints = np.flatnonzero(np.diff(self.documents, prepend=-1))
        index = open_tantivy(folder / state.name, state.analyzer)
        self.searcher = index.searcher()
        self.schema = index.schema
        self.analyzer = text_analyzer(state.analyzer)

    def rows_of(self, document: int) -> slice:
        """The rows of a document's chunks."""
        # Numbers of another type would make numpy copy the whole array to theirs.
        bounds = np.array([document, document + 1], self.documents.dtype)
        first, last = np.searchsorted(self.documents, bounds)
        return slice(int(first), int(last))

    def row_of(self, chunk: int) -> int:
        """The row of a chunk number."""
        return self.rows_of(chunk >> CHUNK_BITS).start + (chunk & ((1 << CHUNK_BITS) - 1))


class SearchIndex:
    """An index, open for searching. Safe to use from several threads.

    Attributes:
        path: its folder.
        state: what it holds.
        documents: one row a document: ``_id``, part, plain fields.
        alive: which documents can be found.
        units: the sets of chunks, by name.
    """

    def __init__(self, path: str | Path) -> None:
        """Open an index.

        Raises:
            PipelineError: there is no index, or it cannot be read.
        """
        self.path = Path(path)
        for _ in range(100):
            try:
                self._open()
                return
            except (FileNotFoundError, ValueError, pa.ArrowInvalid) as error:
                # An update replaced the generation between reading its name and opening its files.
                if self.state == IndexState.load(self.path):
                    raise self._damaged(error) from None
        raise PipelineError(f"the index {self.path} changes faster than it can be opened; try again")

    def _open(self) -> None:
        try:
            state = IndexState.load(self.path)
        except IndexUnusable as error:
            raise PipelineError(str(error)) from None
        if state is None:
            raise PipelineError(f"there is no index at {self.path}; make it with `run` or `index`")
        self.state = state
        self._checked: set[str] = set()
        for problem in size_problems(self.path, state):
            raise DamagedFileError(problem)
        at_once = [f"{state.generation}/documents.arrow"]
        at_once += [name for unit in state.units for name in unit_files(state, unit)]
        at_once += [state.tokens_path(name) for name in state.fields if not self._is_dense(name)]
        for name in at_once:
            check_file(self.path, state, name)
        generation = self.path / state.generation
        self.documents = _arrow(generation / "documents.arrow")
        self.alive: Bools = self.documents["part"].to_numpy() >= 0
        self.units = {unit.name: OpenUnit(generation, unit) for unit in state.units}
        self._texts = _map(self.path / state.epoch / "texts.bin", np.dtype("u1"), (state.text_bytes,))
        self._token_counts: dict[str, dict[str, int]] = {}
        sparse = [name for name in state.fields if not self._is_dense(name)]
        self._tokens = {name: _arrow(self.path / state.tokens_path(name)) for name in sparse}
        self._vectors = {name: self._map_vectors(name) for name in state.fields if self._is_dense(name)}

    def _is_dense(self, name: str) -> bool:
        return self.state.fields[name].task_type == "text_embedding"

    def _map_vectors(self, name: str) -> tuple[Any, Any]:
        field, rows = self.state.fields[name], self.unit_of(name).state.rows
        shape = (rows, field.stored_dimensions)
        vectors = _map(self.path / self.state.vectors_path(name), np.dtype(field.dtype), shape)
        return vectors, _map(self.path / self.state.norms_path(name), np.dtype("<f4"), (rows,))

    def __len__(self) -> int:
        """Number of documents that can be found."""
        return self.state.documents

    @property
    def fields(self) -> dict[str, FieldState]:
        """The semantic fields."""
        return self.state.fields

    def unit_of(self, field: str) -> OpenUnit:
        """The unit of a semantic field, or the first one that holds the chunks of a text field."""
        for unit in self.units.values():
            if field in unit.state.fields:
                return unit
        for unit in self.units.values():
            if field in unit.state.sources:
                return unit
        raise PipelineError(f"the index has no text of [{field}]; it has {', '.join(self.text_fields())}")

    def text_fields(self) -> list[str]:
        """Fields that can be searched: the semantic ones first."""
        sources = [source for unit in self.units.values() for source in unit.state.sources]
        return list(dict.fromkeys([*self.state.fields, *sources]))

    def vectors(self, field: str) -> Any:
        """The vectors of a dense field, one row a chunk of its unit, those of deleted documents included."""
        return self._whole(self.state.vectors_path(field), self._vectors[field][0])

    def norms(self, field: str) -> Any:
        """The lengths of a dense field's vectors."""
        return self._whole(self.state.norms_path(field), self._vectors[field][1])

    def _whole(self, name: str, content: Any) -> Any:
        """A mapped file, checked when it is first used."""
        if name not in self._checked:
            try:
                check_bytes(self.state, name, content)
            except DamagedFileError as error:
                raise self._damaged(error) from None
            self._checked.add(name)
        return content

    def _damaged(self, error: Exception) -> PipelineError:
        return PipelineError(
            f"the index {self.path} is damaged: {error}; the next `run` or `index` builds it anew"
        )

    def token_counts(self, field: str) -> dict[str, int]:
        """Token -> number of chunks that had it when they were indexed, of a sparse field."""
        if field not in self._token_counts:
            table = self._tokens[field]
            pairs = zip(table["token"].to_pylist(), table["chunks"].to_pylist(), strict=True)
            self._token_counts[field] = dict(pairs)
        return self._token_counts[field]

    def document_id(self, document: int) -> str:
        """The ``_id`` of a document."""
        return str(self.documents["_id"][document])

    @cached_property
    def ids(self) -> list[str]:
        """The ``_id`` of every document, by number."""
        ids: list[str] = self.documents["_id"].to_pylist()
        return ids

    def chunk(self, unit: OpenUnit, row: int) -> FoundChunk:
        """One chunk with its text."""
        values = {name: unit.chunks[name][row].as_py() for name in unit.chunks.column_names}
        start = values["text_start"]
        texts = self._whole(f"{self.state.epoch}/texts.bin", self._texts)
        text = texts[start : start + values["text_bytes"]].tobytes().decode("utf-8", "replace")
        source = unit.state.sources[values["source"]]
        return FoundChunk(source, values["start_offset"], values["end_offset"], text, values["page"])


def opened(index: SearchIndex | str) -> SearchIndex:
    """An index as it is, or the one in a folder."""
    return SearchIndex(index) if isinstance(index, str) else index


def _arrow(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _map(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
    """Map the part of an append-only file that belongs to this generation."""
    if not all(shape):
        return np.zeros(shape, dtype)
    return np.asarray(np.memmap(path, dtype, "r", shape=shape))
