"""A folder of documents of every kind goes through the front door, and what changes there changes in the table."""

import gzip
import shutil

import pytest
from support.known_documents import WRITERS, known_document, zipped
from support.small_run import SmallRun

from transforms.read import folder
from transforms.read.extract import library

MAPPING = {
    "properties": {
        "title": {"type": "text"},
        "content_type": {"type": "keyword"},
        "pages": {"type": "integer"},
        "text": {"type": "text", "copy_to": ["dense"]},
        "dense": {
            "type": "semantic_text",
            "inference_id": ".hashing-dense",
            "chunking_settings": {
                "strategy": "recursive",
                "max_chunk_size": 40,
                "separator_group": "markdown",
            },
        },
    }
}


@pytest.fixture
def documents(tmp_path):
    """A run over a folder with one known document of each format, and some more in an archive."""
    root = tmp_path / "docs"
    (root / "deep").mkdir(parents=True)
    for seed, (ending, (_, write)) in enumerate(sorted(WRITERS.items())):
        (root / ("deep" if seed % 2 else ".") / f"{ending}-{seed}.{ending}").write_bytes(
            write(known_document(seed))
        )
    packed = (
        (f"in/{ending}.{ending}", WRITERS[ending][1](known_document(90))) for ending in ("pdf", "docx", "txt")
    )
    (root / "more.zip").write_bytes(zipped(*packed))
    return SmallRun(
        tmp_path,
        source={"format": "files", "path": str(root)},
        mappings=MAPPING,
        table={"path": str(tmp_path / "table")},
    )


def counts(run: SmallRun) -> dict[str, int]:
    return {name: count for name, count in run.summary["documents"].items() if count}


def test_every_format_becomes_rows_with_its_fields(documents, capsys):
    assert documents.run() == 0
    assert counts(documents) == {"added": len(WRITERS) + 3}
    rows = {row["_id"]: row for row in documents.table().to_pylist()}
    assert "more.zip/in/pdf.pdf" in rows
    pdf = next(row for name, row in rows.items() if name.startswith(("pdf", "deep/pdf")))
    assert pdf["content_type"] in ("application/pdf", ["application/pdf"])
    assert pdf["title"] is not None
    assert pdf["dense"]["chunks"]
    extraction = documents.summary["extraction"]
    assert extraction["types"]["pdf"] == 2
    assert extraction["documents"] == len(WRITERS) + 3
    assert extraction["pages"] == 3 + 3 + 4 + 4
    assert "extracted" in capsys.readouterr().out


def test_check_tells_types_and_extracts_the_first_of_each(documents, capsys, monkeypatch):
    (documents.folder / "docs" / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    tried = []
    real = folder.extract_document
    monkeypatch.setattr(
        folder, "extract_document", lambda sketch, pool: tried.append(sketch) or real(sketch, pool)
    )
    assert documents.run(command="check") == 0
    told = capsys.readouterr().out
    assert "2 pdf" in told
    assert "skipped 1 image" in told
    assert len({sketch.content_type for sketch in tried}) == len(tried), "one of each type"


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_field_that_no_file_can_fill_is_an_error(tmp_path, capsys, command):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("some text")
    mapping = {
        "properties": {
            "body": {"type": "text", "copy_to": ["dense"]},
            "dense": MAPPING["properties"]["dense"],
        }
    }
    run = SmallRun(tmp_path, source={"format": "files", "path": str(tmp_path / "docs")}, mappings=mapping)
    assert run.run(command=command) in (1, 2)
    told = capsys.readouterr().err
    assert "no document fills the semantic_text field [dense], which embeds [dense], [body]" in told
    assert "[text]" in told


def test_check_says_that_files_cannot_be_read_where_all_of_a_type_fail(tmp_path, capsys):
    (tmp_path / "docs").mkdir()
    for number in range(5):
        (tmp_path / "docs" / f"{number}.pdf").write_bytes(b"%PDF-1.7 and no more")
        (tmp_path / "docs" / f"{number}.txt").write_text("text" if number else "")
    run = SmallRun(tmp_path, source={"format": "files", "path": str(tmp_path / "docs")}, mappings=MAPPING)
    run.config["failures"]["max_ratio"] = 0.2
    assert run.run(command="check") == 2
    told = capsys.readouterr().err
    assert "5 of the first 10 documents would fail" in told
    assert "0.pdf" in told


def test_unchanged_files_are_not_extracted_again(documents, monkeypatch):
    assert documents.run() == 0
    monkeypatch.setattr(folder, "extract_document", None)  # whoever extracts, fails
    assert documents.run() == 0
    assert counts(documents) == {"unchanged": len(WRITERS) + 3}
    assert documents.summary["extraction"]["documents"] == 0


def test_a_renamed_file_keeps_its_embeddings(documents):
    assert documents.run() == 0
    root = documents.folder / "docs"
    old = next(root.rglob("*.docx"))
    before = documents.rows()[str(old.relative_to(root))]
    old.rename(root / "renamed.docx")
    assert documents.run() == 0
    assert counts(documents) == {"added": 1, "deleted": 1, "unchanged": len(WRITERS) + 2}
    assert documents.summary["embedded"] == 0
    assert documents.summary["reused"] > 0
    assert documents.rows()["renamed.docx"]["dense"] == before["dense"]


def test_what_leaves_a_folder_or_an_archive_leaves_the_table(documents):
    assert documents.run() == 0
    root = documents.folder / "docs"
    next(root.rglob("*.html")).unlink()
    (root / "more.zip").write_bytes(zipped(("in/txt.txt", WRITERS["txt"][1](known_document(90)))))
    assert documents.run() == 0
    assert counts(documents) == {"deleted": 3, "unchanged": len(WRITERS)}
    assert {name for name in documents.rows() if name.startswith("more.zip")} == {"more.zip/in/txt.txt"}
    assert documents.run(command="verify") == 0


def test_bad_files_are_failures_with_their_reasons(documents):
    root = documents.folder / "docs"
    (root / "empty.pdf").write_bytes(b"")
    (root / "broken.docx").write_bytes(b"PK\x03\x04 nothing of the kind")
    (root / "cut.pdf").write_bytes(b"%PDF-1.7 and no more")
    (root / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert documents.run() == 0
    assert documents.summary["documents"]["failed"] == 3
    assert documents.summary["extraction"]["skipped"] == {"image": 1}
    reasons = next((documents.folder / "failures").iterdir()).read_text()
    assert "the file is empty" in reasons
    assert "the document cannot be read" in reasons
    assert str(root / "cut.pdf") in reasons


def test_a_new_library_extracts_again_and_embeds_nothing(documents, monkeypatch, capsys):
    assert documents.run() == 0
    before = library.library_version()
    monkeypatch.setattr("transforms.read.extract.library.library_version", lambda: "xberg 99.0")
    folder._key.cache_clear()
    try:
        assert documents.run() == 0
    finally:
        folder._key.cache_clear()
    plain = 3  # text and Markdown pass through no library
    assert counts(documents) == {"changed": len(WRITERS) + 3 - plain, "unchanged": plain}
    assert documents.summary["embedded"] == 0
    assert f"was {before}" in capsys.readouterr().out


def test_a_compressed_file_keeps_its_name(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "notes.md.gz").write_bytes(gzip.compress(b"# Notes\n\nSome text."))
    run = SmallRun(tmp_path, source={"format": "files", "path": str(tmp_path / "docs")}, mappings=MAPPING)
    assert run.run() == 0
    (row,) = run.rows().values()
    assert (row["_id"], '"title":"Notes"' in row["_source"]) == ("notes.md.gz", True)


def test_plan_counts_types_and_changes_nothing(documents, capsys):
    assert documents.run("--no-calibrate", command="plan") == 0
    out = capsys.readouterr().out
    assert "files: 2 pdf" in out
    assert "2 docx" in out
    assert not (documents.folder / "table" / "_delta_log").exists()


def test_a_glob_takes_what_it_names(documents):
    root = documents.folder / "docs"
    shutil.copy(next(root.rglob("*.pdf")), root / "copy.pdf")
    documents.config["source"]["path"] = str(root / "**" / "*.pdf")
    assert documents.run() == 0
    assert counts(documents) == {"added": 2}


def test_hits_say_on_which_page_they_are(documents, capsys):
    from pipeline.search.open_index import SearchIndex
    from pipeline.search.search import search

    assert documents.run() == 0
    with_pages = known_document(sorted(WRITERS).index("pdf"))
    last = with_pages.headings()[-1]
    index = SearchIndex(documents.config["index"]["path"])
    hit = next(
        hit for hit in search(index, last, mode="bm25", k=5) if hit.id.rpartition("/")[2].startswith("pdf")
    )
    assert hit.chunk.page == 3
    assert hit.to_json()["chunk"]["page"] == 3
    assert documents.run(last, "--mode", "bm25", command="search") == 0
    assert "page 3" in capsys.readouterr().out
    plain = search(index, known_document(sorted(WRITERS).index("txt")).title, mode="bm25", k=1)[0]
    assert "page" not in plain.to_json()["chunk"]
