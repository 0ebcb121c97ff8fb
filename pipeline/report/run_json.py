"""What is known of a run: one value that run.json, the report page, monitoring and the terminal all read."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from transforms.lengths import Histogram, add_histograms
from transforms.records import Failure, PartFile

Sample = tuple[float, float, int, int]
"""Seconds since a stage began; documents, chunks and tokens so far."""

DETAILS = ("timings", "stages", "throughput", "lengths", "versions", "config")
"""What run.json holds and the terminal leaves out."""


@dataclass(frozen=True)
class GateResult:
    """One measure of the new snapshot against its bounds.

    Attributes:
        measure: its name.
        value: its value on the new snapshot.
        published: its value on the published one; None where that was not asked for or there is none.
        problems: the bounds that it breaks, each a sentence.
    """

    measure: str
    value: float
    published: float | None
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        name: `scan`, `plan`, `embed`, `rewrite`, `gates`, `commit` or `index`.
        started: ISO 8601, in UTC.
        seconds: how long it took.
    """

    name: str
    started: str
    seconds: float


@dataclass(frozen=True)
class SlowFile:
    """A file that took long to extract.

    Attributes:
        path: the file, for a member of an archive both paths.
        seconds: processor time.
    """

    path: str
    seconds: float


@dataclass(frozen=True)
class ExtractionSummary:
    """What a source of documents held, and what their extraction took.

    Attributes:
        library: name and version of the extraction library.
        earlier_library: the one that the table was made with, where that is another.
        types: documents by type of their files.
        skipped: files that are no document, by type.
        documents: documents extracted in this run.
        pages: their pages, of formats that have pages.
        characters: their text.
        seconds: processor time.
        slowest: the slowest files, the slowest first.
    """

    library: str
    earlier_library: str | None
    types: Mapping[str, int]
    skipped: Mapping[str, int]
    documents: int
    pages: int
    characters: int
    seconds: float
    slowest: Sequence[SlowFile]


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One run, as far as it is known.

    Attributes:
        status: `running`, `done`, `failed`, or `stopped` by Ctrl-C or SIGTERM.
        run_id: its id; None when it ended before it had one.
        started: when it began, ISO 8601 in UTC; None as above.
        documents: number of documents by what became of them.
        made_lists: columns of the table that hold lists from this run on, since a document has several values.
        skipped_files: files of the source's folders that its format does not read, by ending.
        chunks: chunks in the part files that it wrote.
        embedded: chunks that a model embedded.
        reused: chunks that kept the embedding they had.
        tokens: tokens that the models saw.
        truncated: chunks that were cut at the model's window.
        merged: chunks beyond the most that a field stores, joined to others.
        seconds: how long it took.
        tokens_per_second: while embedding.
        table_version: version of the published table; None when nothing is published.
        index_version: version of the table that the index shows; None without an index.
        rewritten_parts: part files of which some rows were copied.
        extraction: what a source of documents held; None for other sources.
        gates: the quality gates that were measured.
        retries: requests to services that were tried again.
        retries_by_endpoint: the same, by endpoint.
        failures_by_reason: number of documents that failed, by ``stage: error``.
        failures_path: the failure report; None when nothing failed.
        substitutions: model that an endpoint asks for -> the model that stood in for it.
        error: why the run failed.
        timings: stage -> seconds.
        stages: the stages in the order in which they ran.
        throughput: samples taken while embedding.
        lengths: semantic field -> `tokens` and `words` -> length of a chunk -> number of chunks.
        versions: package -> version.
        config: the run config with every default.
    """

    status: Literal["running", "done", "failed", "stopped"] = "running"
    run_id: str | None = None
    started: str | None = None
    documents: Mapping[str, int] = field(default_factory=dict)
    made_lists: Sequence[str] = ()
    skipped_files: Mapping[str, int] = field(default_factory=dict)
    chunks: int = 0
    embedded: int = 0
    reused: int = 0
    tokens: int = 0
    truncated: int = 0
    merged: int = 0
    seconds: float = 0.0
    tokens_per_second: float = 0.0
    table_version: int | None = None
    index_version: int | None = None
    rewritten_parts: int = 0
    extraction: ExtractionSummary | None = None
    gates: Sequence[GateResult] = ()
    retries: int = 0
    retries_by_endpoint: Mapping[str, int] = field(default_factory=dict)
    failures_by_reason: Mapping[str, int] = field(default_factory=dict)
    failures_path: str | None = None
    substitutions: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    stages: Sequence[Stage] = ()
    throughput: Sequence[Sample] = ()
    lengths: Mapping[str, Mapping[str, Histogram]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self, *, details: bool = True) -> dict[str, Any]:
        """The summary as JSON values, with or without what only run.json holds."""
        values = asdict(self)
        return values if details else {name: value for name, value in values.items() if name not in DETAILS}


CHUNK_COUNTS = ("chunks", "embedded", "reused", "tokens", "truncated", "merged")


def work_of(parts: Sequence[PartFile]) -> dict[str, Any]:
    """The part of a summary that the written part files tell: counts of chunks, and their lengths."""
    counts: Counter[str] = Counter()
    lengths: dict[str, dict[str, Histogram]] = {}
    for part in parts:
        counts.update(part.counts)
    for unit in ("token_lengths", "word_lengths"):
        of_parts = [getattr(part, unit) for part in parts]
        for name in sorted({name for one in of_parts for name in one}):
            total = add_histograms(one.get(name, {}) for one in of_parts)
            lengths.setdefault(name, {})[unit.replace("_lengths", "s")] = total
    return {**{name: int(counts[name]) for name in CHUNK_COUNTS}, "lengths": lengths}


def reasons_of(failures: Sequence[Failure]) -> dict[str, int]:
    """Number of failures by ``stage: error``, the most frequent first."""
    return dict(Counter(f"{one.stage}: {one.error}" for one in failures).most_common())
