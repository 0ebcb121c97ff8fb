"""The run config: one YAML file that says everything about a run.

A config is complete and readable alone. Unknown keys are errors, every default is written out by
``check --print``, and a problem names its place in the file.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from models.endpoints.prices import price_problems
from pipeline.config.defaults import DEFAULT_ENDPOINTS
from pipeline.config.mapping import Mappings
from transforms.read.servers.connection import Connection

Ratio = Annotated[float, Field(ge=0, le=1)]


_REFERENCE = re.compile(r"(env|file):")
_PASSWORD = re.compile(r"://[^/@]*:[^/@]*@")


class Section(BaseModel):
    """A section of the run config: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ExtractConfig(Section):
    """Bounds on the extraction of one document, for the format `files`.

    Attributes:
        processes: child processes of a worker that extract side by side; null is one a core.
        seconds: a document that takes longer becomes a failure.
        memory_bytes: a document that needs more memory becomes a failure.
        ocr: language of scanned pages and images as Tesseract names it, for example `eng` or `deu+eng`; null reads
            no images. Needs Tesseract's language data.
    """

    processes: PositiveInt | None = None
    seconds: PositiveFloat = 120.0
    memory_bytes: PositiveInt = 2 * 1024 * 1024 * 1024
    ocr: str | None = None


class SourceConfig(Section):
    """What is read.

    Attributes:
        format: how a file holds its documents; `text` and `markdown` files are one document each, with the
            fields `path`, `title` and `text`; `files` are documents of any kind, see docs/documents.md.
        path: a file, folder or glob, or a list of them; any scheme that Beam's FileSystems knows. For `table`, a table
            that this program wrote: its documents are read, not its embeddings.
        version: for `table`, the version to read; null is the newest.
        url: for `sql` any URL of SQLAlchemy's, for `elasticsearch` the cluster's. One with a password is written
            `env:NAME` or `file:PATH`.
        table: for `sql`, the table or view to read.
        query: for `sql` a statement in its place, for `elasticsearch` a query; null reads all documents.
        updated_at: for `sql`, a column that changes whenever the row does: other rows are not read again.
        index: for `elasticsearch`, an index, alias or data stream.
        api_key: for `elasticsearch`, written `env:NAME` or `file:PATH`.
        id: name of the field that holds the document's id; null derives the id from the content.
        sync: `full`, what the source no longer has is deleted from the table; `incremental`, it is kept.
        deleted: name of a boolean field; a document where it is true is deleted.
        deletions: a text file with one document id a line; these are deleted.
        max_delete_ratio: a full sync that would delete more than this share of the table fails.
        delimiter: character between the fields of CSV; null is a comma, or what a first line `sep=;` says.
        encoding: of CSV files.
        columns: names of the columns of CSV files without a header.
        max_document_bytes: a document larger than this becomes a failure.
        split_bytes: files are read in pieces of about this size, the unit of parallel work.
        extract: bounds on the extraction of documents, for the format `files`.
    """

    format: Literal[
        "jsonl", "json", "parquet", "csv", "text", "markdown", "files", "table", "sql", "elasticsearch"
    ]
    path: str | list[str] | None = None
    version: Annotated[int, Field(ge=0)] | None = None
    url: str | None = None
    table: str | None = None
    query: str | dict[str, Any] | None = None
    updated_at: str | None = None
    index: str | None = None
    api_key: str | None = None
    id: str | None = "_id"
    sync: Literal["full", "incremental"] = "full"
    deleted: str | None = None
    deletions: str | None = None
    max_delete_ratio: Ratio = 0.2
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    encoding: str = "utf-8"
    columns: list[str] | None = None
    max_document_bytes: PositiveInt = 100 * 1024 * 1024
    split_bytes: PositiveInt = 32 * 1024 * 1024
    extract: ExtractConfig = ExtractConfig()

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str) -> str:
        try:
            "".encode(encoding)
        except LookupError:
            raise ValueError(
                f"unknown encoding [{encoding}]; for example utf-8, latin-1, cp1252, utf-16"
            ) from None
        return encoding

    @model_validator(mode="after")
    def _only_for_csv(self) -> "SourceConfig":
        for name in ("delimiter", "encoding", "columns"):
            if name in self.model_fields_set and self.format != "csv":
                raise ValueError(f"[{name}] says how CSV is read, and source.format is [{self.format}]")
        return self

    @model_validator(mode="after")
    def _is_whole(self) -> "SourceConfig":
        """Each format has keys of its own; those of another would have no effect."""
        keys = {
            "sql": ("url", "table", "query", "updated_at"),
            "elasticsearch": ("url", "index", "query", "api_key"),
            "table": ("path", "version"),
        }
        own = keys.get(self.format, ("path",))
        for name in ("path", "version", "url", "table", "query", "updated_at", "index", "api_key"):
            if getattr(self, name) is not None and name not in own:
                raise ValueError(f"`{name}` has no meaning for format {self.format}; it has {', '.join(own)}")
        required = {"sql": ("url", "id"), "elasticsearch": ("url", "index")}.get(self.format, ("path",))
        for name in required:
            if getattr(self, name) is None:
                raise ValueError(f"format {self.format} needs `{name}`")
        if self.format == "sql" and (self.table is None) == (self.query is None):
            raise ValueError("format sql needs either `table` or `query`")
        if self.format in ("elasticsearch", "table") and self.id != "_id":
            raise ValueError("the id of a document from an index or a table is its `_id`")
        if self.format == "table" and len(self.paths) != 1:
            raise ValueError("format table reads one table")
        for name in ("url", "api_key"):
            value = getattr(self, name)
            if (
                value is not None
                and not _REFERENCE.match(value)
                and (name == "api_key" or _PASSWORD.search(value))
            ):
                raise ValueError(
                    f"`{name}` holds a secret; put it into the environment and write `{name}: env:NAME`"
                )
        return self

    @property
    def paths(self) -> list[str]:
        """The configured paths, always as a list."""
        return [self.path] if isinstance(self.path, str) else list(self.path or [])

    @property
    def connection(self) -> Connection | None:
        """Where the source is, for the formats that are no files."""
        if self.url is None:
            return None
        query = self.query if isinstance(self.query, str | None) else json.dumps(self.query)
        return Connection(
            self.url, self.table, query, self.updated_at, self.deleted, self.index, self.api_key
        )


class EndpointsConfig(Section):
    """Where user-defined endpoints are.

    Attributes:
        path: folder of endpoint definitions, one JSON file each.
        default: endpoint of a `semantic_text` field that names none; the default is that of Elasticsearch since 9.4.
    """

    path: str = DEFAULT_ENDPOINTS
    default: str = ".jina-embeddings-v5-text-small"


class TableConfig(Section):
    """The table that is published.

    Attributes:
        path: folder or object-store URL of the Delta Lake table.
        part_rows: largest number of documents in one part file.
        part_bytes: a part file is closed when its rows take about this much memory.
        lists: names of plain fields whose column holds lists from the beginning; others do so as soon as a document
            has several values.
        part_seconds: a part file is written before its first document is this old; a run that is stopped or killed
            loses no more.
    """

    path: str
    part_rows: PositiveInt = 2_000
    part_bytes: PositiveInt = 64 * 1024 * 1024
    lists: list[str] = Field(default_factory=list)
    part_seconds: PositiveFloat = 30.0


class IndexConfig(Section):
    """The local search index.

    Attributes:
        path: folder of the index.
    """

    path: str


class FailuresConfig(Section):
    """What becomes of documents that fail.

    Attributes:
        path: folder of the failure reports, one JSON-lines file a run; by default `failures` beside the table.
        max_ratio: the run fails, and commits nothing, when more than this share of the source's documents failed;
            and always when a service failed for every single document that there was to embed.
    """

    path: str = ""
    max_ratio: Ratio = 0.01


class GateConfig(Section):
    """Bounds on one measure of the new snapshot.

    Attributes:
        min: smallest allowed value.
        max: largest allowed value.
        max_drop: largest allowed drop against the published snapshot.
        max_ratio: largest allowed share of documents (`failures`) or chunks (`truncated`).
    """

    min: float | None = None
    max: float | None = None
    max_drop: float | None = None
    max_ratio: Ratio | None = None


class GatesConfig(Section):
    """Checks of the new snapshot before it is published.

    Attributes:
        queries: queries in BEIR's JSON lines, for the retrieval measures.
        qrels: relevance judgements in BEIR's or TREC's format.
        mode: the search mode that the retrieval measures use.
        field: the semantic field that they use; null takes the first.
        measures: measure (`ndcg@10`, `recall@100`, `mrr@10`, `map`, `failures`, `truncated`) -> bounds.
    """

    queries: str | None = None
    qrels: str | None = None
    mode: Literal["bm25", "sparse", "dense", "hybrid"] = "dense"
    field: str | None = None
    measures: dict[str, GateConfig] = Field(default_factory=dict)

    @field_validator("measures")
    @classmethod
    def _known(cls, measures: dict[str, GateConfig]) -> dict[str, GateConfig]:
        known = ["ndcg@10", "recall@100", "mrr@10", "map", "failures", "truncated"]
        for name in measures:
            if name not in known:
                raise ValueError(f"unknown measure [{name}]; known: {', '.join(known)}")
        return measures

    @model_validator(mode="after")
    def _needs_judgements(self) -> "GatesConfig":
        retrieval = [name for name in self.measures if name not in ("failures", "truncated")]
        if retrieval and not (self.queries and self.qrels):
            raise ValueError(f"measure [{retrieval[0]}] needs `queries` and `qrels`")
        return self


class RunnerConfig(Section):
    """Where the Beam graph runs.

    Attributes:
        name: `local` is Beam's FnApiRunner in this process.
        workers: worker processes of the local runner. `auto` takes one without a GPU, one a GPU for large models, and
            for small ones as many as the cores can feed the GPUs with.
        device: `cpu`, `cuda` or `cuda:N`; null takes a CUDA device when there is one.
        parallelism: parallel subtasks (Flink, Spark).
        master: Flink or Spark master, for example `[local]` or `host:8081`.
        environment: SDK environment of a portable runner.
        environment_config: for EXTERNAL the worker pool's address, for PROCESS its command as JSON.
        job_server_jar: path of the job server jar (Flink, Spark); null lets Beam fetch it.
        flink_version: Flink version of the job server that Beam fetches; must be the cluster's. Null is Beam's newest.
        prism_location: path of a Prism binary.
        project: Google Cloud project (Dataflow), and so are the options below.
        region: region.
        temp_location: bucket for temporary files.
        staging_location: bucket for staged code.
        machine_type: worker machine type.
        accelerator: resource hint of the embed stage, for example `type:nvidia-l4;count:1;install-nvidia-driver`.
        worker_image: container image of the workers.
        max_workers: upper bound of autoscaling.
        options: further Beam options, name -> value, for what is not listed here.
    """

    name: Literal["local", "flink", "dataflow", "prism", "spark"] = "local"
    workers: PositiveInt | Literal["auto"] = 1
    device: str | None = None
    parallelism: PositiveInt | None = None
    master: str | None = None
    environment: Literal["LOOPBACK", "DOCKER", "EXTERNAL", "PROCESS"] | None = None
    environment_config: str | None = None
    job_server_jar: str | None = None
    flink_version: str | None = None
    prism_location: str | None = None
    project: str | None = None
    region: str | None = None
    temp_location: str | None = None
    staging_location: str | None = None
    machine_type: str | None = None
    accelerator: str | None = None
    worker_image: str | None = None
    max_workers: PositiveInt | None = None
    options: dict[str, Any] = Field(default_factory=dict)


class TelemetryConfig(Section):
    """What monitoring gets of each run; OpenTelemetry is turned on by the OTEL_* environment variables.

    Attributes:
        prometheus: file for the textfile collector of Prometheus' node exporter, `*.prom`; null writes none.
    """

    prometheus: str | None = None


class RunConfig(Section):
    """Everything about a run."""

    source: SourceConfig
    mappings: Mappings
    endpoints: EndpointsConfig = EndpointsConfig()
    models: dict[str, Any] = Field(default_factory=dict)
    table: TableConfig
    index: IndexConfig | None = None
    failures: FailuresConfig = FailuresConfig()
    gates: GatesConfig = GatesConfig()
    runner: RunnerConfig = RunnerConfig()
    telemetry: TelemetryConfig = TelemetryConfig()

    @field_validator("models")
    @classmethod
    def _prices_are_numbers(cls, models: dict[str, Any]) -> dict[str, Any]:
        if problems := price_problems(models):
            raise ValueError("; ".join(problems))
        return models

    @model_validator(mode="after")
    def _failures_beside_the_table(self) -> "RunConfig":
        if not self.failures.path:
            folder = self.table.path.rstrip("/").rpartition("/")[0]
            path = f"{folder}/failures" if folder else "failures"
            # The value is the validator's to complete; nobody has seen the frozen config yet.
            object.__setattr__(self, "failures", self.failures.model_copy(update={"path": path}))
        return self

    @property
    def run_json(self) -> Path | None:
        """Where the summary of the last run is written: beside the table, where that is a local folder."""
        return None if "://" in self.table.path else Path(self.table.path).parent / "run.json"
