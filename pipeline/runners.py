"""Runner name -> Beam runner and options. The runner is always named: Beam's default one downloads a binary first."""

from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.config import RunnerConfig


def pipeline_options(config: RunnerConfig) -> PipelineOptions:
    """Build the options of a runner; unknown ones in `runner.options` are Beam's to refuse."""
    return PipelineOptions.from_dictionary({**_OPTIONS[config.name](config), **config.options})


def create_runner(config: RunnerConfig) -> Any:
    """Return the runner to give to `beam.Pipeline`."""
    if config.name == "local":
        from apache_beam.runners.portability.fn_api_runner import FnApiRunner

        return FnApiRunner()
    return {"flink": "FlinkRunner", "dataflow": "DataflowRunner", "prism": "PrismRunner", "spark": "SparkRunner"}[config.name]


def _local(config: RunnerConfig) -> dict[str, Any]:
    mode = "in_memory" if config.workers == 1 else "multi_processing"
    return {"direct_num_workers": config.workers, "direct_running_mode": mode}


_OPTIONS = {"local": _local}
