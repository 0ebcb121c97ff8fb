"""Peak memory of a whole run over 10,000 and over 100,000 synthetic documents, each in a process of its own.

python benchmarks/memory.py
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from documents import synthetic, write_jsonl


def run_once(count: int, again: bool) -> None:
    """Run over `count` documents in this process and print time and peak memory; `again` adds a no-change run."""
    from pipeline.config.run_config import RunConfig
    from pipeline.run.job import run_pipeline

    with tempfile.TemporaryDirectory() as folder:
        corpus = write_jsonl(Path(folder) / "corpus.jsonl", synthetic(count))
        semantic = {"dense": ".hashing-dense", "sparse": ".hashing-sparse"}
        fields = {name: {"type": "semantic_text", "inference_id": id_} for name, id_ in semantic.items()}
        config = RunConfig.model_validate(
            {
                "source": {"format": "jsonl", "path": str(corpus)},
                "mappings": {"properties": {"text": {"type": "text", "copy_to": list(semantic)}, **fields}},
                "table": {"path": f"{folder}/table"},
                "failures": {"path": f"{folder}/failures"},
            }
        )
        figures = {}
        for name in ("first", "unchanged") if again else ("first",):
            begun = time.perf_counter()
            run_pipeline(config, quiet=True)
            figures[name] = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"documents": count, "seconds": figures, "peak_mib": peak}))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run_once(arguments.one, again=True)
        return
    results = []
    for count in arguments.counts:
        command = [sys.executable, __file__, "--one", str(count)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        results.append(json.loads(done.stdout.splitlines()[-1]))
        print(json.dumps(results[-1]))
    print(json.dumps({"peak_ratio": results[-1]["peak_mib"] / results[0]["peak_mib"]}))


if __name__ == "__main__":
    main()
