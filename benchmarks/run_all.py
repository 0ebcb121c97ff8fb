"""Everything that the README quotes, in one go: `make bench` runs it with --quick (under five minutes).

    python benchmarks/run_all.py --corpus corpus.jsonl.gz --documents 1000 --out out/bench

Each part is a script of its own in a process of its own. Figures go to `figures.json`, with the machine and the
package versions, and the comparison with other pipelines to `peers.svg`.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from pipeline.report.record import package_versions

HERE = Path(__file__).parent


def parts(corpus: str, documents: int, quick: bool) -> dict[str, list[str]]:
    """Name of a part -> its script and arguments."""
    count = min(documents, 120) if quick else documents
    of_corpus = ["--corpus", corpus, "--documents", str(count), "--repeat", "2" if quick else "5"]
    return {
        "engine": ["engine.py", "--corpus", corpus, *(["--quick"] if quick else [])],
        "whole run": ["whole_run.py", *of_corpus],
        "peers": ["peers.py", *of_corpus],
        "chunking": ["chunking.py", "--megabytes", "1" if quick else "4", "--rounds", "3" if quick else "5"],
    } | ({} if quick else {"backends": ["backends.py", "--corpus", corpus]})


def run_part(script: str, arguments: list[str], out: Path) -> Any:
    """Run one script, show what it prints, return its figures."""
    path = out / f"{Path(script).stem}.json"
    subprocess.run([sys.executable, str(HERE / script), *arguments, "--json", str(path)], check=True)
    return json.loads(path.read_text())


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(
            (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model
        )
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)), "system": platform.platform()}


def plot(peers: dict[str, dict[str, float]], path: Path) -> None:
    """Bars of time relative to our whole run."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    names = list(peers)
    figure, axes = pyplot.subplots(figsize=(7, 0.5 * len(names) + 1))
    bars = axes.barh(names, [peers[name]["times_ours"] for name in names], color="#4477aa")
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.invert_yaxis()
    axes.set_xlabel("time, our whole run = 1 (shorter is faster)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", default="data/xquad/corpus.jsonl", help="a BEIR corpus")
    parser.add_argument("--documents", type=int, default=240)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {"machine": machine(), "versions": package_versions()}
    for name, (script, *rest) in parts(arguments.corpus, arguments.documents, arguments.quick).items():
        print(f"\n== {name}", flush=True)
        figures[name] = run_part(script, rest, arguments.out)
    (arguments.out / "figures.json").write_text(json.dumps(figures, indent=2))
    plot(figures["peers"], arguments.out / "peers.svg")
    print(f"\nwritten to {arguments.out}/figures.json and peers.svg")


if __name__ == "__main__":
    main()
