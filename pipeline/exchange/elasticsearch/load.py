"""Load documents with their vectors into Elasticsearch, with the official client.

The index itself remembers what it shows: in the mapping's ``_meta`` stand the table, its version, and how far a load
has come. So a load that was broken off goes on where it stopped, from any machine, and an index that somebody deleted
is loaded from the beginning.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError, TooManyFailures
from pipeline.exchange.elasticsearch.options import parse_version
from pipeline.exchange.elasticsearch.sender import BulkSender, DeadLetter
from pipeline.exchange.elasticsearch.sources import ExportSource, TableSource
from transforms import files

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

META = "semantic_ingest"
SAMPLE = 20


@dataclass
class LoadState:
    """What an index remembers.

    Attributes:
        table_id: the table that it shows.
        form: how its documents are written.
        version: the table's version that it shows; None while it was never complete.
        pending: versions of loads that were begun and did not end; single documents may show them.
        done: the last piece of the newest pending load that is complete.
        failed: documents that were refused, for the next load to try again.
    """

    table_id: str
    form: str
    version: int | None = None
    pending: list[int] = field(default_factory=list)
    done: str | None = None
    failed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class LoadReport:
    """What a load did.

    Attributes:
        index: the index.
        table_version: version of the table that it shows now.
        since: versions that it may have shown before; none for a first load.
        sent: documents and deletions that were sent.
        documents: documents in the index.
        refused: documents that the cluster refused.
        dead_letters: file with the cluster's reasons; None where nothing was refused.
        sampled: documents that were read back and compared.
        alias: the alias that points to the index now.
    """

    index: str
    table_version: int
    since: list[int]
    sent: int
    documents: int
    refused: int
    dead_letters: str | None
    sampled: int
    alias: str | None


def connect(url: str, api_key: str | None = None) -> "Elasticsearch":
    """Open the official client.

    Args:
        url: the cluster; user and password may stand in it.
        api_key: ``env:NAME`` or ``file:PATH`` of an API key.

    Raises:
        PipelineError: the client is not installed, or the key is not there.
    """
    try:
        from elasticsearch import Elasticsearch
    except ImportError:
        raise PipelineError(
            "loading into Elasticsearch needs its client: pip install 'semantic-ingest[elasticsearch]'"
        ) from None
    from elastic_transport import Transport

    from models.endpoints.secrets import resolve

    class Version8(Transport):
        """Speaks version 8 of the interface, which clusters of versions 8 and 9 both know."""

        def perform_request(self, method: str, target: str, *, headers: Any = None, **rest: Any) -> Any:
            older = {
                name: value.replace("compatible-with=9", "compatible-with=8")
                for name, value in headers.items()
            }
            return super().perform_request(method, target, headers=older, **rest)

    key = None if api_key is None else resolve({"api_key": api_key}, None)["api_key"]
    return Elasticsearch(
        url, api_key=key, request_timeout=120, max_retries=0, retry_on_timeout=False, transport_class=Version8
    )


class ClusterIndex:
    """One index of a cluster, and what it remembers."""

    def __init__(self, client: "Elasticsearch", name: str) -> None:
        self.client, self.name = client, name

    def version(self) -> tuple[int, int]:
        """The cluster's version."""
        answer = asked(lambda: self.client.nodes.info(node_id="_local", filter_path="nodes.*.version"))
        return parse_version(next(iter(answer["nodes"].values()))["version"])

    def state(self) -> LoadState | None:
        """What the index remembers; None where there is no index.

        Raises:
            PipelineError: the index was not made by a load.
        """
        if not asked(lambda: self.client.indices.exists(index=self.name)):
            return None
        mapping = asked(lambda: self.client.indices.get_mapping(index=self.name))
        ((_, found),) = mapping.items()
        remembered = found["mappings"].get("_meta", {}).get(META)
        if not remembered:
            raise PipelineError(
                f"the index [{self.name}] was not made by a load; name a new one with --index, and let --alias switch"
            )
        return LoadState(**remembered)

    def create(self, body: Mapping[str, Any], state: LoadState) -> None:
        """Make the index."""
        mappings = {**body["mappings"], "_meta": {**body["mappings"].get("_meta", {}), META: asdict(state)}}
        asked(
            lambda: self.client.indices.create(index=self.name, settings=body["settings"], mappings=mappings)
        )

    def remember(self, state: LoadState) -> None:
        """Write down how far a load is."""
        mapping = asked(lambda: self.client.indices.get_mapping(index=self.name))
        ((_, found),) = mapping.items()
        meta = {**found["mappings"].get("_meta", {}), META: asdict(state)}
        asked(lambda: self.client.indices.put_mapping(index=self.name, meta=meta))

    def count(self) -> int:
        """Documents that can be found."""
        asked(lambda: self.client.indices.refresh(index=self.name))
        return int(asked(lambda: self.client.count(index=self.name))["count"])

    def differing(self, sample: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """The documents of a sample that the index does not have, or has with other values."""
        if not sample:
            return []
        answer = asked(lambda: self.client.mget(index=self.name, ids=list(sample)))
        found = {one["_id"]: one.get("_source", {}) for one in answer["docs"] if one.get("found")}
        return [id_ for id_, source in sample.items() if not _same(source, found.get(id_))]

    def switch(self, alias: str) -> None:
        """Let an alias point to this index alone, in one step."""
        actions: list[dict[str, Any]] = [
            {"remove": {"index": name, "alias": alias}} for name in self._aliased(alias) if name != self.name
        ]
        actions.append({"add": {"index": self.name, "alias": alias}})
        asked(lambda: self.client.indices.update_aliases(actions=actions))

    def _aliased(self, alias: str) -> list[str]:
        if not asked(lambda: self.client.indices.exists_alias(name=alias)):
            return []
        return list(asked(lambda: self.client.indices.get_alias(name=alias)))


def _same(source: Mapping[str, Any], found: Mapping[str, Any] | None) -> bool:
    """Whether a document has the values that were sent; clusters may keep vectors out of what they give back."""
    kept = {name: value for name, value in source.items() if name != "_inference_fields"}
    return found is not None and all(
        found.get(name) == value or name.endswith("_chunks") for name, value in kept.items()
    )


def load(
    index: ClusterIndex,
    source: TableSource | ExportSource,
    *,
    alias: str | None = None,
    threads: int = 2,
    max_failures: float = 0.0,
    dead_letters: str = "dead-letters.jsonl",
    advance: Callable[[int], None] = lambda documents: None,
) -> LoadReport:
    """Bring an index to a version of the table.

    Args:
        index: the index; made when it is not there.
        source: a table or an export.
        alias: points to the index, and to no other, once it is complete.
        threads: requests at once.
        max_failures: largest allowed share of documents that the cluster refuses.
        dead_letters: file for their ids and the cluster's reasons.
        advance: is told of documents that are settled.

    Raises:
        PipelineError: the index belongs to another table, the cluster fails, or a check does.
        TooManyFailures: more documents were refused than allowed.
    """
    state = _begun(index, source)
    since = [] if state.version is None else sorted({state.version, *state.pending})
    units = _units(source, state)
    sent = 0

    def tell(count: int) -> None:
        nonlocal sent
        sent += count
        advance(count)

    refused: list[DeadLetter] = []
    with closing(BulkSender(index.client, index.name, threads, tell)) as sender:
        for unit in units:
            refused += sender.send(source.bodies(unit))
            state.done = unit if not refused else state.done
            index.remember(state)
    _judge(refused, sent, max_failures, dead_letters)
    documents = _checked(index, source, refused)
    index.remember(
        LoadState(source.table_id, source.form, source.version, failed=[one.id for one in refused])
    )
    if alias:
        index.switch(alias)
    return LoadReport(
        index=index.name,
        table_version=source.version,
        since=since,
        sent=sent,
        documents=documents,
        refused=len(refused),
        dead_letters=dead_letters if refused else None,
        sampled=len(source.sample(SAMPLE)),
        alias=alias,
    )


def _begun(index: ClusterIndex, source: TableSource | ExportSource) -> LoadState:
    """How far the index is; it is made where it is not there."""
    state = index.state()
    if state is None:
        state = LoadState(source.table_id, source.form, pending=[source.version])
        index.create(source.index, state)
    _check(index, state, source)
    return state


def _check(index: ClusterIndex, state: LoadState, source: TableSource | ExportSource) -> None:
    if state.table_id != source.table_id:
        raise PipelineError(f"the index [{index.name}] shows another table; name a new one with --index")
    if state.form != source.form:
        raise PipelineError(
            f"the documents of the index [{index.name}] are of the form [{state.form}], these are [{source.form}]; "
            "name a new index with --index"
        )


def _units(source: TableSource | ExportSource, state: LoadState) -> list[str]:
    """The pieces to send; a load that was broken off goes on after the last piece that it finished."""
    known = [] if state.version is None else sorted({state.version, *state.pending})
    units = source.units(known, state.failed)
    others = [version for version in state.pending if version != source.version]
    if not known and others:
        if isinstance(source, ExportSource):
            raise PipelineError(
                "the index holds part of another version; load from the run config, or into a new index"
            )
        source.forget(others)
        units = source.units([], [])
    if state.pending and state.pending[-1] == source.version and state.done in units:
        return units[units.index(state.done) + 1 :]
    state.pending = [*others, source.version]
    state.done = None
    return units


def _judge(refused: list[DeadLetter], sent: int, max_failures: float, path: str) -> None:
    if not refused:
        return
    with files.create(path) as handle:
        handle.writelines(json.dumps(asdict(letter)).encode() + b"\n" for letter in refused)
    if len(refused) > max_failures * sent:
        first = refused[0]
        raise TooManyFailures(
            f"the cluster refused {len(refused):,} of {sent:,} documents, more than --max-failures [{max_failures}] "
            f"allows; the alias was not switched. The first: [{first.id}] {first.status} {first.type}: {first.reason}. "
            f"All of them: {Path(path)}"
        )


def _checked(index: ClusterIndex, source: TableSource | ExportSource, refused: list[DeadLetter]) -> int:
    """Count and sample the index; returns the number of its documents."""
    documents = index.count()
    total = source.total()
    if total is not None and not total - len(refused) <= documents <= total:
        raise PipelineError(
            f"the index [{index.name}] has {documents:,} documents and the table {total:,}; something else writes to "
            "it. The alias was not switched; load into a new index."
        )
    gone = {letter.id for letter in refused}
    sample = {id_: document for id_, document in source.sample(SAMPLE).items() if id_ not in gone}
    differing = index.differing(sample)
    if differing:
        raise PipelineError(
            f"the document [{differing[0]}] in the index [{index.name}] is not as it was sent; "
            "the alias was not switched"
        )
    return documents


def asked(question: Callable[[], Any]) -> Any:
    """Ask the cluster; its answer, or a sentence why there is none."""
    from elasticsearch import ApiError, TransportError, UnsupportedProductError

    try:
        return question()
    except UnsupportedProductError as error:
        raise PipelineError(f"this is no Elasticsearch: {error}") from None
    except ApiError as error:
        raise PipelineError(f"the cluster answers {error.status_code}: {error}") from None
    except TransportError as error:
        raise PipelineError(f"the cluster does not answer: {error}") from None
