"""report.html: one run on one page, for people. Self-contained: no script, no font, no picture from elsewhere.

It shows counts, times and names of files and errors; never a document's text.
"""

import bisect
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.report.run_json import RunSummary

TEMPLATE = "page.html.j2"
WIDTH, HEIGHT = 640, 160
LAST_RUNS = 15
EDGES = [1, *(edge for power in range(1, 40) for edge in (2**power, 3 * 2 ** (power - 1)))]
"""Upper ends of the length classes; each is at most half as long again as the one before, from 2 on."""


@dataclass(frozen=True)
class Bar:
    """One bar of a chart, in the chart's own units.

    Attributes:
        label: what stands below it.
        value: what it stands for.
        x: left edge.
        y: top edge.
        width: its width.
        height: its height.
    """

    label: str
    value: float
    x: float
    y: float
    width: float
    height: float


def bars(values: Sequence[tuple[str, float]], width: int = WIDTH, height: int = HEIGHT) -> list[Bar]:
    """Lay out a bar chart.

    Args:
        values: label and value of each bar.
        width: of the chart.
        height: of the tallest bar.
    """
    tallest = max((value for _, value in values), default=0) or 1
    step = width / max(len(values), 1)
    return [
        Bar(
            label,
            value,
            place * step + 1,
            height - value / tallest * height,
            max(step - 2, 1),
            value / tallest * height,
        )
        for place, (label, value) in enumerate(values)
    ]


def rates(samples: Sequence[Sequence[float]], column: int) -> list[tuple[str, float]]:
    """Throughput between samples: label (seconds since the start) and amount a second."""
    found = []
    for before, after in zip([(0.0, 0, 0, 0), *samples], samples, strict=False):
        seconds = after[0] - before[0]
        if seconds > 0:
            found.append((f"{after[0]:.1f} s", max(after[column] - before[column], 0) / seconds))
    return found


def histogram_bars(lengths: Mapping[str, int]) -> list[Bar]:
    """Lay out a histogram in classes whose upper ends are 1, 2, 3, 4, 6, 8, 12, 16 and so on."""
    classes: Counter[int] = Counter()
    for length, number in lengths.items():
        classes[bisect.bisect_left(EDGES, int(length))] += number
    if not classes:
        return []
    between = range(min(classes), max(classes) + 1)
    return bars([(f"≤ {EDGES[place]:,}", classes[place]) for place in between], width=360, height=120)


def render_report(summary: RunSummary, last_runs: Sequence[Mapping[str, Any]]) -> str:
    """Render the page of a run.

    Args:
        summary: the run.
        last_runs: the runs before it as runs.jsonl holds them, the oldest first.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("pipeline.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = lambda value: "–" if value is None else f"{value:,.0f}"
    environment.filters["amount"] = lambda value: "–" if value is None else f"{value:,.4g}"
    runs = [*last_runs, summary.to_json(details=False)][-LAST_RUNS:]
    return environment.get_template(TEMPLATE).render(
        run=summary,
        throughput={
            name: bars(rates(summary.throughput, column))
            for column, name in ((1, "documents"), (2, "chunks"), (3, "tokens"))
        },
        histograms={
            field: {kind: histogram_bars(edges) for kind, edges in kinds.items()}
            for field, kinds in summary.lengths.items()
        },
        stages=bars(list(summary.timings.items()), height=80),
        runs=list(reversed(runs)),
        run_bars=bars([(one["started"] or "", one["seconds"]) for one in runs], height=80),
        width=WIDTH,
        height=HEIGHT,
    )
