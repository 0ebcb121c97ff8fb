"""Google Cloud Dataflow."""

from typing import Any

from pipeline.config.run_config import RunConfig, RunnerConfig
from pipeline.runners.runner import Runner
from pipeline.runners.worker_package import build_worker_package
from transforms import files


def _options(config: RunnerConfig) -> dict[str, Any]:
    experiments = config.options.get("experiments") or []
    experiments = [experiments] if isinstance(experiments, str) else list(experiments)
    if config.accelerator and "use_nvidia_mps" not in config.accelerator:
        # One SDK process a machine, so that its GPU holds one copy of each model; with MPS one a core shares the GPU.
        experiments.append("no_use_multiple_sdk_containers")
    return {
        "project": config.project,
        "region": config.region,
        "temp_location": config.temp_location,
        "staging_location": config.staging_location,
        "machine_type": config.machine_type,
        "max_num_workers": config.max_workers,
        "sdk_container_image": config.worker_image,
        "extra_packages": [build_worker_package()],
        "experiments": experiments or None,
    }


def _problems(config: RunConfig) -> list[str]:
    runner = config.runner
    problems = [
        f"runner.{name}: is required by Dataflow"
        for name in ("project", "region", "temp_location")
        if getattr(runner, name) is None
    ]
    places = {"table.path": [config.table.path], "source.path": config.source.paths}
    problems += [
        f"{name}: [{path}] is a local path, which Dataflow's workers cannot see; use gs://"
        for name, paths in places.items()
        for path in paths
        if files.is_local(path)
    ]
    service_options = str(runner.options.get("dataflow_service_options") or "")
    if runner.accelerator and "worker_accelerator" in service_options:
        problems.append(
            "runner.accelerator: is a resource hint of the embed stage and cannot be combined with worker_accelerator "
            "in runner.options.dataflow_service_options, which puts the device into every worker; keep one of them"
        )
    if runner.accelerator and runner.options.get("flexrs_goal"):
        problems.append("runner.accelerator: cannot be combined with runner.options.flexrs_goal")
    if runner.accelerator and runner.worker_image is None:
        problems.append("runner.worker_image: a GPU needs an image with CUDA; see the Dockerfile")
    return problems


DATAFLOW = Runner(lambda workers: "DataflowRunner", _options, _problems)
