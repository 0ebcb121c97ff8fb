"""The plan of a run: what the source has, against what the table has. Made before anything is embedded.

All of it is arithmetic on Arrow and numpy columns of ids, hashes and row numbers; no text is held.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.table.delta import TableState

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Scan:
    """What a pass over the source found, in source order.

    Attributes:
        ids: large string array; null where a line is no document.
        content_hashes: large string array.
        lines: line or row number in its file, from 1.
        pieces: int32, the piece of a file that each line is in, by its number in the whole source.
        deleted: bool, tombstones.
        errors: large string array, null for documents.
        messages: large string array.
        paths: large string array; null where the file is that of the split.
        types: documents by type of their files, for formats that know types.
        skipped: files that are no document, by type.
        several: plain columns in which some document has several values.
        filled: semantic fields that some document fills.
        fields: names of fields that the first documents have.
        stands_for: string array, what each failure stands for, null for documents.
    """

    ids: pa.Array
    content_hashes: pa.Array
    lines: Rows
    pieces: npt.NDArray[np.int32]
    deleted: npt.NDArray[np.bool_]
    errors: pa.Array
    messages: pa.Array
    paths: pa.Array
    stands_for: pa.Array
    types: Mapping[str, int] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)
    several: Collection[str] = ()
    filled: Collection[str] = ()
    fields: Sequence[str] = ()


@dataclass(frozen=True)
class Plan:
    """What a run has to do.

    Attributes:
        work: scan rows of the documents to embed, in source order.
        previous: for each of them the row of the table's state that it replaces, or -1.
        similar: for each of them the row of the table's state whose embeddings may hold for it, or -1: the one that it
            replaces, else one with the same content under an id that is going.
        taken_over: rows that a killed run finished and that are taken over from it.
        taken_over_previous: for each of them the row of the table's state that it replaces, or -1.
        deleted: rows of the table's state that go.
        held_back: rows that a full sync would delete, kept because some of the source could not be read.
        unchanged: number of documents that are up to date.
        duplicates: number of documents that a later one with the same id replaces.
        documents: number of different documents in the source.
        unreadable: scan rows of the lines that are no document.
    """

    work: Rows
    previous: Rows
    similar: Rows
    taken_over: Rows
    taken_over_previous: Rows
    deleted: Rows
    held_back: int
    unchanged: int
    duplicates: int
    documents: int
    unreadable: Rows

    @property
    def added(self) -> int:
        """Documents that are new to the table."""
        return int((self.previous < 0).sum() + (self.taken_over_previous < 0).sum())

    @property
    def changed(self) -> int:
        """Documents whose content, mapping or model changed."""
        return int((self.previous >= 0).sum() + (self.taken_over_previous >= 0).sum())

    def counts(self) -> dict[str, int]:
        """Number of documents by what becomes of them."""
        return {
            "added": self.added,
            "changed": self.changed,
            "unchanged": self.unchanged,
            "deleted": len(self.deleted),
            "failed": len(self.unreadable),
            "duplicates": self.duplicates,
            "taken_over": len(self.taken_over),
            "held_back": self.held_back,
        }

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (len(self.work) or len(self.taken_over) or len(self.deleted))


def make_plan(
    scan: Scan,
    state: TableState,
    finished_rows: TableState,
    fingerprint: str,
    *,
    full_sync: bool,
    deletions: Sequence[str] = (),
) -> Plan:
    """Compare source and table.

    The last document of an id wins. A row is up to date when content hash and fingerprint are those of the source;
    then nothing is done for it. Rows of parts that a killed run finished are taken over under the same condition.

    Args:
        scan: the source.
        state: the table.
        finished_rows: rows of finished parts that belong to no version of the table.
        fingerprint: of the rows that this run would write.
        full_sync: whether documents that the source lacks are deleted.
        deletions: ids to delete, whatever the source says.
    """
    is_document = scan.errors.is_null().to_numpy(zero_copy_only=False)
    unreadable = np.flatnonzero(~is_document)
    last, documents, duplicates = _last_of_each_id(scan, np.flatnonzero(is_document))
    removed = scan.deleted[last] | _is_in(scan.ids.take(pa.array(last)), deletions)
    wanted = last[~removed]
    wanted_ids = scan.ids.take(pa.array(wanted))
    hashes = scan.content_hashes.take(pa.array(wanted))

    matched, done, previous = _match(state, fingerprint, wanted_ids, hashes)
    taken_over, places = _taken_over(finished_rows, fingerprint, wanted_ids, hashes, done)
    unchanged = int(done.sum())
    done[places] = True

    gone = _is_in(state.ids, deletions) | _is_in(state.ids, scan.ids.take(pa.array(last[removed])))
    missing = ~matched & ~gone & full_sync
    # A line that cannot be read may be any document, so none that seems to be missing is deleted while there is one.
    held_back = int(missing.sum()) if len(unreadable) else 0
    if not held_back:
        gone |= missing
    return Plan(
        work=wanted[~done],
        previous=previous[~done],
        similar=_similar(previous[~done], hashes.filter(pa.array(~done)), state, ~matched),
        taken_over=taken_over,
        taken_over_previous=previous[places],
        deleted=np.flatnonzero(gone),
        held_back=held_back,
        unchanged=unchanged,
        duplicates=duplicates,
        documents=documents,
        unreadable=unreadable,
    )


def _match(
    state: TableState, fingerprint: str, wanted_ids: pa.Array, hashes: pa.Array
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], Rows]:
    """Find the documents that the source wants among the rows of the table.

    Returns:
        For each row whether the source wants its document; for each document whether its row is up to date, and which
        row it has, -1 for none.
    """
    # For each row of the table the document that the source wants in its place; then, for each such document, its row.
    place = _index_in(state.ids, wanted_ids)
    matched = place >= 0
    current = matched & _same(state, fingerprint, hashes, place)
    done = np.zeros(len(wanted_ids), bool)
    done[place[current]] = True
    previous = np.full(len(wanted_ids), -1, np.int64)
    previous[place[matched]] = np.flatnonzero(matched)
    return matched, done, previous


def _similar(previous: Rows, hashes: pa.Array, state: TableState, unmatched: npt.NDArray[np.bool_]) -> Rows:
    """For a document without a row of its own, a row with its content whose id the source has no more.

    That is what a renamed file looks like.
    """
    rows = np.flatnonzero(unmatched)
    if not len(rows) or not (previous < 0).any():
        return previous
    found = _index_in(hashes, state.content_hashes.take(pa.array(rows)))
    same = np.where(found >= 0, rows[np.maximum(found, 0)], -1)
    return np.where(previous >= 0, previous, same)


def _taken_over(
    finished: TableState, fingerprint: str, ids: pa.Array, hashes: pa.Array, done: npt.NDArray[np.bool_]
) -> tuple[Rows, Rows]:
    """Rows of finished parts that are what the source wants now and the table lacks, and which document each is."""
    place = _index_in(finished.ids, ids)
    usable = np.flatnonzero((place >= 0) & _same(finished, fingerprint, hashes, place))
    usable = usable[~done[place[usable]]]
    # Two killed runs may both have finished a document; either row will do.
    _, first = np.unique(place[usable], return_index=True)
    taken_over = usable[np.sort(first)]
    return taken_over, place[taken_over]


def _last_of_each_id(scan: Scan, rows: Rows) -> tuple[Rows, int, int]:
    """Scan rows of the documents that count, in source order; how many there are; how many are replaced."""
    ids = scan.ids.take(pa.array(rows)).dictionary_encode()
    last = np.zeros(len(ids.dictionary), np.int64)
    last[ids.indices.to_numpy()] = rows  # of several rows with one id the last one stays
    last.sort()
    return last, len(last), len(rows) - len(last)


def _index_in(values: pa.Array, among: pa.Array) -> Rows:
    """Position of each value in `among`, or -1."""
    found = pc.index_in(values, value_set=among)
    return np.asarray(pc.fill_null(found, -1), np.int64)


def _is_in(values: pa.Array, among: Sequence[str] | pa.Array) -> npt.NDArray[np.bool_]:
    return np.asarray(pc.is_in(values, value_set=pa.array(among, values.type)), bool)


def _same(state: TableState, fingerprint: str, hashes: pa.Array, place: Rows) -> npt.NDArray[np.bool_]:
    """Whether each row has the fingerprint and the content hash of the document at `place`."""
    if not len(state) or not len(hashes):
        return np.zeros(len(state), bool)
    same_content = pc.equal(state.content_hashes, hashes.take(pa.array(np.maximum(place, 0))))
    return np.asarray(same_content, bool) & has_fingerprint(state, [fingerprint])


def has_fingerprint(state: TableState, among: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Whether each row has one of some fingerprints; looks at the few different ones, not at every row's text."""
    return _is_in(state.fingerprints.dictionary, among)[state.fingerprints.indices.to_numpy()]
