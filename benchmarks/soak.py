"""Simulate nights in which things go wrong, and report what was injected and survived.

python benchmarks/soak.py --nights 30 --seed 1
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))


def main() -> None:
    """Run the nights and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nights", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    from support.soak import run_nights

    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        soak = run_nights(Path(folder), arguments.nights, arguments.seed)
    print(
        json.dumps(
            {
                "nights": arguments.nights,
                "seed": arguments.seed,
                "faults_injected": sum(soak.injected.values()),
                "faults_survived": sum(soak.survived.values()),
                "by_kind": dict(soak.injected),
                "exit_codes": {str(code): count for code, count in sorted(soak.ends.items())},
                "answers_of_the_service": dict(soak.service.answers),
                "table_versions": soak.versions,
                "documents": len(soak.published),
                "seconds": round(time.monotonic() - begun, 1),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
