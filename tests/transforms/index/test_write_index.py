"""The index shows exactly what the table shows, however it got there."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.index_table import IndexTable

from pipeline.search.open_index import SearchIndex
from pipeline.search.search import search
from transforms.index.manifest import make_manifest
from transforms.index.sparse_terms import bit_terms
from transforms.index.state import IndexState, IndexUnusable
from transforms.index.tantivy_schema import open_tantivy, spaced
from transforms.index.update import update_index
from transforms.index.verify import verify_index

MODES = ("bm25", "sparse", "dense", "hybrid")


def document(number: int, text: str | None = None) -> dict[str, object]:
    lines = [f"The {word} number {number} walks home." for word in ("heron", "otter", "badger")]
    return {
        "_id": f"d{number}",
        "text": text or "\n".join([*lines, f"Only this one says unique{number}."]),
        "title": f"About {number}",
        "year": 2000 + number % 10,
        "genre": "ab"[number % 2],
        "open": number % 3 == 0,
        "day": f"2024-01-{1 + number % 28:02d}",
    }


@pytest.fixture
def table(tmp_path: Path) -> IndexTable:
    table = IndexTable(tmp_path / "table")
    table.put(*[document(number) for number in range(30)])
    return table


@pytest.fixture
def index(tmp_path: Path) -> str:
    return str(tmp_path / "index")


def shown(index: str) -> dict[str, list[tuple[str, float]]]:
    """Everything that sparse and dense search shows for some queries."""
    opened = SearchIndex(index)
    found = {}
    for mode in ("sparse", "dense"):
        for query in ("unique7 walks", "otter", "the badger number 12"):
            hits = search(opened, query, mode=mode, k=1000)
            found[f"{mode} {query}"] = sorted((hit.id, round(hit.score, 6)) for hit in hits)
    return found


def test_builds_then_has_nothing_to_do(table: IndexTable, index: str) -> None:
    first = update_index(table.path, index)
    again = update_index(table.path, index)
    assert (first.table_version, first.documents, first.added, first.rebuilt) == (
        1,
        30,
        30,
        "no usable index",
    )
    assert first.chunks == 30 * 4 + 30  # four lines each, and the titles
    assert (again.generation, again.added, again.deleted, again.rebuilt) == (first.generation, 0, 0, "")


def test_catches_up_by_reading_only_what_changed(table: IndexTable, index: str) -> None:
    update_index(table.path, index)
    table.put(document(3, "Entirely new words: zebra crossing."), document(99), delete=("d5",))
    report = update_index(table.path, index)
    # The part was rewritten with its other 28 rows, which are recognised and kept.
    assert (report.added, report.deleted, report.documents, report.rebuilt) == (2, 2, 30, "")
    assert search(index, "zebra", mode="bm25")[0].id == "d3"
    assert search(index, "unique99", mode="bm25")[0].id == "d99"


@pytest.mark.parametrize("mode", MODES)
def test_deleted_documents_are_gone_from_every_mode(table: IndexTable, index: str, mode: str) -> None:
    update_index(table.path, index)
    assert "d7" in {hit.id for hit in search(index, "unique7", mode=mode, k=30)}
    table.put(delete=("d7",))
    update_index(table.path, index)
    assert {hit.id for hit in search(index, "unique7", mode=mode, k=1000)} <= {f"d{n}" for n in range(30)} - {
        "d7"
    }


@pytest.mark.parametrize("mode", MODES)
def test_replaced_documents_show_only_their_new_text(table: IndexTable, index: str, mode: str) -> None:
    update_index(table.path, index)
    table.put(document(7, "Nothing of what it said."))
    update_index(table.path, index)
    hits = search(index, "unique7 otter", mode=mode, k=1000)
    assert [hit.chunk.text for hit in hits if hit.id == "d7"] in ([], ["Nothing of what it said."])
    assert search(index, "nothing said", mode=mode)[0].id == "d7"


def test_any_path_to_a_version_shows_the_same(table: IndexTable, index: str, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    for step in range(6):
        chosen = random.choice(40, size=8, replace=False).tolist()
        new = [
            document(number, f"Changed in step {step}: unique{number} walks.\nSecond line.")
            for number in chosen[:4]
        ]
        table.put(*new, delete=tuple(f"d{number}" for number in chosen[4:]))
        update_index(table.path, index)
        fresh = str(tmp_path / f"fresh{step}")
        update_index(table.path, fresh)
        assert shown(index) == shown(fresh)


def test_an_older_version_can_be_shown_again(table: IndexTable, index: str) -> None:
    from deltalake import DeltaTable

    update_index(table.path, index)
    before = shown(index)
    table.put(document(3, "zebra"), delete=("d1", "d2"))
    update_index(table.path, index)
    assert shown(index) != before
    DeltaTable(table.path).restore(1)
    report = update_index(table.path, index)
    assert report.table_version == 3
    assert shown(index) == before


def test_many_deletions_compact_the_index(table: IndexTable, index: str) -> None:
    first = update_index(table.path, index)
    table.put(delete=tuple(f"d{number}" for number in range(20)))
    report = update_index(table.path, index)
    assert report.rebuilt == "compaction"
    assert report.bytes < first.bytes
    state = IndexState.load(index)
    assert state is not None
    assert state.rows == state.documents == 10


def test_several_processes_build_the_same_index(
    table: IndexTable, index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transforms.index.update.PROCESS_ROWS", 10)
    table.put(*[document(number) for number in range(100, 120)])
    update_index(table.path, index, workers=3)
    update_index(table.path, str(tmp_path / "one"), workers=1)
    assert shown(index) == shown(str(tmp_path / "one"))
    for query in ("unique7", "otter"):
        pairs = [
            [(hit.id, hit.score) for hit in search(path, query, mode="bm25", k=60)]
            for path in (index, str(tmp_path / "one"))
        ]
        assert (
            pairs[0] == pytest.approx(pairs[1])
            if not pairs[0]
            else dict(pairs[0]) == pytest.approx(dict(pairs[1]))
        )


def test_fields_with_different_chunks_get_units_of_their_own(tmp_path: Path, index: str) -> None:
    table = IndexTable(tmp_path / "table", chunking={"text_dense": "none"})
    table.put(*[document(number) for number in range(5)])
    update_index(table.path, index)
    state = IndexState.load(index)
    assert state is not None
    assert [unit.fields for unit in state.units] == [["text_sparse"], ["text_dense"], []]
    assert "\n" in search(index, "otter", mode="dense")[0].chunk.text
    assert "\n" not in search(index, "otter", mode="sparse")[0].chunk.text


def test_an_embedding_change_rebuilds(table: IndexTable, index: str) -> None:
    update_index(table.path, index)
    state = IndexState.load(index)
    assert state is not None
    state.metadata["fields"]["text_dense"]["embedding_fingerprint"] = "0000"
    state.save(index)
    table.put(document(50))
    assert update_index(table.path, index).rebuilt == "the mapping or an endpoint changed"


def test_an_empty_table_is_an_empty_index(tmp_path: Path, table: IndexTable, index: str) -> None:
    update_index(table.path, index)
    table.put(delete=tuple(f"d{number}" for number in range(30)))
    report = update_index(table.path, index)
    assert (report.documents, report.chunks) == (0, 0)
    assert search(index, "otter", mode="hybrid") == []
    table.put(document(1))
    update_index(table.path, index)
    assert [hit.id for hit in search(index, "otter", mode="hybrid")] == ["d1"]


def test_documents_without_text_are_no_trouble(table: IndexTable, index: str) -> None:
    table.put({"_id": "empty", "title": "bare"}, {"_id": "nothing"})
    report = update_index(table.path, index)
    assert report.documents == 32
    assert search(index, "bare", mode="bm25", field="title")[0].id == "empty"


def test_chunk_texts_are_slices_by_utf16_offsets(table: IndexTable, index: str) -> None:
    text = "Grüße 😀 aus Köln.\n日本語の文章 𝒳.\nplain"
    table.put(document(7, text))
    update_index(table.path, index)
    chunk = search(index, "日本語の文章", mode="bm25", field="text")[0].chunk
    units = text.encode("utf-16-le")
    assert chunk.text == units[2 * chunk.start_offset : 2 * chunk.end_offset].decode("utf-16-le")
    assert chunk.text == "日本語の文章 𝒳."


def test_a_search_goes_on_while_the_index_is_updated(table: IndexTable, index: str) -> None:
    update_index(table.path, index)
    opened = SearchIndex(index)
    before = [(hit.id, hit.chunk.text) for hit in search(opened, "otter unique7", mode="hybrid", k=30)]
    table.put(document(7, "zebra"), delete=("d8",))
    update_index(table.path, index, rebuild=True)
    assert [
        (hit.id, hit.chunk.text) for hit in search(opened, "otter unique7", mode="hybrid", k=30)
    ] == before
    assert "d8" not in {hit.id for hit in search(index, "otter unique7", mode="hybrid", k=30)}


def test_two_updates_at_once_are_refused(table: IndexTable, index: str) -> None:
    import fcntl

    update_index(table.path, index)
    with (Path(index) / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(IndexUnusable, match="another process is updating the index"):
            update_index(table.path, index)


def test_a_broken_state_is_rebuilt_and_missing_files_too(table: IndexTable, index: str) -> None:
    update_index(table.path, index)
    (Path(index) / "index.json").write_text("{")
    assert update_index(table.path, index).rebuilt == "no usable index"
    state = IndexState.load(index)
    assert state is not None
    os.unlink(Path(index) / state.vectors_path("text_dense"))
    assert update_index(table.path, index).rebuilt.endswith("is missing")
    assert search(index, "unique7", mode="dense")[0].id == "d7"


def test_another_table_at_the_same_path_rebuilds(table: IndexTable, index: str, tmp_path: Path) -> None:
    update_index(table.path, index)
    shutil.rmtree(table.path)
    other = IndexTable(Path(table.path))
    other.put(document(1, "zebra"))
    assert update_index(other.path, index).rebuilt == "another table"
    assert [hit.id for hit in search(index, "zebra otter", mode="hybrid")] == ["d1"]


def test_no_table_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(IndexUnusable, match=r"nothing. has no table yet; `run` makes it"):
        update_index(str(tmp_path / "nothing"), str(tmp_path / "index"))


def test_the_state_file_names_the_format(table: IndexTable, index: str) -> None:
    update_index(table.path, index)
    path = Path(index) / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    with pytest.raises(IndexUnusable, match="format 99"):
        IndexState.load(index)


def test_terms_of_a_weight_are_its_bits() -> None:
    vocabulary = ["sack", "two words"]
    terms, counts = bit_terms(vocabulary, np.array([0b1010, 0, 0b1, 0b100000000]), np.array([0, 1, 1, 0]))
    assert terms.to_pylist() == ["sack#1", "sack#3", "two%20;words#0", "sack#8"]
    assert counts.tolist() == [2, 0, 1, 1]


def test_scripts_without_blanks_become_pairs() -> None:
    assert spaced("我们去 ok").split() == ["我们", "们去", "ok"]
    assert spaced("plain text") == "plain text"


def test_verify_finds_nothing_wrong_and_says_what_is(table: IndexTable, index: str) -> None:
    update_index(table.path, index)
    assert verify_index(table.path, index) == []
    state = IndexState.load(index)
    assert state is not None
    vectors = np.memmap(Path(index) / state.vectors_path("text_dense"), "<f4", "r+")
    vectors[7] += 1
    vectors.flush()
    assert verify_index(table.path, index) == [f"the file {state.vectors_path('text_dense')} is damaged"]
    state.manifest = make_manifest(Path(index), state, None)
    state.save(index)  # as if the wrong vector had been written
    assert [problem.split(" have ")[1] for problem in verify_index(table.path, index)] == [
        "other embeddings in [text_dense] than in the table"
    ]
    table.put(document(3, "zebra"))
    assert "the index shows version 1, the table is at 2" in verify_index(table.path, index)
    update_index(table.path, index, rebuild=True)
    assert verify_index(table.path, index) == []


def test_verify_holds_after_every_kind_of_change(table: IndexTable, index: str) -> None:
    for step in range(5):
        table.put(document(step, f"New text {step}."), delete=(f"d{20 + step}",))
        update_index(table.path, index)
        assert verify_index(table.path, index) == []


def test_verify_counts_what_tantivy_holds(table: IndexTable, index: str) -> None:
    update_index(table.path, index)
    state = IndexState.load(index)
    assert state is not None
    unit = state.units[0]
    opened = open_tantivy(Path(index) / state.generation / unit.name, unit.analyzer)
    writer = opened.writer()
    writer.delete_all_documents()
    writer.commit()
    state.manifest = make_manifest(Path(index), state, None)
    state.save(index)
    assert verify_index(table.path, index) == ["tantivy holds 0 chunks of text_sparse, text_dense, not 120"]


def test_weights_above_the_first_largest_get_more_bits(table: IndexTable, index: str) -> None:
    """The scale is set by the first build; a heavier weight later is not cut off."""
    update_index(table.path, index)
    state = IndexState.load(index)
    assert state is not None
    state.fields["text_sparse"].step /= 8  # as if the first build had seen only light weights
    state.save(index)
    table.put(document(77, "heavy heavy heavy heavy"))
    update_index(table.path, index)
    caught_up = IndexState.load(index)
    assert caught_up is not None
    assert caught_up.fields["text_sparse"].bits > 8
    hit = search(index, "heavy", mode="sparse", k=1, explain=True)[0]
    (match,) = next(iter(hit.explanation.values()))
    assert hit.id == "d77"
    assert match.chunk_weight == pytest.approx(1.9, rel=0.2)
