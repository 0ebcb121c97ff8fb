"""Values from outside: every number, type and compression as it was sent, or a failure that says why not."""

import gzip
import io
import json
from datetime import timedelta
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from transforms import exact_json
from transforms.read.documents import read_documents
from transforms.read.formats import FORMATS
from transforms.read.rows.arrow_values import json_values
from transforms.read.rows.readers import SourceFormat
from transforms.read.rows.titles import markdown_title
from transforms.read.splits import list_source
from transforms.records import Document, Failure


def read_all(path, format="jsonl", id="_id", **options):
    """All documents and failures of a path."""
    source = SourceFormat(format, id, 1_000_000, **options)
    splits = list_source([str(path)], format, 1 << 20).splits
    pieces = [piece for split in splits for piece in split.pieces]
    return [found for piece in pieces for _, found in read_documents(piece, source) if found is not None]


NUMBERS = [
    "12345678901234567890123",
    "9007199254740993.0",
    "1e400",
    "-1E-400",
    "0.12345678901234567890",
    "1.5",
    "7",
]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_keeps_its_value(number):
    (found,) = exact_json.loads(f"[{number}]")
    assert Decimal(str(found)) == Decimal(number)
    assert Decimal(exact_json.dumps([found])[1:-1].decode()) == Decimal(number)


@given(st.decimals(allow_nan=False, allow_infinity=False) | st.integers())
def test_any_number_keeps_its_value(number):
    if isinstance(number, Decimal) and abs(number.adjusted()) > 90_000:
        return
    (found,) = exact_json.loads(f"[{number}]")
    assert Decimal(exact_json.dumps([found])[1:-1].decode()) == Decimal(str(number))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(-1e300, 1e300) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_ordinary_json_is_read_as_any_parser_reads_it(value):
    text = json.dumps(value)
    try:
        text.encode("utf-8")
        "\\ud" not in text or text.encode("ascii").decode("unicode_escape").encode("utf-8")
    except UnicodeEncodeError:
        return
    assert exact_json.loads(text) == value


@pytest.mark.parametrize("text", ["NaN", "[1e400, NaN]", "1e9999999", "{"])
def test_what_is_no_json_is_refused(text):
    with pytest.raises(ValueError):
        exact_json.loads(text)


def test_long_ids_are_their_digits(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = ['{"_id": 12345678901234567890123, "account": 98765432109876543210987}']
    path.write_text("\n".join([*lines, '{"_id": 12345678901234567890124, "a": 1}']))
    first, second = read_all(path)
    assert (first.id, second.id) == ("12345678901234567890123", "12345678901234567890124")
    assert exact_json.dumps(first.source) == b'{"account":98765432109876543210987}'


UTC = "UTC"
ARROW = [
    (pa.array([1700000000123456789], pa.timestamp("ns")), "2023-11-14T22:13:20.123456789"),
    (pa.array([1700000000000], pa.timestamp("ms", UTC)), "2023-11-14T22:13:20Z"),
    (pa.array([0], pa.timestamp("s", "Europe/Berlin")), "1970-01-01T01:00:00+01:00"),
    (pa.array([253402300800 * 10**6], pa.timestamp("us")), "+10000-01-01T00:00:00"),
    (pa.array([10**7], pa.date32()), "29349-01-26"),
    (pa.array([1], pa.time64("ns")), "00:00:00.000000001"),
    (pa.array([timedelta(days=1, hours=2, seconds=3, milliseconds=500)]), "PT26H3.5S"),
    (pa.array([0], pa.duration("s")), "PT0S"),
    (pa.array([b"\x00\xff"]), "AP8="),
    (pa.array([b"ab"], pa.binary(2)), "YWI="),
    (pa.array([Decimal("12345678901234567890.123456789")]), Decimal("12345678901234567890.123456789")),
    (pa.array([Decimal("1.50")]), 1.5),
    (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), {"k": 1}),
    (pa.array([[("k", [b"a"])]], pa.map_(pa.string(), pa.list_(pa.binary()))), {"k": ["YQ=="]}),
    (pa.array([{"at": 0}], pa.struct([("at", pa.timestamp("s"))])), {"at": "1970-01-01T00:00:00"}),
    (pa.array([float("nan")]), None),
    (pa.array(["a"]).dictionary_encode(), "a"),
    (pa.array([2**64 - 1], pa.uint64()), 2**64 - 1),
]


@pytest.mark.parametrize(("array", "value"), ARROW, ids=lambda one: str(getattr(one, "type", one)))
def test_each_type_of_parquet_has_its_form(array, value):
    assert json_values(array) == [value]
    with_nulls = pa.concat_arrays([pa.nulls(1, array.type), array, pa.nulls(1, array.type)])
    assert json_values(with_nulls) == [None, value, None]
    assert json_values(pa.array([[value]] * 0, pa.list_(array.type))) == []


def test_a_value_that_cannot_be_shown_costs_its_row(tmp_path):
    columns = {
        "_id": ["1", "2", "3"],
        "when": pa.array([0, 2**62, 0], pa.timestamp("ms")),
        "score": [1.0, 2.0, float("inf")],
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    first, second, third = read_all(tmp_path / "a.parquet", "parquet")
    assert (first.id, first.source["score"]) == ("1", 1.0)
    assert "[when]" in second.message
    assert "[score]: an infinite number" in third.message
    assert (third.line, third.stands_for) == (3, "document")


def test_a_parquet_file_without_the_id_names_its_columns(tmp_path):
    pq.write_table(pa.table({"id": ["1"], "text": ["x"]}), tmp_path / "a.parquet")
    (failure,) = read_all(tmp_path / "a.parquet", "parquet")
    assert failure.message == "the file has no column [_id], the id; it has [id], [text]"
    assert failure.stands_for == "rest of the file"


def test_an_empty_and_a_cut_parquet_file_fail_by_name(tmp_path):
    (tmp_path / "empty.parquet").touch()
    sink = io.BytesIO()
    pq.write_table(pa.table({"_id": ["1"]}), sink)
    (tmp_path / "cut.parquet").write_bytes(sink.getvalue()[:-20])
    pq.write_table(pa.table({"_id": ["1"]}), tmp_path / "good.parquet")
    cut, empty, good = read_all(tmp_path, "parquet")
    assert cut.path.endswith("cut.parquet")
    assert "empty" in empty.message
    assert {cut.stands_for, empty.stands_for} == {"rest of the file"}
    assert good.id == "1"


LINES = b'{"_id": 1}\n{"_id": 2}\n'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl.gz", gzip.compress(LINES[:11], mtime=0) + gzip.compress(LINES[11:], mtime=0) + b"\0" * 512),
        ("IN.JSONL.GZ", gzip.compress(LINES, mtime=0)),
        ("a.jsonl.Zst", zstandard.compress(LINES[:11]) + zstandard.compress(LINES[11:])),
    ],
)
def test_compressed_members_are_one_stream_whatever_the_case_of_the_ending(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert [document.id for document in read_all(tmp_path)] == ["1", "2"]


def test_what_lies_before_the_damage_is_read(tmp_path):
    lines = b"".join(b'{"_id": %d, "text": "%s"}\n' % (n, str(n * 7919).encode() * 50) for n in range(5000))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines)[:-5000])
    *documents, failure = read_all(tmp_path)
    assert len(documents) > 100
    assert [document.id for document in documents] == [str(n) for n in range(len(documents))]
    assert failure.stands_for == "rest of the file"


def test_json_arrays_are_streamed_and_a_bad_document_costs_itself(tmp_path):
    (tmp_path / "a.json").write_text(
        '\ufeff[\n {"_id": 1, "t": "]}"},\n {"_id": 2,,},\n {"_id": 3,\n  "u": [1]}\n]'
    )
    first, bad, third = read_all(tmp_path, "json")
    assert (first.id, third.id) == ("1", "3")
    assert bad.message.startswith("the document that begins on line 3 is not valid JSON")


@pytest.mark.parametrize("text", ['[{"_id": 1}, {"_id": 2', '[{"_id": 1}', '{"_id": 1} [1'])
def test_a_json_file_that_ends_too_soon_lost_an_unknown_number(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    assert read_all(tmp_path, "json")[-1].stands_for == "rest of the file"


@pytest.mark.parametrize(
    "text", ['{"_id": 1}{"_id": 2}', '[{"_id": 1},\n{"_id": 2}]\n', '[{"_id": 1}]\n[{"_id": 2}]']
)
def test_json_may_be_an_array_or_objects_in_a_row(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    assert [document.id for document in read_all(tmp_path, "json")] == ["1", "2"]


def test_an_array_in_json_lines_is_told_what_it_needs(tmp_path):
    (tmp_path / "a.jsonl").write_text('[\n  {\n    "_id": 1\n  }\n]\n')
    assert "source.format: json" in read_all(tmp_path)[0].message


def test_elasticdump_lines_are_their_documents(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"_index": "a", "_id": "x", "_score": 1, "_source": {"text": "one"}}\n'
    )
    (document,) = read_all(tmp_path)
    assert (document.id, document.source) == ("x", {"text": "one"})


def test_hive_partitions_are_fields_and_the_document_goes_first(tmp_path):
    folder = tmp_path / "year=2023" / "day=a%20b"
    folder.mkdir(parents=True)
    (folder / "a.jsonl").write_text('{"_id": 1}\n{"_id": 2, "year": 1999}\n')
    first, second = read_all(tmp_path)
    assert first.source == {"year": "2023", "day": "a b"}
    assert second.source["year"] == 1999


@pytest.mark.parametrize(
    ("content", "options", "rows"),
    [
        ("id;text\n1;a,b\n", {"delimiter": ";"}, [{"id": "1", "text": "a,b"}]),
        ("sep=;\nid;text\n1;a\n", {}, [{"id": "1", "text": "a"}]),
        ("1,a\n", {"columns": ("id", "text")}, [{"id": "1", "text": "a"}]),
        ("id,text\n1,\xe4\n".encode("latin-1"), {"encoding": "latin-1"}, [{"id": "1", "text": "ä"}]),
        ("id,text\n1,ä\n".encode("utf-16"), {"encoding": "utf-16"}, [{"id": "1", "text": "ä"}]),
        ("\ufeffid,text\n1,a\n", {}, [{"id": "1", "text": "a"}]),
    ],
)
def test_csv_in_every_dress(tmp_path, content, options, rows):
    (tmp_path / "a.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert [document.source for document in read_all(tmp_path, "csv", "id", **options)] == rows


@pytest.mark.parametrize(
    ("content", "message", "lost"),
    [
        ("id,text,text\n1,a,b\n", "the header has the column [text] 2 times", "rest of the file"),
        ("id;text\n1;a\n", "looks separated by ';': set source.delimiter", "rest of the file"),
        ("_id, text\n1,a\n", "it has [_id], [ text]", "rest of the file"),
        (b"id,text\n1,\xe4\n", "source.encoding", "document"),
        ("id,text\n1,a\n2,b,c\n", "the row has 3 fields, the header has 2", "document"),
        ('id,text\n1,a\n2,"b\n3,c\n4,d\n', "swallowed 3 lines", "unknown"),
    ],
)
def test_bad_csv_says_why_and_what_was_lost(tmp_path, content, message, lost):
    (tmp_path / "a.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    failures = [one for one in read_all(tmp_path, "csv", "id") if isinstance(one, Failure)]
    assert message in failures[-1].message
    assert failures[-1].stands_for == lost


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("```sh\n# install deps first\n```\n\n# The title\n", "The title"),
        ("---\ntitle: From the front\nother: [x\n---\n# Not this\n", "From the front"),
        ('---\nlayout: "page"\n---\nText\n\nSetext title\n===\n', "Setext title"),
        ("<!-- generated by\n# not a title\n-->\n\n## Second *level* `code`\n", "Second level code"),
        ("    # indented code\n\ntext", None),
        ("---\ntitle: 'a: b'\n---\n", "a: b"),
        ("#No space\n", None),
    ],
)
def test_the_title_of_markdown_is_its_front_matter_or_first_heading(text, title):
    assert markdown_title(text) == title


@pytest.mark.parametrize("name", ["data [v2]", "50% off", "a#b", "why?", "x{1,2}*"])
def test_a_path_that_exists_is_that_path(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "a[1].jsonl").write_text('{"_id": 1}\n')
    for path in (folder, folder / "a[1].jsonl"):
        assert [document.id for document in read_all(path)] == ["1"]


def test_linked_folders_are_followed_and_each_real_folder_is_read_once(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.jsonl").write_text('{"_id": 1}\n')
    docs = tmp_path / "docs"
    (docs / "b").mkdir(parents=True)
    (docs / "b" / "b.jsonl").write_text('{"_id": 2}\n')
    (docs / "linked").symlink_to("../elsewhere")
    (docs / "a-link-to-b").symlink_to("b")
    (docs / "b" / "circle").symlink_to("..")
    found = read_all(docs)
    assert sorted((one.id, one.location.path[len(str(docs)) :]) for one in found) == [
        ("1", "/linked/a.jsonl"),
        ("2", "/b/b.jsonl"),
    ]


def test_files_that_cannot_be_read_fail_by_name(tmp_path):
    (tmp_path / "good.txt").write_text("good")
    (tmp_path / "gone.txt").symlink_to("nowhere.txt")
    with open(bytes(tmp_path) + b"/caf\xe9.txt", "w") as handle:
        handle.write("text")
    found = read_all(tmp_path, "text")
    failures = [one for one in found if isinstance(one, Failure)]
    assert [one.id for one in found if isinstance(one, Document)] == ["good.txt"]
    assert sorted(one.message for one in failures) == [
        "the file is a link that leads nowhere",
        "the file's name is not valid UTF-8; rename the file",
    ]
    assert any(one.path.endswith("caf\\xe9.txt") for one in failures)


def test_skipped_files_are_counted_by_ending_and_small_ones_share_a_split(tmp_path):
    for name in ("a.md", "_draft.md", "b.PDF", "c.docx", "d.pdf", "LICENSE", ".hidden.md"):
        (tmp_path / name).write_text("x")
    listing = list_source([str(tmp_path)], "markdown", 1 << 20)
    assert listing.skipped == {".pdf": 2, ".docx": 1, "without an ending": 1}
    assert [[piece.name for piece in split.pieces] for split in listing.splits] == [["_draft.md", "a.md"]]


CONTENT = {
    "jsonl": b'{"_id": "1", "t": "a"}\n{"_id": "2", "t": [1.5, null]}\n' * 3,
    "json": b'[{"_id": "1", "t": "a"}, {"_id": "2", "t": {"u": "]"}}]\n' * 3,
    "csv": b'_id,t\n1,a\n2,"b ""c""\nd"\n3,e\n',
    "text": "Grüße".encode(),
    "markdown": b"---\ntitle: a\n---\n# b\n```\n# c\n```\n",
}
SINK = io.BytesIO()
pq.write_table(pa.table({"_id": ["1", "2"], "t": [[1.5], None]}), SINK)
CONTENT["parquet"] = SINK.getvalue()


@pytest.mark.parametrize("format", sorted(CONTENT))
@given(data=st.data())
def test_mutated_bytes_give_documents_and_failures_and_never_a_traceback(tmp_path_factory, format, data):
    content = bytearray(CONTENT[format])
    for _ in range(data.draw(st.integers(0, 6))):
        place = data.draw(st.integers(0, len(content)))
        content[place : place + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    path = tmp_path_factory.mktemp("fuzz") / f"a{FORMATS[format].endings[0]}"
    path.write_bytes(bytes(content))
    for found in read_all(path, format):
        assert isinstance(found, Document | Failure)
        if isinstance(found, Document):
            exact_json.dumps(found.source)
