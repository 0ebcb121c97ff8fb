"""An evaluation as one HTML page with plots: measures by mode, recall curves, per-query differences, worst queries."""

import html
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from pipeline.evaluation.evaluate import MEASURES, Evaluation, ModeResult, shown

COLOURS = ("#0b6e99", "#c4501b", "#3f7d20", "#7a3e9d")
WIDTH, HEIGHT, MARGIN = 640, 320, 48
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f23}"
    "table{border-collapse:collapse}td,th{padding:.3rem .8rem;border-bottom:1px solid #d8dee4;text-align:left}"
    "td.n{text-align:right;font-variant-numeric:tabular-nums}svg{max-width:100%;height:auto}"
)


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
    parts = [
        f"<h1>Retrieval, table version {evaluation.table_version}</h1>",
        f"<p>{len(evaluation.queries)} judged queries; in brackets 95 % confidence intervals."
        f"{_pruned(evaluation)}</p>",
        _measures(evaluation),
        "<h2>Differences between modes</h2>",
        _tests(evaluation),
        "<h2>Recall by depth</h2>",
        recall_plot(evaluation),
    ]
    names = list(evaluation.modes)
    for first, second in pairwise(names):
        parts.append(f"<h2>nDCG@10 query by query: {second} less {first}</h2>")
        parts.append(delta_plot(evaluation.modes[first], evaluation.modes[second]))
    if before is not None:
        for name in [name for name in names if name in before.modes]:
            parts.append(f"<h2>{name}: version {evaluation.table_version} less {before.table_version}</h2>")
            parts.append(delta_plot(before.modes[name], evaluation.modes[name]))
    parts += [f"<h2>Worst queries of {name}</h2>{_worst(evaluation, name)}" for name in names]
    title = f"<meta charset=utf-8><title>Retrieval</title><style>{_STYLE}</style>"
    return f"<!doctype html><html lang=en><head>{title}</head><body>{''.join(parts)}</body></html>\n"


def _pruned(evaluation: Evaluation) -> str:
    """Which tokens sparse queries left out, as a sentence; empty where they left out none."""
    if evaluation.pruning is None:
        return ""
    ratio, weight = evaluation.pruning.tokens_freq_ratio_threshold, evaluation.pruning.tokens_weight_threshold
    return f" Sparse queries leave out tokens by Elasticsearch's rule, at {ratio:g} and {weight:g}."


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    titles = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>"
        + "".join(f"<td{' class=n' if at else ''}>{html.escape(cell)}</td>" for at, cell in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return f"<table><tr>{titles}</tr>{body}</table>"


def _measures(evaluation: Evaluation) -> str:
    rows = []
    for name, result in evaluation.modes.items():
        rows.append([name, *(shown(result.mean(measure), result.interval(measure)) for measure in MEASURES)])
    return _table(["mode", *MEASURES], rows)


def _tests(evaluation: Evaluation) -> str:
    rows = [[f"{b} less {a}", f"{d:+.4f}", f"{p:.4f}"] for a, b, d, p in evaluation.tests("ndcg@10")]
    return _table(["modes", "nDCG@10", "p (paired randomization test)"], rows)


def _worst(evaluation: Evaluation, mode: str, count: int = 10) -> str:
    values = evaluation.modes[mode].values["ndcg@10"]
    queries = list(evaluation.queries.items())
    rows = [
        [queries[at][1], f"{values[at]:.3f}"] for at in np.argsort(values, kind="stable")[:count].tolist()
    ]
    return _table(["query", "nDCG@10"], rows)


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
    # The first ranks matter most: they get the room, on a logarithmic axis.
    x = [MARGIN + (WIDTH - 2 * MARGIN) * np.log(rank) / np.log(depth) for rank in range(1, depth + 1)]
    lines = [
        _axes([f"{rank}" for rank in (1, 10, 100)], [0, 0.5, 1], ["0", "0.5", "1"], "documents", "recall")
    ]
    for at, (name, curve) in enumerate(curves.items()):
        points = " ".join(f"{left:.1f},{_y(value, 0, 1):.1f}" for left, value in zip(x, curve, strict=True))
        colour = COLOURS[at % len(COLOURS)]
        lines.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{points}"/>')
        lines.append(
            f'<text x="{WIDTH - MARGIN - 70}" y="{HEIGHT - MARGIN - 20 - 18 * at}" fill="{colour}">{name}</text>'
        )
    return _svg("Recall by depth", lines)


def delta_plot(before: ModeResult, after: ModeResult, measure: str = "ndcg@10") -> str:
    """The difference of each query, sorted, as SVG bars."""
    deltas = np.sort(after.values[measure] - before.values[measure])[::-1]
    step = (WIDTH - 2 * MARGIN) / max(len(deltas), 1)
    lines = [
        _axes([], [-1, 0, 1], ["-1", "0", "1"], f"{len(deltas)} queries", f"difference of {measure}", low=-1)
    ]
    for at, delta in enumerate(deltas.tolist()):
        if delta:
            top, bottom = sorted((_y(delta, -1, 1), _y(0, -1, 1)))
            box = f'x="{MARGIN + at * step:.2f}" y="{top:.1f}" width="{max(step, 0.5):.2f}" height="{bottom - top:.1f}"'
            lines.append(f'<rect {box} fill="{COLOURS[0] if delta > 0 else COLOURS[1]}"/>')
    return _svg(f"Difference of {measure}, query by query", lines)


def _y(value: float, low: float, high: float) -> float:
    return HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (value - low) / (high - low)


def _axes(
    x_labels: Sequence[str],
    ticks: Sequence[float],
    labels: Sequence[str],
    x_title: str,
    y_title: str,
    low: float = 0,
) -> str:
    parts = []
    for tick, label in zip(ticks, labels, strict=True):
        y = _y(tick, low, 1)
        parts.append(
            f'<line x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="{y:.1f}" y2="{y:.1f}" stroke="#d8dee4"/>'
        )
        parts.append(f'<text x="{MARGIN - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    for at, label in enumerate(x_labels):
        x = MARGIN + (WIDTH - 2 * MARGIN) * at / max(len(x_labels) - 1, 1)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - MARGIN + 18}" text-anchor="middle">{label}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">{x_title}</text>')
    parts.append(f'<text x="{MARGIN}" y="{MARGIN - 18}">{y_title}</text>')
    return "".join(parts)


def _svg(title: str, parts: Sequence[str]) -> str:
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" font-size="13" font-family="system-ui,sans-serif"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {box}><title>{title}</title>{"".join(parts)}</svg>'
