"""Apache Flink: embedded in its job server on this machine, or a cluster."""

from typing import Any

from apache_beam.options.pipeline_options import FlinkRunnerOptions, PipelineOptions
from apache_beam.runners.portability.flink_runner import FlinkRunner
from apache_beam.runners.portability.job_server import JobServer

from pipeline.config.run_config import RunnerConfig
from pipeline.runners.portable import portable_problems, worker_environment
from pipeline.runners.runner import Runner


class SharedJobServerFlinkRunner(FlinkRunner):
    """Keeps its job server for all graphs of a run; it stops when the program ends."""

    def __init__(self) -> None:
        super().__init__()
        self._servers: dict[tuple[str | None, str], JobServer] = {}

    def default_job_server(self, options: PipelineOptions) -> JobServer:
        """Start a job server, or return the one that is running."""
        values = options.view_as(FlinkRunnerOptions)
        key = (values.flink_job_server_jar, values.flink_master)
        if key not in self._servers:
            self._servers[key] = super().default_job_server(options)
        return self._servers[key]


def _options(config: RunnerConfig) -> dict[str, Any]:
    return {
        "flink_master": config.master or "[local]",
        "flink_version": config.flink_version,
        "flink_job_server_jar": config.job_server_jar,
        "parallelism": config.parallelism or 1,
        **worker_environment(config),
    }


FLINK = Runner(lambda workers: SharedJobServerFlinkRunner(), _options, portable_problems)
