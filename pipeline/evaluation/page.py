"""An evaluation as one HTML page with plots: measures by mode, recall curves, per-query differences, worst queries."""

import html
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from pipeline.evaluation.evaluate import MEASURES, Evaluation, ModeResult, shown
from pipeline.evaluation.statistics import PairTest

COLOURS = ("#0b6e99", "#c4501b", "#3f7d20", "#7a3e9d", "#8a6d00")
DARK_COLOURS = ("#63b8de", "#f0915f", "#8cc56b", "#c69ae0", "#d6b84a")
WIDTH, HEIGHT, MARGIN = 480, 280, 44
_SERIES = "".join(f".s{at}{{--s:{colour}}}" for at, colour in enumerate(DARK_COLOURS))
_STYLE = f"""
:root{{color-scheme:light dark;--ink:#1b1f23;--quiet:#5b6673;--line:#d8dee4;--page:#fff}}
@media (prefers-color-scheme:dark){{
:root{{--ink:#e6e9ee;--quiet:#9aa5b4;--line:#39414d;--page:#14181e}}
{_SERIES}polyline{{stroke:var(--s)}}rect,text[class]{{fill:var(--s)}}}}
body{{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:var(--ink);
background:var(--page)}}
h1{{font-size:1.4rem}}h2{{font-size:1.1rem;margin:2rem 0 .5rem}}h3{{font-size:.95rem;margin:1rem 0 0}}
.quiet{{color:var(--quiet);margin:.2rem 0}}svg{{max-width:100%;height:auto}}
.plots{{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:0 1.5rem}}
table{{border-collapse:collapse}}th{{color:var(--quiet)}}
td,th{{padding:.3rem 1.2rem .3rem 0;border-bottom:1px solid var(--line);text-align:left;overflow-wrap:anywhere}}
.n{{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}}
@media (max-width:840px){{
table.wide,table.wide tbody,table.wide tr,table.wide td{{display:block;border:0;padding:0;text-align:left}}
table.wide tr{{border-bottom:1px solid var(--line);padding:.4rem 0}}table.wide tr:first-child{{display:none}}
table.wide td:first-child{{font-weight:600}}
table.wide td.n::before{{content:attr(data-name);display:inline-block;width:7rem;color:var(--quiet)}}}}
"""


def write_report(path: str, evaluation: Evaluation, before: Evaluation | None = None) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        evaluation: what was measured.
        before: the same queries on another version of the table.
    """
    Path(path).write_text(report_html(evaluation, before), encoding="utf-8")


def report_html(evaluation: Evaluation, before: Evaluation | None = None) -> str:
    """The page; it holds everything, scripts are not needed."""
    names = list(evaluation.modes)
    parts = [
        f"<h1>Retrieval, table version {evaluation.table_version}</h1>",
        f"<p>{len(evaluation.queries):,} judged queries; in brackets 95 % confidence intervals."
        f"{_about(evaluation)}</p>",
        _measures(evaluation),
        *_tests("Differences between modes", evaluation.tests("ndcg@10")),
        '<h2>Plots</h2><div class="plots">',
        _plot("Recall by depth", "", recall_plot(evaluation)),
        *(_delta(f"{b} minus {a}", evaluation.modes[a], evaluation.modes[b]) for a, b in pairwise(names)),
    ]
    if before is not None:
        for name in [name for name in names if name in before.modes]:
            title = f"{name}: version {evaluation.table_version} minus {before.table_version}"
            parts.append(_delta(title, before.modes[name], evaluation.modes[name]))
    parts.append("</div>")
    parts += [f"<h2>Worst queries of {name}</h2>{_worst(evaluation, name)}" for name in names]
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Retrieval, table version {evaluation.table_version}</title><style>{_STYLE}</style>"
    )
    return f'<!doctype html><html lang="en"><head>{head}</head><body><main>{"".join(parts)}</main></body></html>\n'


def _about(evaluation: Evaluation) -> str:
    """What was left out, as sentences; empty where nothing was."""
    said = ""
    if evaluation.pruning is not None:
        ratio = evaluation.pruning.tokens_freq_ratio_threshold
        weight = evaluation.pruning.tokens_weight_threshold
        said += f" Sparse queries leave out tokens by Elasticsearch's rule, at {ratio:g} and {weight:g}."
    if evaluation.filter is not None:
        said += " Only documents that the filter lets through are found, and only they count as relevant."
    return said


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, wide: bool = False) -> str:
    """A table; a wide one becomes a block of lines for each row where the window is narrow."""
    titles = "".join(
        f"<th{' class=n' if at else ''}>{html.escape(name)}</th>" for at, name in enumerate(head)
    )
    lines = []
    for row in rows:
        cells = [f"<td>{html.escape(row[0])}</td>"]
        for name, cell in zip(head[1:], row[1:], strict=True):
            cells.append(f'<td class="n" data-name="{html.escape(name)}">{html.escape(cell)}</td>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table{' class=wide' if wide else ''}><tr>{titles}</tr>{''.join(lines)}</table>"


def _measures(evaluation: Evaluation) -> str:
    rows = []
    for name, result in evaluation.modes.items():
        means = (shown(result.mean(measure), result.interval(measure)) for measure in MEASURES)
        rows.append([name, *means, f"{result.seconds * 1000:.1f}"])
    return _table(["mode", *MEASURES, "ms a query"], rows, wide=True)


def _tests(title: str, tests: Sequence[PairTest]) -> list[str]:
    """The differences between all pairs, where there are several modes."""
    if not tests:
        return []
    rows = [
        [f"{one.second} minus {one.first}", f"{one.difference:+.4f}", f"{one.p_holm:.4f}"] for one in tests
    ]
    corrected = f", corrected by Holm's method for {len(tests)} pairs" if len(tests) > 1 else ""
    note = f'<p class="quiet">p by a paired randomization test{corrected}.</p>'
    return [f"<h2>{title}</h2>", _table(["pair", "ndcg@10", "p"], rows), note]


def _worst(evaluation: Evaluation, mode: str, count: int = 10) -> str:
    values = evaluation.modes[mode].values["ndcg@10"]
    queries = list(evaluation.queries.items())
    rows = [
        [queries[at][1], f"{values[at]:.3f}"] for at in np.argsort(values, kind="stable")[:count].tolist()
    ]
    return _table(["query", "ndcg@10"], rows)


def _plot(title: str, note: str, svg: str) -> str:
    return f'<div><h3>{html.escape(title)}</h3><p class="quiet">{note}</p>{svg}</div>'


def _delta(title: str, before: ModeResult, after: ModeResult) -> str:
    deltas = after.values["ndcg@10"] - before.values["ndcg@10"]
    better, worse = int((deltas > 0).sum()), int((deltas < 0).sum())
    note = f"{better:,} queries better, {worse:,} worse, {len(deltas) - better - worse:,} the same"
    return _plot(f"ndcg@10, {title}", note, delta_plot(before, after))


def recall_curve(
    run: Mapping[str, Mapping[str, float]], qrels: Mapping[str, Mapping[str, int]], depth: int
) -> list[float]:
    """Mean recall after 1, 2, … `depth` documents."""
    total = np.zeros(depth)
    for query, judged in qrels.items():
        relevant = {document for document, relevance in judged.items() if relevance > 0}
        if relevant:
            found = [document in relevant for document in list(run.get(query, {}))[:depth]]
            # Recall stays as it is below the last document that was found.
            padding = (0, depth - len(found))
            total += np.pad(np.cumsum(found), padding, "edge" if found else "constant") / len(relevant)
    curve: list[float] = (total / max(len(qrels), 1)).tolist()
    return curve


def recall_plot(evaluation: Evaluation, depth: int = 100) -> str:
    """Recall against the number of documents, one line a mode, as SVG."""
    curves = {
        name: recall_curve(result.run, evaluation.qrels, depth) for name, result in evaluation.modes.items()
    }
    # Curves that all lie high need the room; where the axis begins stands at it.
    low = min(math.floor(min(map(min, curves.values())) * 10) / 10, 0.9)
    # The first ranks matter most: they get the room, on a logarithmic axis.
    x = [MARGIN + (WIDTH - 2 * MARGIN) * np.log(rank) / np.log(depth) for rank in range(1, depth + 1)]
    ticks = [low, (low + 1) / 2, 1]
    lines = [_axes(["1", "10", "100"], ticks, [f"{tick:g}" for tick in ticks], "documents", "recall", low)]
    for at, (name, curve) in enumerate(curves.items()):
        points = " ".join(f"{left:.1f},{_y(value, low, 1):.1f}" for left, value in zip(x, curve, strict=True))
        series, colour = f"s{at % len(COLOURS)}", COLOURS[at % len(COLOURS)]
        lines.append(
            f'<polyline class="{series}" fill="none" stroke="{colour}" stroke-width="2" points="{points}"/>'
        )
        place = f'x="{WIDTH - MARGIN - 70 * (len(curves) - 1 - at)}" y="{MARGIN - 18}" text-anchor="end"'
        lines.append(f'<text class="{series}" {place} fill="{colour}">{html.escape(name)}</text>')
    return _svg("Recall by depth", lines)


def delta_plot(before: ModeResult, after: ModeResult, measure: str = "ndcg@10") -> str:
    """The difference of each query, sorted, as SVG bars."""
    deltas = np.sort(after.values[measure] - before.values[measure])[::-1]
    step = (WIDTH - 2 * MARGIN) / max(len(deltas), 1)
    lines = [
        _axes([], [-1, 0, 1], ["−1", "0", "1"], f"{len(deltas):,} queries", f"difference of {measure}", -1)
    ]
    for at, delta in enumerate(deltas.tolist()):
        if delta:
            top, bottom = sorted((_y(delta, -1, 1), _y(0, -1, 1)))
            box = f'x="{MARGIN + at * step:.2f}" y="{top:.1f}" width="{max(step, 0.5):.2f}" height="{bottom - top:.1f}"'
            series = 0 if delta > 0 else 1
            lines.append(f'<rect class="s{series}" {box} fill="{COLOURS[series]}"/>')
    return _svg(f"Difference of {measure}, query by query", lines)


def _y(value: float, low: float, high: float) -> float:
    return HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (value - low) / (high - low)


def _axes(
    x_labels: Sequence[str],
    ticks: Sequence[float],
    labels: Sequence[str],
    x_title: str,
    y_title: str,
    low: float,
) -> str:
    parts = []
    for tick, label in zip(ticks, labels, strict=True):
        y = _y(tick, low, 1)
        line = f'x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="{y:.1f}" y2="{y:.1f}"'
        parts.append(f'<line {line} stroke="currentColor" stroke-opacity=".25"/>')
        parts.append(f'<text x="{MARGIN - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    for at, label in enumerate(x_labels):
        x = MARGIN + (WIDTH - 2 * MARGIN) * at / max(len(x_labels) - 1, 1)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - MARGIN + 18}" text-anchor="middle">{label}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 6}" text-anchor="middle">{x_title}</text>')
    parts.append(f'<text x="{MARGIN}" y="{MARGIN - 18}">{y_title}</text>')
    return "".join(parts)


def _svg(title: str, parts: Sequence[str]) -> str:
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" font-size="13" font-family="system-ui,sans-serif"'
    name = html.escape(title)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" fill="currentColor" {box}><title>{name}</title>'
        f"{''.join(parts)}</svg>"
    )
