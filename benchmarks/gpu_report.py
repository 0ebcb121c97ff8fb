"""Results of a benchmark in sections: one JSON line each, a file of all, a table and a plot."""

import contextlib
import json
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


class OutOfTimeError(BaseException):
    """A section took longer than it may."""


class Report:
    """Keeps and prints results.

    Args:
        out: folder for the files; None writes none.
        seconds: time of all sections together.
    """

    def __init__(self, out: Path | None, seconds: float) -> None:
        self.out = out
        self.rows: list[dict[str, Any]] = []
        self._end = time.perf_counter() + seconds
        if out:
            out.mkdir(parents=True, exist_ok=True)

    def emit(self, section: str, name: str, **values: Any) -> None:
        """Keep and print one result."""
        rounded = {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in values.items()}
        self.rows.append({"section": section, "name": name, **rounded})
        print(json.dumps(self.rows[-1], default=str), flush=True)
        if self.out:
            (self.out / "results.json").write_text(json.dumps(self.rows, indent=1, default=str))

    @contextlib.contextmanager
    def guarded(self, section: str, name: str) -> Iterator[None]:
        """Report what goes wrong, and go on."""
        try:
            yield
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-3:]
            at = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in last]
            self.emit(section, name, error=f"{type(error).__name__}: {str(error)[:300]}", at=at)

    def run(self, sections: dict[str, tuple[float, Callable[[str], None]]]) -> None:
        """Run sections, each for its seconds at most."""

        def stop(*_: object) -> None:
            raise OutOfTimeError

        signal.signal(signal.SIGALRM, stop)
        for name, (seconds, section) in sections.items():
            left = self._end - time.perf_counter()
            if left < 5:
                self.emit(name, "left out", error="no time left")
                continue
            signal.alarm(max(1, int(min(seconds, left))))
            try:
                with self.guarded(name, "failed"):
                    section(name)
            except OutOfTimeError:
                self.emit(name, "stopped", error=f"took more than {seconds:.0f} s")
            finally:
                signal.alarm(0)

    def wrong(self) -> list[str]:
        """What failed, or is not right."""
        bad = [row for row in self.rows if "error" in row or row.get("right") is False]
        return [f"{row['section']}: {row['name']}" for row in bad]

    def write(self) -> None:
        """Write the speeds as a table for the docs, and as a plot."""
        rows = [row for row in self.rows if "tokens_per_second" in row]
        if not self.out or not rows:
            return
        lines = ["| section | what | tokens/s |", "|---|---|---:|"]
        lines += [f"| {row['section']} | {row['name']} | {row['tokens_per_second']:,.0f} |" for row in rows]
        (self.out / "results.md").write_text("\n".join(lines) + "\n")
        with self.guarded("plot", "results.png"):
            import matplotlib

            matplotlib.use("Agg")
            from matplotlib import pyplot

            figure, axes = pyplot.subplots(figsize=(9, 0.28 * len(rows) + 1))
            names = [f"{row['section']}: {row['name']}" for row in rows]
            axes.barh(names, [row["tokens_per_second"] for row in rows])
            axes.set(xscale="log", xlabel="tokens a second")
            axes.invert_yaxis()
            figure.savefig(self.out / "results.png", bbox_inches="tight")
