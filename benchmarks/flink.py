"""What Flink costs: the same run on the local runner and on Flink's embedded cluster, with one worker each.

    python benchmarks/flink.py --corpus scifact/corpus.jsonl.gz --repeats 3

Start-up (job server and mini cluster) is measured apart, by runs over a single document. The two runners alternate;
medians count.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from documents import read_corpus, write_jsonl

from pipeline.config.run_config import RunConfig
from pipeline.run.job import run_pipeline

JAR = "build/jars/flink-job-server.jar"
RUNNERS = {"local": {"name": "local"}, "flink": {"name": "flink", "job_server_jar": JAR, "parallelism": 1}}


def seconds(runner: dict[str, Any], corpus: Path, endpoint: str, folder: Path) -> float:
    """Time one run into a fresh table."""
    text = {"type": "text", "copy_to": ["embedding"]}
    field = {"type": "semantic_text", "inference_id": endpoint}
    config = RunConfig.model_validate(
        {
            "source": {"format": "jsonl", "path": str(corpus)},
            "mappings": {"properties": {"title": text, "text": text, "embedding": field}},
            "table": {"path": str(folder / "table")},
            "failures": {"path": str(folder / "failures")},
            "runner": runner,
        }
    )
    started = time.perf_counter()
    run_pipeline(config, quiet=True)
    return time.perf_counter() - started


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, default=Path("data/xquad/corpus.jsonl"))
    parser.add_argument("--endpoint", default=".minilm-l6-v2")
    parser.add_argument("--documents", type=int, default=1_000, help="take this many of the corpus")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    documents = read_corpus(str(arguments.corpus), arguments.documents)
    times: dict[str, dict[str, list[float]]] = {name: {"start-up": [], "whole": []} for name in RUNNERS}
    with tempfile.TemporaryDirectory() as scratch:
        corpora = {
            "start-up": write_jsonl(Path(scratch) / "one.jsonl", documents[:1]),
            "whole": write_jsonl(Path(scratch) / "all.jsonl", documents),
        }
        # The first round starts the job server and loads the model; it does not count.
        for repeat in range(arguments.repeats + 1):
            for kind, corpus in corpora.items():
                for name, runner in RUNNERS.items():
                    folder = Path(scratch) / f"{repeat}-{kind}-{name}"
                    taken = seconds(runner, corpus, arguments.endpoint, folder)
                    print(f"{kind} {name}: {taken:.1f} s", file=sys.stderr)
                    if repeat:
                        times[name][kind].append(taken)
    result = {
        name: {kind: statistics.median(taken) for kind, taken in kinds.items()}
        for name, kinds in times.items()
    }
    work = {name: kinds["whole"] - kinds["start-up"] for name, kinds in result.items()}
    print(
        json.dumps(
            {"documents": len(documents), "seconds": result, "overhead": work["flink"] / work["local"]},
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
