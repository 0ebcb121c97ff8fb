"""What the graphs look like to a runner: what is shuffled, where hints are, what workers have to import."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2
from support.small_run import SmallRun

from pipeline.config.resolve import resolve
from pipeline.config.run_config import RunConfig
from pipeline.run import graph
from pipeline.table.open_runs import RunContext
from transforms.records import PartRewrite, Piece, Split

GROUP = common_urns.primitives.GROUP_BY_KEY.urn
ACCELERATOR = common_urns.resource_hints.ACCELERATOR.urn
L4 = "type:nvidia-l4;count:1;install-nvidia-driver"
SPLITS = [
    Split(0, (Piece("corpus.jsonl", 0, 100, "corpus.jsonl"),)),
    Split(1, (Piece("corpus.jsonl", 100, 200, "corpus.jsonl"),)),
]


def run_config(**runner: Any) -> RunConfig:
    return RunConfig.model_validate(
        {**SmallRun(Path("unused")).config, "runner": runner or {"name": "local"}}
    )


def proto(name: str = "embed", **runner: Any) -> beam_runner_api_pb2.Pipeline:
    """A graph as the runner gets it."""
    resolved = resolve(run_config(**runner))
    run = RunContext("run-1", datetime(2026, 1, 1, tzinfo=UTC), "table/_runs/run-1")
    pipeline = beam.Pipeline(runner="FnApiRunner", options=PipelineOptions([]))
    if name == "scan":
        graph.scan_graph(pipeline, resolved, run, SPLITS)
    elif name == "rewrite":
        parts = [PartRewrite("part-1.parquet", (1, 2)), PartRewrite("part-2.parquet", (1,))]
        graph.rewrite_graph(pipeline, resolved, run, parts)
    else:
        graph.embed_graph(pipeline, resolved, run, SPLITS)
    return pipeline.to_runner_api()


class Walk:
    """The primitive steps of a graph and what leads to what."""

    def __init__(self, pipeline: beam_runner_api_pb2.Pipeline) -> None:
        steps = pipeline.components.transforms
        self.steps = {key: step for key, step in steps.items() if step.spec.urn and not step.subtransforms}
        self.consumers: dict[str, list[str]] = {}
        for key, step in self.steps.items():
            for collection in step.inputs.values():
                self.consumers.setdefault(collection, []).append(key)

    def named(self, label: str) -> str:
        """The step with `label` as a whole element of its name."""
        found = [key for key, step in self.steps.items() if label in step.unique_name.split("/")]
        assert found, f"no step {label}"
        return found[0]

    def below(self, key: str) -> Iterator[str]:
        """Every step downstream of one."""
        for collection in self.steps[key].outputs.values():
            for consumer in self.consumers.get(collection, []):
                yield consumer
                yield from self.below(consumer)

    def groups_between(self, start: str, end: str) -> set[str]:
        """GroupByKeys downstream of `start` and upstream of `end`."""
        return {
            self.steps[key].unique_name
            for key in self.below(start)
            if self.steps[key].spec.urn == GROUP and end in self.below(key)
        }


def test_no_text_and_no_vector_is_shuffled() -> None:
    walk = Walk(proto())
    read, write = walk.named("ReadWork"), walk.named("WriteParts")
    assert write in walk.below(read)
    assert walk.groups_between(read, write) == set()


def test_the_walk_finds_a_shuffle_on_the_heavy_path(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = graph.ChunkDocuments.expand

    def shuffled(self: Any, documents: beam.PCollection) -> Any:
        return honest(self, documents | "Spread" >> beam.Reshuffle())

    monkeypatch.setattr(graph.ChunkDocuments, "expand", shuffled)
    walk = Walk(proto())
    assert walk.groups_between(walk.named("ReadWork"), walk.named("WriteParts"))


def test_what_is_shuffled_are_splits_file_statistics_and_failures() -> None:
    for name, expected in (("scan", 1), ("embed", 3), ("rewrite", 2)):
        walk = Walk(proto(name))
        groups = [step.unique_name for step in walk.steps.values() if step.spec.urn == GROUP]
        assert len(groups) == expected, groups
        outside = [
            one
            for one in groups
            if not one.startswith(("Splits", "Parts", "Reshuffle", "ListParts", "Failures"))
        ]
        assert outside == []


def hinted_steps(pipeline: beam_runner_api_pb2.Pipeline) -> dict[str, bytes]:
    """Steps whose environment asks for an accelerator -> the hint."""
    environments = pipeline.components.environments
    hints = {
        step.unique_name: environments[step.environment_id].resource_hints.get(ACCELERATOR)
        for step in pipeline.components.transforms.values()
        if step.spec.urn == common_urns.primitives.PAR_DO.urn
    }
    return {name: hint for name, hint in hints.items() if hint is not None}


def test_only_the_embed_stages_ask_for_a_gpu() -> None:
    hinted = hinted_steps(proto(name="dataflow", accelerator=L4))
    assert sorted({name.split("/")[0] for name in hinted}) == ["Embed[dense]", "Embed[sparse]"]
    assert set(hinted.values()) == {L4.encode()}
    assert hinted_steps(proto()) == {}
    assert hinted_steps(proto("scan", accelerator=L4)) == {}


WORKER = """
import sys
class Deny:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("pipeline", "typer", "deltalake", "tantivy"):
            raise ImportError(f"{name} is not there for workers")
sys.meta_path.insert(0, Deny())
from apache_beam.internal import pickler
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.transforms.core import ParDo
from apache_beam.runners.pipeline_context import PipelineContext
graph = beam_runner_api_pb2.Pipeline.FromString(sys.stdin.buffer.read())
context = PipelineContext(graph.components)
functions = 0
for key, step in graph.components.transforms.items():
    if step.spec.urn == "beam:transform:pardo:v1":
        payload = beam_runner_api_pb2.ParDoPayload.FromString(step.spec.payload)
        pickler.loads(payload.do_fn.payload)
        functions += 1
print(functions)
"""


@pytest.mark.parametrize("name", ["scan", "embed", "rewrite"])
def test_workers_import_transforms_and_models_only(name: str, tmp_path: Path) -> None:
    """Everything that is shipped can be loaded where `pipeline` does not exist, from another directory."""
    done = subprocess.run(
        [sys.executable, "-c", WORKER],
        input=proto(name).SerializeToString(),
        capture_output=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert int(done.stdout) >= 4


def test_a_graph_has_no_path_of_this_machine() -> None:
    shipped = proto(name="dataflow", accelerator=L4).SerializeToString()
    assert str(Path.cwd()).encode() not in shipped
    assert str(Path.home()).encode() not in shipped
