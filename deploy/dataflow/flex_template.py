"""The job of the flex template: one worker that runs `semantic-ingest run CONFIG` to its end.

A template's launcher may only write down one graph and has to leave at once, while a run has up to three graphs, with
planning between them and the commit after them. So the template's job is a job about the run: its only step runs the
command in the worker's container, and the command submits the run's own jobs.
"""

import argparse
import logging
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions


class RunJob(beam.DoFn):
    """Run the job of a config; the element is the config's path.

    Dataflow tries a step that fails three more times. That is safe: a run keeps the part files that an earlier one
    finished, and of two runs at the same time one is published.
    """

    def process(self, path: str) -> None:
        """Fetch the config, run the command, and pass on what it says.

        Raises:
            RuntimeError: the command failed; with its last words.
        """
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder) / "run.yaml"
            with FileSystems.open(path) as handle:
                config.write_bytes(handle.read())
            command = [sys.executable, "-m", "pipeline", "run", str(config), "--quiet", "--format", "json"]
            last = ""
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            ) as process:
                for line in process.stdout or ():
                    last = line.strip() or last
                    logging.getLogger("semantic_ingest").info("%s", line.rstrip())
            if process.returncode:
                raise RuntimeError(f"the run of {path} ended with exit code {process.returncode}: {last}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Submit the job; with Dataflow's `--template_location` it is written down there instead."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="run config, a path that workers can read (gs://)")
    ours, rest = parser.parse_known_args(arguments)
    pipeline = beam.Pipeline(options=PipelineOptions(rest))
    _ = pipeline | "Config" >> beam.Create([ours.config]) | "Run" >> beam.ParDo(RunJob())
    pipeline.run()


if __name__ == "__main__":
    main()
