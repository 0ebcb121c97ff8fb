"""`init` on corpora of ten shapes: each config passes `check` and `run` untouched."""

import gzip
import json
import sqlite3
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.__main__ import main
from pipeline.config.schema import config_schema
from pipeline.config.source_seen import _format

TEXTS = [
    "The red fox jumps over the lazy dog, and in the evening it sleeps below the old oak at the edge of the wood.",
    "Rain falls mainly on the plain, as the saying goes, but this year it was the mountains that had most of it.",
    "A ship sails across the wide sea with a cargo of tea, and nobody on board knows what the harbour looks like.",
]
RECORDS = [
    {
        "id": f"r{n}",
        "title": f"Record {n}",
        "body": TEXTS[n % 3],
        "year": 2000 + n,
        "price": n + 0.5,
        "draft": n % 2 == 0,
    }
    for n in range(12)
]


def json_lines(folder):
    path = folder / "records.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in RECORDS))
    return path


def json_array(folder):
    path = folder / "records.json"
    path.write_text(json.dumps(RECORDS, indent=2))
    return path


def packed_lines(folder):
    path = folder / "records.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(one) + "\n" for one in RECORDS).encode()))
    return path


def pandas_csv(folder):
    """As `DataFrame.to_csv` writes it: a first column without a name, True and False, gaps."""
    lines = [",id,title,body,year,price,draft"]
    for n, one in enumerate(RECORDS):
        year = "" if n == 3 else one["year"]
        lines.append(f'{n},{one["id"]},{one["title"]},"{one["body"]}",{year},{one["price"]},{one["draft"]}')
    path = folder / "frame.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def german_csv(folder):
    """As Excel saves it in Germany: semicolons, the code page of Windows."""
    lines = ["Nummer;Titel;Größe"] + [
        f"{n};Über Straße {n} und anderes, was hier steht;{n},5" for n in range(9)
    ]
    path = folder / "excel.csv"
    path.write_text("\r\n".join(lines) + "\r\n", encoding="cp1252")
    return path


def parquet(folder):
    path = folder / "records.parquet"
    pq.write_table(pa.Table.from_pylist([{**one, "tags": ["a", "b"]} for one in RECORDS]), path)
    return path


def markdown_folder(folder):
    place = folder / "docs" / "guide"
    place.mkdir(parents=True)
    for n, text in enumerate(TEXTS):
        (place / f"page-{n}.md").write_text(f"# Page {n}\n\n{text}\n\n## More\n\n{text}\n")
    return folder / "docs"


def text_folder(folder):
    place = folder / "My Notes"
    place.mkdir()
    for n, text in enumerate(TEXTS):
        (place / f"note {n}.txt").write_text(text)
    return place


def elasticdump(folder):
    hits = [
        {
            "_index": "books",
            "_id": f"b{n}",
            "_score": 1,
            "_source": {"meta": {"lang": "en"}, "abstract": TEXTS[n % 3]},
        }
        for n in range(9)
    ]
    path = folder / "dump.json"
    path.write_text("".join(json.dumps(hit) + "\n" for hit in hits))
    return path


def without_ids(folder):
    path = folder / "forum.ndjson"
    path.write_text(
        "".join(
            json.dumps({"answer": f"{TEXTS[n % 3]} {n}", "votes": n, "at": "2024-05-01"}) + "\n"
            for n in range(9)
        )
    )
    return path


def mixed_folder(folder):
    place = folder / "papers"
    place.mkdir()
    (place / "a.html").write_text(f"<html><body><h1>A page</h1><p>{TEXTS[0]}</p></body></html>")
    (place / "b.md").write_text(f"# B\n\n{TEXTS[1]}\n")
    with zipfile.ZipFile(place / "c.zip", "w") as archive:
        archive.writestr("inside.txt", TEXTS[2])
    # One of five cannot be read: that is listed, and the others are there.
    (place / "d.pdf").write_bytes(b"%PDF-1.4 and then nothing")
    (place / "e.txt").write_text(TEXTS[0])
    (place / "f.exe").write_bytes(b"MZ\0\0" * 50)
    return place


SHAPES = [
    *(json_lines, json_array, packed_lines, pandas_csv, german_csv, parquet),
    *(markdown_folder, text_folder, elasticdump, without_ids, mixed_folder),
]


@pytest.mark.slow
@pytest.mark.parametrize("make", SHAPES, ids=lambda make: make.__name__)
def test_the_config_passes_check_and_run(tmp_path, monkeypatch, capsys, make):
    path = make(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["init", str(path.relative_to(tmp_path)), "--output", "run.yaml"]) == 0
    text = (tmp_path / "run.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=./.semantic-ingest.schema.json\n")
    assert json.loads((tmp_path / ".semantic-ingest.schema.json").read_text()) == config_schema()
    assert main(["check", "run.yaml"]) == 0, text
    capsys.readouterr()
    assert main(["run", "run.yaml", "--quiet", "--format", "json"]) == 0, text
    summary = json.loads(capsys.readouterr().out)
    assert summary["documents"]["failed"] == (make is mixed_folder), text
    assert summary["documents"]["added"] >= 3, text
    assert summary["chunks"] >= 3, text


@pytest.mark.parametrize(
    ("files", "format"),
    [
        ({"corpus.jsonl": 5_000, "README.md": 300, "LICENSE": 1_000}, "jsonl"),
        ({"data.json": 20, "a.pdf": 400, "b.md": 100}, "files"),
        ({"a.md": 10, "sub/b.md": 90, ".git/config": 999}, "markdown"),
        ({"a.md": 50, "b.txt": 900}, "files"),
        ({"x.jsonl.gz": 500, "y.jsonl.gz": 400}, "jsonl"),
        ({"t.csv": 900, "u.parquet": 100}, "csv"),
    ],
)
def test_a_folder_is_what_most_of_it_is(tmp_path, files, format):
    for name, size in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        content = (b'{"a": "b"}\n' * size)[:size]
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert _format(str(tmp_path)) == format


def test_what_pandas_wrote_is_told(tmp_path, monkeypatch, capsys):
    pandas_csv(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["init", "frame.csv"]) == 0
    said = capsys.readouterr().out
    assert "draft: True and False as Python writes them, so a keyword: draft=True" in said
    assert "left out" not in said


def test_fields_are_seen_as_what_they_are(tmp_path, monkeypatch):
    json_lines(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["init", "records.jsonl"]) == 0
    config = yaml.safe_load((tmp_path / "records.yaml").read_text())
    assert config["source"] == {"format": "jsonl", "path": "records.jsonl", "id": "id"}
    found = {name: one["type"] for name, one in config["mappings"]["properties"].items()}
    expected = {
        "id": "keyword",
        "title": "text",
        "body": "text",
        "year": "long",
        "price": "double",
        "draft": "boolean",
    }
    assert found == {**expected, "semantic": "semantic_text"}
    assert config["mappings"]["properties"]["title"]["copy_to"] == ["semantic"]
    assert main(["init", "records.jsonl"]) == 1, "a config is not replaced"
    assert main(["init", "nowhere"]) == 1


def shop(folder):
    """A database with a key, a view without one, and a time of change."""
    with sqlite3.connect(folder / "shop.db") as database:
        database.execute(
            "CREATE TABLE articles (sku INTEGER PRIMARY KEY, title TEXT, body TEXT, price REAL, modified TEXT)"
        )
        database.execute("CREATE VIEW cheap AS SELECT sku AS id, body FROM articles WHERE price < 3")
        rows = [(n, f"Article {n}", TEXTS[n % 3], n + 0.5, f"2024-05-0{n + 1}T10:00:00") for n in range(6)]
        database.executemany("INSERT INTO articles VALUES (?, ?, ?, ?, ?)", rows)
    database.close()


@pytest.mark.parametrize(("table", "id_", "documents"), [("articles", "sku", 6), ("cheap", "id", 3)])
def test_a_table_of_a_database(tmp_path, monkeypatch, capsys, table, id_, documents):
    shop(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["init", "sqlite:///shop.db", "--table", table]) == 0
    assert ("`updated_at: modified`" in capsys.readouterr().out) == (table == "articles")
    config = yaml.safe_load((tmp_path / f"{table}.yaml").read_text())
    assert config["source"] == {"format": "sql", "url": "sqlite:///shop.db", "table": table, "id": id_}
    assert config["mappings"]["properties"]["body"] == {"type": "text", "copy_to": ["semantic"]}
    (tmp_path / f"{table}.yaml").write_text(
        (tmp_path / f"{table}.yaml").read_text().replace(".minilm-l6-v2", ".hashing-dense")
    )
    assert main(["check", f"{table}.yaml"]) == 0
    capsys.readouterr()
    assert main(["run", f"{table}.yaml", "--quiet", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["documents"]["added"] == documents


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sqlite:///shop.db"], "the database has 2 tables; name one with --table: articles, cheap"),
        (["sqlite:///shop.db", "--table", "nothing"], "nothing"),
        (["sqlite:///typo.db"], "[typo.db] does not exist"),
        (["postgresql://me:secret@db/shop"], "the address holds a password"),
        (["gopher://db/shop"], "gopher"),
        (["env:NO_SUCH_DATABASE"], "NO_SUCH_DATABASE"),
        (["shop.db", "--table", "articles"], "--table is for a database"),
    ],
)
def test_a_database_that_cannot_be_looked_at(tmp_path, monkeypatch, capsys, arguments, message):
    shop(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["init", *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "me:secret" not in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shop.db"], "nothing is made"


def test_a_folder_of_documents_says_what_is_in_it(tmp_path, monkeypatch, capsys):
    mixed_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["init", "papers"]) == 0
    said = capsys.readouterr().out
    assert "6 files: 1 ." in said
    config = yaml.safe_load((tmp_path / "papers.yaml").read_text())
    assert config["source"] == {"format": "files", "path": "papers"}
    assert config["failures"] == {"max_ratio": 0.2}
    assert set(config["mappings"]["properties"]) == {"title", "content_type", "language", "text", "semantic"}
