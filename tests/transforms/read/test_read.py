"""Reading: every format, and everything that can be wrong with a file."""

import gzip
import json
import os
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.run_config import SourceConfig
from transforms import files
from transforms.read.documents import read_documents
from transforms.read.formats import FORMATS
from transforms.read.rows.readers import SourceFormat
from transforms.read.splits import list_source
from transforms.records import Document, Failure, Split

JSONL = SourceFormat("jsonl", "_id", 1_000_000)


def list_pieces(paths, format="jsonl", split_bytes=1 << 20):
    """The pieces of all splits."""
    return [piece for split in list_source(paths, format, split_bytes).splits for piece in split.pieces]


def read_all(path, source=JSONL, split_bytes=1 << 25):
    """All documents and failures of a path."""
    found = []
    for piece in list_pieces([str(path)], source.format, split_bytes):
        found += [one for _, one in read_documents(piece, source) if one is not None]
    return found


def write_lines(path: Path, lines) -> Path:
    path.write_bytes(
        b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines) + b"\n"
    )
    return path


def test_a_document_has_its_id_fields_hash_and_line(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"_id": "1", "text": "one"}, b"", {"_id": 2, "text": "two"}])
    first, second = read_all(path)
    assert (first.id, first.source, first.location) == ("1", {"text": "one"}, (str(path), 1))
    assert (second.id, second.location.line) == ("2", 3)


def test_equal_content_has_an_equal_hash_whatever_the_order_of_keys(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"_id": "1", "a": 1, "b": 2}, {"b": 2, "_id": "2", "a": 1}])
    first, second = read_all(path)
    assert first.content_hash == second.content_hash


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"_id": "1", "text": ', "not valid JSON"),
        (b'{"_id": "1", "text": "\xff"}', "not valid UTF-8"),
        (b'["_id"]', "holds a JSON list, not an object"),
        (b'{"text": "no id"}', "the id field [_id] is missing"),
        (b'{"_id": "", "text": "x"}', "the id field [_id] is empty"),
        (b'{"_id": true, "text": "x"}', "is a bool, not a string or number"),
        (b'{"_id": {"a": 1}}', "is a dict, not a string or number"),
        (b"{}", "the document is empty"),
        (b'{"_id": "' + b"x" * 513 + b'"}', "the id is too long: 513 bytes, at most 512"),
    ],
)
def test_a_bad_line_costs_itself(tmp_path, line, message):
    path = write_lines(tmp_path / "a.jsonl", [{"_id": "before"}, line, {"_id": "after"}])
    before, failure, after = read_all(path)
    assert (before.id, after.id) == ("before", "after")
    assert isinstance(failure, Failure)
    assert message in failure.message
    assert (failure.stage, failure.path, failure.line) == ("read", str(path), 2)


def test_a_line_that_is_too_long_costs_itself(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"_id": "1", "text": "x" * 5000}, {"_id": "2"}])
    failure, document = read_all(path, SourceFormat("jsonl", "_id", 1000))
    assert "longer than source.max_document_bytes [1000]" in failure.message
    assert document.id == "2"


def test_without_an_id_field_the_id_comes_from_the_content(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"text": "one"}, {"text": "one"}, {"text": "two"}])
    ids = [document.id for document in read_all(path, SourceFormat("jsonl", None, 1000))]
    assert ids[0] == ids[1] != ids[2]


def pack(content: bytes, ending: str) -> bytes:
    return gzip.compress(content) if ending == ".gz" else pa.compress(content, codec="zstd", asbytes=True)


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_compressed_lines_read_like_plain_ones(tmp_path, ending):
    path = tmp_path / f"a.jsonl{ending}"
    path.write_bytes(pack(b'{"_id": "1", "text": "one"}\n{"_id": "2"}', ending))
    assert [document.id for document in read_all(path)] == ["1", "2"]


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_damaged_archive_is_one_failure_behind_the_good_lines(tmp_path, ending):
    lines = b"".join(b'{"_id": "%d", "text": "%d"}\n' % (number, number * 7919) for number in range(5000))
    packed = pack(lines, ending)
    path = tmp_path / f"a.jsonl{ending}"
    path.write_bytes(packed[: len(packed) // 2])
    found = read_all(path)
    assert isinstance(found[-1], Failure)
    assert all(isinstance(one, Document) for one in found[:-1])


@given(
    lines=st.lists(st.text(alphabet="ab ü\r", max_size=30), max_size=20),
    split_bytes=st.integers(1, 200),
    final_newline=st.booleans(),
)
def test_any_way_to_split_a_file_reads_each_line_once(tmp_path_factory, lines, split_bytes, final_newline):
    path = tmp_path_factory.mktemp("split") / "a.jsonl"
    documents = [json.dumps({"_id": str(number), "text": text}) for number, text in enumerate(lines)]
    path.write_bytes(("\n".join(documents) + ("\n" if final_newline and documents else "")).encode())
    assert [document.id for document in read_all(path, split_bytes=split_bytes)] == [
        str(n) for n in range(len(lines))
    ]


def test_parquet_rows_become_json_values(tmp_path):
    table = pa.table({"_id": [1, 2], "when": pa.array([0, None], pa.timestamp("s")), "tags": [["a"], None]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1)
    documents = read_all(tmp_path / "a.parquet", SourceFormat("parquet", "_id", 1000), split_bytes=1)
    assert [document.source for document in documents] == [
        {"when": "1970-01-01T00:00:00", "tags": ["a"]},
        {"when": None, "tags": None},
    ]


def test_parquet_bytes_are_base64(tmp_path):
    pq.write_table(pa.table({"_id": ["1"], "raw": [b"\x00\xff"]}), tmp_path / "a.parquet")
    (document,) = read_all(tmp_path / "a.parquet", SourceFormat("parquet", "_id", 1000))
    assert document.source == {"raw": "AP8="}


def test_csv_rows_may_span_lines_and_a_bad_row_costs_itself(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbf_id,text\n1,"one\nline"\n2\n3,\xff\n4,four\n')
    first, short, invalid, last = read_all(path, SourceFormat("csv", "_id", 1000))
    assert first.source == {"text": "one\nline"}
    assert "1 fields, the header has 2" in short.message
    assert short.line == 4
    assert "not valid in the file's encoding" in invalid.message
    assert last.id == "4"


def test_a_folder_gives_the_files_of_its_format_and_names_relative_to_it(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.md").write_text("# A title #\n\nText.")
    (tmp_path / "a.markdown").write_text("No heading.")
    (tmp_path / "ignored.txt").write_text("no")
    (tmp_path / ".hidden.md").write_text("no")
    documents = read_all(tmp_path, SourceFormat("markdown", "_id", 1000))
    assert [(document.id, document.source["title"]) for document in documents] == [
        ("a.markdown", "a"),
        ("sub/b.md", "A title"),
    ]


def test_text_that_is_not_utf8_is_a_failure_of_the_file(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"abc\xff")
    (failure,) = read_all(tmp_path, SourceFormat("text", "_id", 1000))
    assert (failure.line, failure.message) == (0, "the file is not valid UTF-8: byte 3; convert it to UTF-8")


def test_a_path_that_matches_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"matches no jsonl file"):
        list_pieces([str(tmp_path / "*.jsonl")], "jsonl", 1000)


def test_a_line_in_another_encoding_names_its_byte(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", ['{"_id": 1, "text": "café"}'.encode("latin-1"), {"_id": 2}])
    failure, document = read_all(path)
    assert failure.message == "the line is not valid UTF-8: byte 0xe9 at column 24; convert the file to UTF-8"
    assert document.id == "2"


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.jsonl", ["a.jsonl"]),
        ("**/*.jsonl", ["a.jsonl", "sub/b.jsonl", "sub/deep/c.jsonl"]),
        ("**", ["a.jsonl", "notes.md", "sub/b.jsonl", "sub/deep/c.jsonl"]),
        ("*/*.jsonl", ["sub/b.jsonl"]),
        ("sub/**/*.jsonl", ["sub/b.jsonl", "sub/deep/c.jsonl"]),
        ("?.jsonl", ["a.jsonl"]),
        ("[b-z].jsonl", []),
        ("sub/b.jsonl", ["sub/b.jsonl"]),
        ("sub", []),
        ("none/*.jsonl", []),
    ],
)
def test_globs(tmp_path, monkeypatch, pattern, names):
    for name in ("a.jsonl", "notes.md", "sub/b.jsonl", "sub/deep/c.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert files.find_files(f"{tmp_path}/{pattern}")[1] == [(f"{tmp_path}/{name}", 2) for name in names]
    monkeypatch.chdir(tmp_path)
    assert [path for path, _ in files.find_files(pattern)[1]] == names


@pytest.mark.parametrize("pattern", ["", "/**/*.jsonl", "/*/*.jsonl"])
def test_a_folder_that_cannot_be_read_is_an_error_and_no_deletion(tmp_path, monkeypatch, pattern):
    write_lines(tmp_path / "a.jsonl", [{"_id": 1}])
    (tmp_path / "sub").mkdir()
    write_lines(tmp_path / "sub" / "b.jsonl", [{"_id": 2}])
    real = os.scandir

    def refuse(folder):
        if str(folder).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(folder))
        return real(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match=r"Permission denied: .*sub"):
        list_pieces([f"{tmp_path}{pattern}"], "jsonl", 1 << 20)
    assert len(list_pieces([f"{tmp_path}/*.jsonl"], "jsonl", 1 << 20)) == 1  # nothing below can match


def test_hidden_folders_of_a_source_folder_are_not_even_looked_into(tmp_path, monkeypatch):
    write_lines(tmp_path / "a.jsonl", [{"_id": 1}])
    (tmp_path / ".trash").mkdir()
    real = os.scandir

    def refuse(folder):
        if str(folder).endswith(".trash"):
            raise PermissionError(13, "Permission denied", str(folder))
        return real(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    assert len(list_pieces([str(tmp_path)], "jsonl", 1 << 20)) == 1


def test_a_glob_and_a_list_of_paths_keep_source_order(tmp_path):
    for name in ("b", "a", "c"):
        write_lines(tmp_path / f"{name}.jsonl", [{"_id": name}])
    splits = list_source([str(tmp_path / "c.jsonl"), str(tmp_path / "*.jsonl")], "jsonl", 1000).splits
    assert [Path(split.pieces[0].path).stem for split in splits] == ["c", "a", "b"]
    assert [split.index for split in splits] == [0, 1, 2]
    assert all(isinstance(split, Split) for split in splits)


def test_a_document_of_50_megabytes_is_read(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"_id": "1", "text": "word " * 10_000_000}, {"_id": "2"}])
    first, second = read_all(path, SourceFormat("jsonl", "_id", 100 * 1024 * 1024))
    assert len(first.source["text"]) == 50_000_000
    assert second.id == "2"


def test_every_format_that_a_config_can_name_has_a_reader():
    assert set(get_args(SourceConfig.model_fields["format"].annotation)) == set(FORMATS)


@pytest.mark.parametrize("long", ["x" * 5_000, "x," * 3_000, '"' + "x\n" * 3_000 + 'x"', '"x' * 3_000])
def test_a_csv_row_without_end_costs_itself_and_no_memory(tmp_path, long):
    path = tmp_path / "a.csv.gz"
    text = f"_id,text\n1,one\n2,{long}\n3,three\n"
    path.write_bytes(gzip.compress(text.encode()))
    found = read_all(path, SourceFormat("csv", "_id", 1000))
    read = [one.id for one in found if isinstance(one, Document)]
    assert read[0] == "1"
    assert read[-1] == "3"
    assert any(
        "longer than source.max_document_bytes [1000]" in one.message
        for one in found
        if isinstance(one, Failure)
    )


def test_a_csv_header_without_end_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("_id," + "x," * 3_000 + "\n1,2\n")
    (failure,) = read_all(path, SourceFormat("csv", "_id", 1000))
    assert "the header is not valid CSV: it is longer than" in failure.message
