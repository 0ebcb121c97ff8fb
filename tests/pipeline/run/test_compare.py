"""The plan: Arrow arithmetic against the obvious loop, over random sources and tables."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline.run.changes import part_changes
from pipeline.run.compare import Scan, make_plan
from pipeline.table.delta import TableState

IDS = st.sampled_from("abcdef")
HASHES = st.sampled_from("xyz")
FINGERPRINTS = st.sampled_from(["now", "old"])


def make_scan(lines) -> Scan:
    """A scan of (id, hash, deleted) triples; an id of None is an unreadable line."""
    count = len(lines)
    return Scan(
        ids=pa.array([line[0] for line in lines], pa.large_string()),
        content_hashes=pa.array([line[1] for line in lines], pa.large_string()),
        lines=np.arange(count, dtype=np.int64) + 1,
        pieces=np.zeros(count, np.int32),
        deleted=np.array([line[2] for line in lines], bool),
        errors=pa.array([None if line[0] else "BadDocumentError" for line in lines], pa.large_string()),
        messages=pa.array([None if line[0] else "bad" for line in lines], pa.large_string()),
        paths=pa.nulls(count, pa.large_string()),
        stands_for=pa.array([None if line[0] else "document" for line in lines]),
    )


def make_state(rows, rows_in_part=2) -> TableState:
    """A state of (id, hash, fingerprint) triples in parts of two rows."""
    place = np.arange(len(rows))
    return TableState(
        parts=[f"part-{number}" for number in range(-(-len(rows) // rows_in_part))],
        ids=pa.array([row[0] for row in rows], pa.large_string()),
        content_hashes=pa.array([row[1] for row in rows], pa.large_string()),
        fingerprints=pa.array([row[2] for row in rows], pa.string()).dictionary_encode(),
        part=(place // rows_in_part).astype(np.int32),
        row=(place % rows_in_part).astype(np.int64),
    )


def expected_plan(lines, table, finished, full_sync, deletions):
    """The plan by plain loops: (ids to embed, ids taken over, deleted ids, unchanged, held back)."""
    last = {line[0]: line for line in lines if line[0]}
    wanted = {id_: line for id_, line in last.items() if not line[2] and id_ not in deletions}
    current = {row[0]: row for row in table}
    unchanged = {id_ for id_, line in wanted.items() if current.get(id_) == (id_, line[1], "now")}
    taken_over = {
        id_ for id_, line in wanted.items() if id_ not in unchanged and (id_, line[1], "now") in finished
    }
    deleted = {id_ for id_ in current if id_ in deletions or (id_ in last and last[id_][2])}
    missing = {id_ for id_ in current if id_ not in wanted} - deleted
    held_back = len(missing) if full_sync and any(line[0] is None for line in lines) else 0
    if full_sync and not held_back:
        deleted |= missing
    return set(wanted) - unchanged - taken_over, taken_over, deleted, len(unchanged), held_back


@given(
    lines=st.lists(st.tuples(st.one_of(IDS, st.none()), HASHES, st.booleans()), max_size=12),
    table=st.lists(st.tuples(IDS, HASHES, FINGERPRINTS), max_size=6, unique_by=lambda row: row[0]),
    finished=st.lists(st.tuples(IDS, HASHES, FINGERPRINTS), max_size=6),
    full_sync=st.booleans(),
    deletions=st.lists(IDS, max_size=2),
)
def test_the_plan_equals_the_loop(lines, table, finished, full_sync, deletions):
    scan, state, spare = make_scan(lines), make_state(table), make_state(finished)
    plan = make_plan(scan, state, spare, "now", full_sync=full_sync, deletions=deletions)
    work = [lines[row][0] for row in plan.work]
    taken_over = [finished[row][0] for row in plan.taken_over]
    deleted = [table[row][0] for row in plan.deleted]
    assert len(set(work)) == len(work)
    assert len(set(taken_over)) == len(taken_over)
    assert (set(work), set(taken_over), set(deleted), plan.unchanged, plan.held_back) == expected_plan(
        lines, table, finished, full_sync, deletions
    )
    for id_, previous in zip([*work, *taken_over], [*plan.previous, *plan.taken_over_previous], strict=True):
        assert (table[previous][0] == id_) if previous >= 0 else id_ not in {row[0] for row in table}


def test_the_later_of_two_documents_with_one_id_wins():
    plan = make_plan(
        make_scan([("a", "x", False), ("a", "y", False)]),
        make_state([]),
        make_state([]),
        "now",
        full_sync=True,
    )
    assert plan.work.tolist() == [1]
    assert (plan.duplicates, plan.documents) == (1, 1)


@given(
    rows=st.integers(0, 9),
    dropped=st.sets(st.integers(0, 8)),
    rewrite_all=st.booleans(),
)
def test_every_part_is_kept_removed_or_rewritten_without_just_the_dropped_rows(rows, dropped, rewrite_all):
    state = make_state([(str(number), "x", "now") for number in range(rows)], rows_in_part=3)
    dropped = sorted(row for row in dropped if row < rows)
    rewritten = np.arange(rows if rewrite_all else 0)
    changes = part_changes(state, np.array(dropped, np.int64), rewritten)
    rewritten = {rewrite.path: set(rewrite.dropped) for rewrite in changes.rewrites}
    for number, name in enumerate(state.parts):
        members = range(number * 3, min(number * 3 + 3, rows))
        gone = {row - number * 3 for row in members if row in dropped}
        if len(gone) == len(members):
            assert name in changes.removed
        elif gone or rewrite_all:
            assert rewritten[name] == gone
        else:
            assert name in changes.kept
