"""Quality gates: the new snapshot is searched and measured before it is published.

The candidate index is a copy of the published one, brought to the part files that the commit would make active. So
what the gates see is exactly what users would get.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from pipeline.config.run_config import GateConfig, GatesConfig, RunConfig
from pipeline.errors import GateFailed
from pipeline.evaluation.evaluate import evaluate_index
from pipeline.report.run_json import GateResult
from pipeline.report.run_report import RunReport
from pipeline.run.changes import Changes
from pipeline.run.plan import PlannedRun
from pipeline.table.delta import active_parts
from transforms.index.snapshot import Snapshot
from transforms.index.update import update_index
from transforms.records import Failure, PartFile


def check_gates(
    config: RunConfig,
    base: DeltaTable | None,
    description: dict[str, Any],
    added: Sequence[PartFile],
    removed: Sequence[str],
    ratios: dict[str, float],
) -> list[GateResult]:
    """Measure the new snapshot.

    Args:
        config: the run config.
        base: the published table; None when there is none.
        description: of the table that the commit would publish.
        added: part files that the commit would add.
        removed: part files that it would remove.
        ratios: the run's own measures, ``failures`` and ``truncated``.
    """
    gates = config.gates
    retrieval = [name for name in gates.measures if name not in ratios]
    values, published = dict(ratios), {}
    if retrieval:
        with_base = base is not None and any(gates.measures[name].max_drop is not None for name in retrieval)
        values |= _measure_candidate(config, base, description, added, removed)
        published = _measure_published(config, base) if with_base else {}
    return [
        GateResult(
            name,
            values[name],
            published.get(name),
            _problems(name, bounds, values[name], published.get(name)),
        )
        for name, bounds in gates.measures.items()
    ]


def require_gates(results: Sequence[GateResult]) -> None:
    """Stop the run when a gate has failed.

    Raises:
        GateFailed: with every bound that is broken.
    """
    problems = [problem for result in results for problem in result.problems]
    if problems:
        lines = "".join(f"\n  - {problem}" for problem in problems)
        raise GateFailed(
            f"{len(problems)} quality gate{'s' * (len(problems) > 1)} failed; the published table and index are as "
            f"they were, and the finished parts are kept for the next run{lines}"
        )


def _problems(name: str, bounds: GateConfig, value: float, published: float | None) -> tuple[str, ...]:
    problems = []
    if bounds.min is not None and value < bounds.min:
        problems.append(f"{name} is {value:.4f}, below min [{bounds.min}]")
    if bounds.max is not None and value > bounds.max:
        problems.append(f"{name} is {value:.4f}, above max [{bounds.max}]")
    if bounds.max_ratio is not None and value > bounds.max_ratio:
        problems.append(f"{name} is {value:.4f}, above max_ratio [{bounds.max_ratio}]")
    if bounds.max_drop is not None and published is not None and published - value > bounds.max_drop:
        drop = published - value
        problems.append(
            f"{name} dropped by {drop:.4f} from {published:.4f} to {value:.4f}, more than max_drop [{bounds.max_drop}]"
        )
    return tuple(problems)


def _measure_candidate(
    config: RunConfig,
    base: DeltaTable | None,
    description: dict[str, Any],
    added: Sequence[PartFile],
    removed: Sequence[str],
) -> dict[str, float]:
    """Measure the snapshot that the commit would publish."""
    gone = set(removed)
    kept = [part for part in active_parts(base) if part not in gone] if base is not None else []
    table_id = str(base.metadata().id) if base is not None else "candidate"
    version = base.version() + 1 if base is not None else 0
    parts = (*kept, *(part.path for part in added))
    snapshot = Snapshot(config.table.path, table_id, version, parts, description)
    published = Path(config.index.path) if config.index is not None else None
    candidate = (
        published.with_name(f"{published.name}.candidate") if published else _folder_beside_table(config)
    )
    shutil.rmtree(candidate, ignore_errors=True)
    try:
        if published is not None and published.exists():
            shutil.copytree(published, candidate)
        update_index(config.table.path, str(candidate), snapshot=snapshot)
        return _evaluate(config.gates, candidate)
    finally:
        shutil.rmtree(candidate, ignore_errors=True)


def _measure_published(config: RunConfig, base: DeltaTable | None) -> dict[str, float]:
    """Measure the published snapshot, with an index that certainly shows it."""
    if base is None or config.index is None:
        return {}
    update_index(config.table.path, config.index.path)
    return _evaluate(config.gates, Path(config.index.path))


def _folder_beside_table(config: RunConfig) -> Path:
    run_json = config.run_json
    return (run_json.parent if run_json else Path(config.failures.path)) / "index.candidate"


def _evaluate(gates: GatesConfig, index: Path) -> dict[str, float]:
    assert gates.queries is not None
    assert gates.qrels is not None
    measured: Any = evaluate_index(
        str(index), gates.queries, gates.qrels, modes=[gates.mode], field=gates.field
    )
    values: dict[str, float] = measured[gates.mode]
    return values


def pass_gates(planned: PlannedRun, changes: Changes, failures: list[Failure], report: RunReport) -> None:
    """Measure the new snapshot before it is published.

    Raises:
        GateFailed: a measure is out of its bounds.
    """
    config = planned.resolved.config
    if not config.gates.measures:
        return
    with report.stage("gates"):
        ratios = {
            "failures": len(failures) / max(planned.plan.documents + len(planned.plan.unreadable), 1),
            "truncated": report.summary.truncated / max(report.summary.chunks, 1),
        }
        description = json.loads(planned.resolved.layout.description)
        results = check_gates(config, planned.base, description, changes.added, changes.removed, ratios)
    report.add(gates=tuple(results))
    require_gates(results)
