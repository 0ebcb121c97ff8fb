"""Runner name to runner and options, the checks before a run, and a Dataflow job submitted to a stub."""

import json
import os
import re
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, get_args

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import (
    DebugOptions,
    DirectOptions,
    FlinkRunnerOptions,
    GoogleCloudOptions,
    PortableOptions,
    SetupOptions,
    WorkerOptions,
)
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from support.paths import ROOT
from support.small_run import SmallRun, document

from models.local.engine.workers import CORES_VARIABLE, allocations
from pipeline.config.load import load_config
from pipeline.config.resolve import resolve
from pipeline.config.run_config import RunConfig, RunnerConfig
from pipeline.errors import ConfigError
from pipeline.run import graph
from pipeline.runners.execute import check_runner, create_runner, execute, pipeline_options, runner_of
from pipeline.runners.local import choose_workers
from pipeline.runners.runner import Runner
from pipeline.runners.worker_package import build_worker_package
from pipeline.table.open_runs import RunContext, now
from transforms.records import Piece, Split

IMAGE = "europe-docker.pkg.dev/acme/images/semantic-ingest:1"
L4 = "type:nvidia-l4;count:1;install-nvidia-driver"
DATAFLOW = {
    "name": "dataflow",
    "project": "acme",
    "region": "europe-west4",
    "temp_location": "gs://acme-temp/tmp",
    "machine_type": "g2-standard-8",
    "max_workers": 4,
    "worker_image": IMAGE,
    "accelerator": L4,
}


def config(runner: dict[str, Any], bucket: str = "gs://acme") -> RunConfig:
    values = SmallRun(Path("unused")).config | {"runner": runner}
    values["source"]["path"] = f"{bucket}/corpus.jsonl"
    values["table"]["path"] = f"{bucket}/table"
    values["failures"]["path"] = f"{bucket}/failures"
    return RunConfig.model_validate(values)


def problems(runner: dict[str, Any], bucket: str = "gs://acme") -> list[str]:
    with pytest.raises(ConfigError) as raised:
        check_runner(config(runner, bucket))
    return raised.value.problems


def test_every_runner_that_a_config_can_name_is_there() -> None:
    for name in get_args(RunnerConfig.model_fields["name"].annotation):
        assert isinstance(runner_of(name), Runner)


def test_local_is_beams_own_runner_and_several_workers_are_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CORES_VARIABLE, raising=False)
    monkeypatch.setattr("pipeline.runners.local.usable_cores", lambda: 12)
    assert isinstance(create_runner(RunnerConfig()), FnApiRunner)
    several = create_runner(RunnerConfig(workers=3))
    command = several._default_environment.command_string
    assert command.startswith(f"exec env {CORES_VARIABLE}=4 ")
    assert command.endswith(f" {sys.executable} -P -m pipeline.runners.local_worker")
    assert pipeline_options(RunnerConfig(workers=3)).view_as(DirectOptions).direct_num_workers == 3
    assert CORES_VARIABLE not in os.environ


@pytest.mark.parametrize(
    ("runner", "weights", "gpus", "cores", "expected"),
    [
        ({"workers": 3}, 1 << 20, 4, 16, 3),
        ({}, 1 << 20, 0, 16, 1),
        ({"device": "cpu"}, 1 << 20, 4, 16, 1),
        ({}, 1 << 20, 1, 16, 8),
        ({}, 1 << 20, 1, 64, 8),
        ({}, 1 << 20, 1, 6, 3),
        ({}, 1 << 20, 4, 64, 32),
        ({}, 1 << 20, 4, 4, 4),
        ({}, 2 << 30, 4, 64, 4),
        ({"device": "cuda:2"}, 2 << 30, 4, 64, 1),
    ],
)
def test_workers_are_as_many_as_feed_the_gpus(
    runner: dict, weights: int, gpus: int, cores: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.runners.local.usable_cores", lambda: cores)
    monkeypatch.setattr("pipeline.runners.local.gpu_count", lambda: gpus)
    assert choose_workers(RunnerConfig(**{"workers": "auto", **runner}), weights) == expected


def test_processes_of_dataflow_share_a_gpu_where_it_is_shared_by_mps() -> None:
    hint = f"{DATAFLOW['accelerator']};use_nvidia_mps"
    options = pipeline_options(RunnerConfig(**{**DATAFLOW, "accelerator": hint}))
    assert "no_use_multiple_sdk_containers" not in (options.view_as(DebugOptions).experiments or [])


def test_a_notebook_does_not_change_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beam would number its labels, and import data frames that do not fit every pandas."""
    monkeypatch.setattr("apache_beam.utils.interactive_utils.is_in_ipython", lambda: True)
    monkeypatch.setitem(sys.modules, "apache_beam.runners.interactive", None)
    labels: list[str] = []

    def build(pipeline: beam.Pipeline) -> None:
        pipeline | "Numbers" >> beam.Create([1])
        labels.extend(step.full_label for step in pipeline.transforms_stack[0].parts)

    execute(config({"name": "local"}), build)
    assert labels == ["Numbers"]


def test_worker_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"num_threads": 1, "adaptive_allocations": {"enabled": True, "max_number_of_allocations": 32}}
    monkeypatch.setenv(CORES_VARIABLE, "3")
    assert allocations(settings).most == 3
    monkeypatch.setenv(CORES_VARIABLE, "none")
    assert allocations(settings, cores=5).most == 5


def test_flink_options() -> None:
    options = pipeline_options(RunnerConfig(name="flink", parallelism=2, job_server_jar="a.jar"))
    flink = options.view_as(FlinkRunnerOptions)
    assert (flink.flink_master, flink.parallelism, flink.flink_job_server_jar) == ("[local]", 2, "a.jar")
    assert options.view_as(PortableOptions).environment_type == "LOOPBACK"
    cluster = RunnerConfig(
        name="flink", master="flink:8081", environment="EXTERNAL", environment_config="localhost:50000"
    )
    portable = pipeline_options(cluster).view_as(PortableOptions)
    assert (portable.environment_type, portable.environment_config) == ("EXTERNAL", "localhost:50000")


def test_a_cluster_gets_the_image_and_our_code() -> None:
    options = pipeline_options(RunnerConfig(name="flink", master="flink:8081", worker_image=IMAGE))
    portable = options.view_as(PortableOptions)
    assert (portable.environment_type, portable.environment_config) == ("DOCKER", IMAGE)
    assert options.view_as(SetupOptions).extra_packages == [build_worker_package()]


def test_spark_and_prism_options() -> None:
    spark = pipeline_options(RunnerConfig(name="spark", parallelism=2)).get_all_options()
    assert (spark["spark_master_url"], spark["environment_type"]) == ("local[2]", "LOOPBACK")
    prism = pipeline_options(RunnerConfig(name="prism", prism_location="prism")).get_all_options()
    assert (prism["prism_location"], prism["environment_type"]) == ("prism", "LOOPBACK")


def test_the_runs_graphs_share_one_flink_job_server() -> None:
    runner = create_runner(RunnerConfig(name="flink", job_server_jar="a.jar"))
    options = pipeline_options(RunnerConfig(name="flink", job_server_jar="a.jar"))
    assert create_runner(RunnerConfig(name="flink")) is runner
    assert runner.default_job_server(options) is runner.default_job_server(options)


def test_what_flink_needs_is_checked_before_a_run() -> None:
    assert "[nowhere.jar] does not exist" in problems({"name": "flink", "job_server_jar": "nowhere.jar"})[0]
    assert (
        "address of the worker pool"
        in problems({"name": "flink", "master": "f:1", "environment": "EXTERNAL"})[0]
    )
    process = {"name": "flink", "master": "f:1", "environment": "PROCESS", "environment_config": "boot"}
    assert "needs JSON like" in problems(process)[0]
    assert (
        "LOOPBACK workers are part of this process"
        in problems({"name": "flink", "master": "f:1", "environment": "LOOPBACK"})[0]
    )
    check_runner(config({"name": "flink"}))


def test_prism_is_never_downloaded() -> None:
    assert "is required" in problems({"name": "prism"})[0]
    assert "[no/prism] does not exist" in problems({"name": "prism", "prism_location": "no/prism"})[0]


def test_what_dataflow_needs_is_checked_before_a_run() -> None:
    assert [problem.partition(":")[0] for problem in problems({"name": "dataflow"})] == [
        "runner.project",
        "runner.region",
        "runner.temp_location",
    ]
    found = problems(DATAFLOW, bucket="data")
    assert [problem.partition(":")[0] for problem in found] == ["table.path", "source.path"]
    both = DATAFLOW | {"options": {"dataflow_service_options": ["worker_accelerator=type:nvidia-l4;count:1"]}}
    assert "cannot be combined with worker_accelerator" in problems(both)[0]
    assert "flexrs_goal" in problems(DATAFLOW | {"options": {"flexrs_goal": "COST_OPTIMIZED"}})[0]
    assert "an image with CUDA" in problems(DATAFLOW | {"worker_image": None})[0]
    check_runner(config(DATAFLOW))


def test_dataflow_options() -> None:
    options = pipeline_options(
        RunnerConfig(**DATAFLOW, options={"experiments": ["shuffle_mode=service"], "labels": "a=b"})
    )
    cloud, worker = options.view_as(GoogleCloudOptions), options.view_as(WorkerOptions)
    assert (cloud.project, cloud.region, cloud.temp_location) == (
        "acme",
        "europe-west4",
        "gs://acme-temp/tmp",
    )
    assert (worker.machine_type, worker.max_num_workers) == ("g2-standard-8", 4)
    assert worker.sdk_container_image == IMAGE
    assert options.view_as(DebugOptions).experiments == [
        "shuffle_mode=service",
        "no_use_multiple_sdk_containers",
    ]
    without = pipeline_options(RunnerConfig(**{**DATAFLOW, "accelerator": None}))
    assert without.view_as(DebugOptions).experiments is None


class StubbedDataflow:
    """Stands in for the service and its bucket: keeps what is staged and what is submitted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from apache_beam.io.gcp.gcsio import GcsIO
        from apache_beam.runners.dataflow.internal import apiclient

        self.staged: dict[str, bytes] = {}
        self.jobs: list[Any] = []
        monkeypatch.setattr(GcsIO, "is_soft_delete_enabled", lambda gcs, bucket: False)
        monkeypatch.setattr(apiclient, "get_service_credentials", lambda options: None)
        monkeypatch.setattr(apiclient, "create_storage_client", lambda *arguments, **options: None)
        monkeypatch.setattr(apiclient.DataflowApplicationClient, "stage_file", self._stage)
        monkeypatch.setattr(apiclient.DataflowApplicationClient, "submit_job_description", self._submit)
        monkeypatch.setattr(apiclient.DataflowApplicationClient, "_gcs_file_copy", self._copy, raising=False)

    def _stage(self, folder: str, name: str, stream: Any, *rest: Any, **options: Any) -> None:
        assert folder.startswith("gs://acme-temp/")
        self.staged[name] = stream.read()

    def _copy(self, source: str, target: str, *rest: Any) -> None:
        self.staged[target.rpartition("/")[2]] = Path(source).read_bytes()

    def _submit(self, job: Any) -> Any:
        from google.cloud import dataflow

        self.jobs.append(job)
        return dataflow.Job(id="job-1", current_state=dataflow.JobState.JOB_STATE_DONE)

    @property
    def pipeline(self) -> beam_runner_api_pb2.Pipeline:
        """The graph as the service would get it."""
        return beam_runner_api_pb2.Pipeline.FromString(self.staged["pipeline.pb"])


@pytest.fixture
def dataflow(monkeypatch: pytest.MonkeyPatch) -> StubbedDataflow:
    """A job submitted to the stub: the embed graph on GPU workers."""
    return submitted(config(DATAFLOW), StubbedDataflow(monkeypatch))


def submitted(settings: RunConfig, stub: StubbedDataflow) -> StubbedDataflow:
    """The stub, after the embed graph of a config came to it."""
    options = pipeline_options(settings.runner)
    pipeline = beam.Pipeline(runner=create_runner(settings.runner), options=options)
    run = RunContext("run-1", now(), "gs://acme/table/_runs/run-1")
    graph.embed_graph(
        pipeline,
        resolve(settings),
        run,
        [Split(0, (Piece("gs://acme/corpus.jsonl", 0, 10, "corpus.jsonl"),))],
    )
    pipeline.run()
    return stub


def test_the_gallerys_config_becomes_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "run_configs" / "dataflow.yaml").read_text()
    (tmp_path / "dataflow.yaml").write_text(
        text.replace("BUCKET/tmp", "acme-temp/tmp").replace("PROJECT", "acme")
    )
    settings = load_config(str(tmp_path / "dataflow.yaml"))
    check_runner(settings)
    pools = submitted(settings, StubbedDataflow(monkeypatch)).jobs[0].proto.environment.worker_pools
    assert pools[0].machine_type == "g2-standard-8"
    assert pools[0].autoscaling_settings.max_num_workers == 8


def test_dataflow_gets_a_job_with_the_image_and_the_hint_on_the_embed_stage_only(
    dataflow: StubbedDataflow,
) -> None:
    components = dataflow.pipeline.components
    images = {
        beam_runner_api_pb2.DockerPayload.FromString(environment.payload).container_image
        for environment in components.environments.values()
    }
    assert images == {IMAGE}
    hint = common_urns.resource_hints.ACCELERATOR.urn
    hinted = {
        step.unique_name.split("/")[0]
        for step in components.transforms.values()
        if step.environment_id and hint in components.environments[step.environment_id].resource_hints
    }
    assert hinted == {"Embed[dense]", "Embed[sparse]"}
    environment = dataflow.jobs[0].proto.environment
    assert "no_use_multiple_sdk_containers" in environment.experiments
    assert not [one for one in environment.service_options if "worker_accelerator" in one]
    assert environment.worker_pools[0].machine_type == "g2-standard-8"
    assert environment.worker_pools[0].autoscaling_settings.max_num_workers == 4


def test_dataflow_gets_our_code_and_no_path_of_this_machine(dataflow: StubbedDataflow) -> None:
    wheel = Path(build_worker_package()).name
    assert wheel in dataflow.staged
    sent = dataflow.staged["pipeline.pb"] + str(dataflow.jobs[0].proto.steps).encode()
    for path in (Path.cwd(), Path.home(), Path(build_worker_package()).parent, Path(sys.prefix)):
        assert f"{path}/".encode() not in sent


FLEX = ROOT / "deploy" / "dataflow"


def flex_spec() -> dict[str, Any]:
    return json.loads((FLEX / "flex-template.json").read_text())


def test_the_flex_template_is_a_container_spec_with_the_launchers_parameters() -> None:
    """Every field is one that the service knows, and the launcher image has what the spec counts on."""
    from google.cloud import dataflow_v1beta3
    from google.protobuf import json_format

    spec = dataflow_v1beta3.ContainerSpec()._pb
    json_format.ParseDict(flex_spec(), spec)
    assert spec.sdk_info.language == dataflow_v1beta3.SDKInfo.Language.PYTHON
    assert spec.image == spec.default_environment.sdk_container_image
    assert spec.default_environment.max_workers == 1
    parameter = spec.metadata.parameters[0]
    shown = subprocess.run(
        [sys.executable, str(FLEX / "flex_template.py"), "--help"], capture_output=True, text=True
    ).stdout
    taken = set(re.findall(r"--(\w+)", shown.partition("options:")[2])) - {"help"}
    assert {one.name for one in spec.metadata.parameters} == taken == {"config"}
    assert not parameter.is_optional
    assert re.fullmatch(parameter.regexes[0], "gs://acme/configs/run.yaml")
    assert not re.fullmatch(parameter.regexes[0], "run.yaml")
    image = (FLEX.parent.parent / "Dockerfile").read_text().partition(" AS launcher\n")[2]
    assert "/opt/google/dataflow/python_template_launcher" in image
    assert "COPY deploy/dataflow/flex_template.py /template/flex_template.py" in image
    assert "FLEX_TEMPLATE_PYTHON_PY_FILE=/template/flex_template.py" in image
    assert "!deploy/dataflow/flex_template.py" in (FLEX.parent.parent / ".dockerignore").read_text().split()


def test_the_flex_template_writes_its_job_down_and_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Google's launcher calls it: nothing is submitted, the job object is at `template_location`."""
    stub = StubbedDataflow(monkeypatch)
    options = {
        "runner": "DataflowRunner",
        "project": "acme",
        "region": "europe-west4",
        "temp_location": "gs://acme-temp/tmp",
        "staging_location": "gs://acme-temp/staging",
        "template_location": "gs://acme-temp/staging/template_launches/1/job_object",
        "sdk_container_image": IMAGE,
        "max_num_workers": 1,
    }
    arguments = [f"--{name}={value}" for name, value in options.items()]
    monkeypatch.setattr(sys, "argv", ["flex_template.py", "--config=gs://acme/run.yaml", *arguments])
    runpy.run_path(str(FLEX / "flex_template.py"), run_name="__main__")
    assert stub.jobs == []
    (pool,) = json.loads(stub.staged["job_object"])["environment"]["workerPools"]
    assert pool["autoscalingSettings"]["maxNumWorkers"] == 1
    assert {image["containerImage"] for image in pool["sdkHarnessContainerImages"]} == {IMAGE}
    assert str(FLEX).encode() not in stub.staged["pipeline.pb"]


@pytest.mark.slow
def test_the_flex_templates_job_is_a_whole_run(tmp_path: Path) -> None:
    """Its graph on the local runner publishes a table; a run that fails is a job that fails, with its last words."""
    small = SmallRun(tmp_path)
    del small.config["index"]
    small.write([document(number) for number in range(3)])
    small.config_path.write_text(json.dumps(small.config))
    command = [sys.executable, str(FLEX / "flex_template.py"), "--runner=FnApiRunner"]
    done = subprocess.run(
        [*command, f"--config={small.config_path}"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert len(small.rows()) == 3
    job = runpy.run_path(str(FLEX / "flex_template.py"))["RunJob"]()
    small.config_path.write_text("source: 1")
    with pytest.raises(RuntimeError, match="exit code 2: - table: is required"):
        job.process(str(small.config_path))


def test_the_worker_package_installs_and_loads_without_pipeline(tmp_path: Path) -> None:
    """What is shipped is a valid wheel: it installs elsewhere, and its modules load from there."""
    target = tmp_path / "site"
    with zipfile.ZipFile(build_worker_package()) as wheel:
        names = set(wheel.namelist())
        wheel.extractall(target)
    assert {"transforms/embed/documents.py", "models/local/catalog.json"} <= names
    assert not [name for name in names if name.startswith("pipeline/") or "__pycache__" in name]
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "import transforms.embed.documents, transforms.table.write, models.endpoints.registry;"
        "print(transforms.embed.documents.__file__, 'pipeline' in sys.modules);"
        "print(models.endpoints.registry.Registry(None).get('.minilm-l6-v2').inference_id)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, str(target)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        str(target / "transforms" / "embed" / "documents.py"),
        "False",
        ".minilm-l6-v2",
    ]


def test_the_worker_package_is_what_pip_takes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
    done = subprocess.run(
        [*command, "--target", str(tmp_path), build_worker_package()], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "transforms" / "embed" / "documents.py").is_file()


@pytest.mark.slow
def test_an_installed_wheel_runs_from_another_directory(tmp_path: Path) -> None:
    """Build our wheel, unpack it elsewhere, and run a job from there with two worker processes."""
    root = ROOT
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    done = subprocess.run([*build, "--wheel-dir", str(tmp_path), str(root)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "site")
    small = SmallRun(tmp_path, runner={"name": "local", "workers": 2})
    # Several splits, so that the worker processes are started.
    small.config["source"]["split_bytes"] = 400
    del small.config["index"]
    small.write([document(number) for number in range(6)])
    small.config_path.write_text(json.dumps(small.config))
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "run", str(small.config_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path / "site"), "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert len(small.rows()) == 6
