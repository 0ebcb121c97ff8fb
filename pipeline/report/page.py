"""report.html: one run on one page, for people. Self-contained: no script, no font, no picture from elsewhere.

It shows counts, times and names of files and errors; never a document's text.
"""

import bisect
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipeline.report.run_json import RunSummary

TEMPLATE = "page.html.j2"
WIDTH, HEIGHT = 640, 110
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
            found.append((f"{after[0]:,.1f} s", max(after[column] - before[column], 0) / seconds))
    return found


def histogram_bars(lengths: Mapping[str, int]) -> list[Bar]:
    """Lay out a histogram in classes whose upper ends are 1, 2, 3, 4, 6, 8, 12, 16 and so on."""
    classes: Counter[int] = Counter()
    for length, number in lengths.items():
        classes[bisect.bisect_left(EDGES, int(length))] += number
    if not classes:
        return []
    between = range(min(classes), max(classes) + 1)
    return bars([(f"≤ {EDGES[place]:,}", classes[place]) for place in between], height=90)


RUN_COLUMNS = (
    "added",
    "changed",
    "deleted",
    "unchanged",
    "failed",
    "chunks",
    "embedded",
    "tokens/s",
    "version",
)


def render_report(
    summary: RunSummary, last_runs: Sequence[Mapping[str, Any]], folder: Path | None = None
) -> str:
    """Render the page of a run.

    Args:
        summary: the run.
        last_runs: the runs before it as runs.jsonl holds them, the oldest first.
        folder: where the page will lie, so that it can link to local files; None links to its neighbours only.
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
    environment.filters["when"] = when
    runs = [*last_runs, summary.to_json(details=False)][-LAST_RUNS:]
    return environment.get_template(TEMPLATE).render(
        run=summary,
        skipped=skipped_rows(summary),
        failures_link=_link(summary.failures_path, folder),
        throughput={
            name: bars(rates(summary.throughput, column))
            for column, name in ((1, "documents"), (2, "chunks"), (3, "tokens"))
        },
        histograms={
            field: {kind: laid for kind, edges in kinds.items() if (laid := histogram_bars(edges))}
            for field, kinds in summary.lengths.items()
        },
        longest=max(summary.timings.values(), default=0) or 1,
        runs=[{**one, "cells": list(_run_cells(one).items())} for one in reversed(runs)],
        run_columns=("seconds", *RUN_COLUMNS),
        run_bars=bars([(when(one["started"]), one["seconds"]) for one in runs], height=70),
        width=WIDTH,
    )


def when(time: str | None) -> str:
    """A time in ISO 8601 as a person reads it: to the second, without its zone; empty for none."""
    return (time or "")[:19].replace("T", " ")


def skipped_rows(summary: RunSummary) -> list[tuple[int, str]]:
    """What a run left out or cut, each with its number and why."""
    rows = []
    for ending, count in summary.skipped_files.items():
        rows.append((count, f"files ({ending}): the source's format does not read them"))
    # A summary that was read from run.json has plain values here.
    extraction = summary.to_json()["extraction"]
    for kind, count in (extraction or {}).get("skipped", {}).items():
        rows.append((count, f"files of type {kind}: they are no documents"))
    documents = summary.documents
    rows += [
        (documents.get("duplicates", 0), "documents: a later one has the same id"),
        (documents.get("held_back", 0), "deletions: they wait until the whole source can be read"),
        (summary.truncated, "chunks: longer than the model's window, so their ends are not in the embedding"),
        (summary.merged, "chunks: beyond the most that a field stores, so they were joined to others"),
    ]
    return [row for row in rows if row[0]]


def _link(path: str | None, folder: Path | None) -> str | None:
    """A local file as an address relative to the page; None for what no page can reach that way."""
    if path is None or folder is None or "://" in path:
        return None
    return "./" + quote(os.path.relpath(path, folder))


def _run_cells(run: Mapping[str, Any]) -> dict[str, Any]:
    documents = {name: run["documents"].get(name) for name in RUN_COLUMNS[:5]}
    counts = {"chunks": run["chunks"], "embedded": run["embedded"], "tokens/s": run["tokens_per_second"]}
    return {"seconds": run["seconds"], **documents, **counts, "version": run["table_version"]}
