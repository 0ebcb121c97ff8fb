"""Apache Spark, behind its job server."""

from typing import Any

from pipeline.config.run_config import RunnerConfig
from pipeline.runners.portable import portable_problems, worker_environment
from pipeline.runners.runner import Runner


def _options(config: RunnerConfig) -> dict[str, Any]:
    return {
        "spark_master_url": config.master or f"local[{config.parallelism or 1}]",
        "spark_job_server_jar": config.job_server_jar,
        **worker_environment(config),
    }


SPARK = Runner(lambda workers: "SparkRunner", _options, portable_problems)
