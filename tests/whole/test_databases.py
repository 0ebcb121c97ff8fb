"""Rows of a database become documents: all of them once, later only those that changed."""

import os
import sqlite3
import subprocess
from pathlib import Path

import pytest
from support.servers.process import ServerProcess
from support.small_run import SmallRun, document

from transforms.read.servers import database

MAPPING_FIELDS = {"title": {"type": "text"}, "year": {"type": "integer"}}


def mapping():
    return {
        "properties": {
            **MAPPING_FIELDS,
            "text": {"type": "text", "copy_to": ["dense"]},
            "dense": {"type": "semantic_text", "inference_id": ".hashing-dense"},
        }
    }


class Rows:
    """A SQLite database with one table of articles."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.execute(
            "CREATE TABLE articles (id INTEGER PRIMARY KEY, title TEXT, text TEXT, year INTEGER, changed TEXT)"
        )

    def execute(self, statement: str, *values: object) -> None:
        with sqlite3.connect(self.path) as connection:
            connection.execute(statement, values)

    def put(self, number: int, edition: int = 0) -> None:
        one = document(number, edition)
        self.execute(
            "INSERT OR REPLACE INTO articles VALUES (?, ?, ?, ?, ?)",
            *(number, one["title"], one["text"], one["year"], f"2026-01-{edition + 1:02}"),
        )


@pytest.fixture
def rows(tmp_path):
    rows = Rows(tmp_path / "data.db")
    for number in range(10):
        rows.put(number)
    return rows


def small_run(tmp_path: Path, **source: object) -> SmallRun:
    source = {"format": "sql", "url": f"sqlite:///{tmp_path}/data.db", "id": "id", **source}
    run = SmallRun(tmp_path, source=source, mappings=mapping())
    return run


@pytest.mark.parametrize("updated_at", [None, "changed"])
def test_a_mark_of_deletion_is_read_as_what_it_says(tmp_path, rows, updated_at):
    rows.execute("ALTER TABLE articles ADD COLUMN gone TEXT")
    rows.execute("UPDATE articles SET gone = CASE id WHEN 3 THEN 'true' WHEN 4 THEN '0' ELSE 'false' END")
    run = small_run(tmp_path, table="articles", updated_at=updated_at, deleted="gone")
    assert run.run() == 0
    assert sorted(run.rows(), key=int) == ["0", "1", "2", "4", "5", "6", "7", "8", "9"]


@pytest.mark.parametrize("updated_at", [None, "changed"])
@pytest.mark.parametrize("command", ["check", "run"])
def test_a_field_that_no_column_fills_is_an_error(tmp_path, rows, capsys, command, updated_at):
    run = small_run(tmp_path, table="articles", updated_at=updated_at)
    run.config["mappings"]["properties"]["body"] = run.config["mappings"]["properties"].pop("text")
    assert run.run(command=command) in (1, 2)
    told = capsys.readouterr().err
    assert "no document fills the semantic_text field [dense], which embeds [dense], [body]" in told
    assert "[text]" in told


@pytest.mark.parametrize("updated_at", [None, "changed"])
@pytest.mark.parametrize("where", [{"table": "articles"}, {"query": "SELECT * FROM articles"}])
def test_several_values_of_a_column_make_it_a_list(tmp_path, rows, updated_at, where):
    rows.execute("ALTER TABLE articles ADD COLUMN tags JSON")
    rows.execute('UPDATE articles SET tags = \'["a", "b"]\' WHERE id = 3')
    rows.execute("UPDATE articles SET tags = '\"c\"' WHERE id = 4")
    run = small_run(tmp_path, updated_at=updated_at, **where)
    run.config["mappings"]["properties"]["tags"] = {"type": "keyword"}
    assert run.run() == 0
    if "table" in where:  # of a query SQLite does not say that a column is JSON
        assert counts(run) == {"added": 10}
        assert (run.rows()["3"]["tags"], run.rows()["4"]["tags"]) == (["a", "b"], ["c"])
    assert run.run(command="check") == 0


def test_check_names_rows_that_would_fail(tmp_path, rows, capsys):
    rows.execute("UPDATE articles SET year = 'soon' WHERE id < 5")
    for updated_at in (None, "changed"):
        run = small_run(tmp_path, table="articles", updated_at=updated_at)
        run.config["failures"]["max_ratio"] = 0.1
        assert run.run(command="check") == 2
        assert "5 of the first 10 documents would fail" in capsys.readouterr().err


def counts(run: SmallRun) -> dict[str, int]:
    return {name: count for name, count in run.summary["documents"].items() if count}


@pytest.mark.parametrize("updated_at", [None, "changed"])
def test_a_table_is_read_once_and_later_what_changed(tmp_path, rows, updated_at):
    run = small_run(tmp_path, table="articles", updated_at=updated_at)
    assert run.run() == 0
    assert counts(run) == {"added": 10}
    assert '"title":"Title 3"' in run.rows()["3"]["_source"]
    assert run.run() == 0
    assert counts(run) == {"unchanged": 10}
    rows.put(3, edition=1)
    rows.put(11)
    rows.execute("DELETE FROM articles WHERE id = 5")
    assert run.run() == 0
    assert counts(run) == {"added": 1, "changed": 1, "deleted": 1, "unchanged": 8}
    assert "Edition 1 of document 3" in run.rows()["3"]["_source"]
    assert run.run(command="verify") == 0


def test_with_a_time_of_change_only_changed_rows_are_read(tmp_path, rows, monkeypatch):
    run = small_run(tmp_path, table="articles", updated_at="changed")
    assert run.run() == 0
    rows.put(3, edition=1)
    asked = []
    real = database.in_batches
    monkeypatch.setattr(database, "in_batches", lambda ids: real(asked.extend(ids) or ids))
    assert run.run() == 0
    assert asked == ["3"]


def test_a_query_and_a_text_key(tmp_path, rows):
    query = "SELECT 'a-' || id AS name, title, text FROM articles WHERE id < 3;"
    run = small_run(tmp_path, query=query, id="name")
    assert run.run() == 0
    assert sorted(run.rows()) == ["a-0", "a-1", "a-2"]


def test_rows_that_are_marked_as_deleted_go(tmp_path, rows):
    rows.execute("ALTER TABLE articles ADD COLUMN gone BOOLEAN DEFAULT FALSE")
    run = small_run(tmp_path, table="articles", updated_at="changed", deleted="gone")
    assert run.run() == 0
    rows.execute("UPDATE articles SET gone = TRUE, changed = '2027-01-01' WHERE id = 4")
    assert run.run() == 0
    assert counts(run) == {"deleted": 1, "unchanged": 9}


def test_a_row_that_changes_during_the_run_is_taken_as_it_is_then(tmp_path, rows, monkeypatch):
    run = small_run(tmp_path, table="articles", updated_at="changed")
    real = database.in_batches

    def meanwhile(ids):
        rows.put(2, edition=9)
        rows.execute("DELETE FROM articles WHERE id = 7")
        return real(ids)

    monkeypatch.setattr(database, "in_batches", meanwhile)
    assert run.run() == 0
    assert counts(run) == {"added": 9, "failed": 1}
    assert "Edition 9" in run.rows()["2"]["_source"]
    monkeypatch.undo()
    assert run.run() == 0
    assert counts(run) == {"unchanged": 9}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"table": "nothing"}, "nothing"),
        (
            {"table": "articles", "id": "_id"},
            "source.id [_id] is no column of [articles]; it has id, title, text",
        ),
        ({"query": "SELECT broken"}, "no such column: broken"),
        ({"table": "articles", "url": "nosuch://x"}, "source.url: Can't load plugin"),
        ({"table": "articles", "query": "SELECT 1"}, "either `table` or `query`"),
        ({"table": "articles", "path": "x"}, "`path` has no meaning for format sql"),
        ({"table": "articles", "url": "postgresql://me:secret@host/db"}, "write `url: env:NAME`"),
        ({"table": "articles", "url": "env:NO_SUCH_VARIABLE"}, "NO_SUCH_VARIABLE"),
    ],
)
def test_what_is_wrong_is_said_before_a_run(tmp_path, rows, capsys, source, message):
    run = small_run(tmp_path, **source)
    assert run.run(command="check") != 0
    assert message in " ".join(capsys.readouterr().err.split())
    assert run.run() != 0
    shown = " ".join(capsys.readouterr().err.split())
    assert "Traceback" not in shown
    assert "secret@" not in shown


class PostgresServer(ServerProcess):
    """PostgreSQL out of the distribution's package."""

    name = "PostgreSQL"

    def command(self) -> list[str]:
        data, programs = str(self.folder / "data"), _programs()
        make = [*self._as_nobody(), str(programs / "initdb"), "-D", data, "-U", "me", "-A", "trust"]
        subprocess.run(make, check=True, cwd=self.folder, capture_output=True)
        address = ["-p", str(self.port), "-h", "127.0.0.1", "-k", str(self.folder)]
        return [str(programs / "postgres"), "-D", data, *address]

    def is_ready(self) -> bool:
        programs = _programs()
        asked = subprocess.run(
            [programs / "pg_isready", "-h", "127.0.0.1", "-p", str(self.port)], capture_output=True
        )
        return asked.returncode == 0


def _programs() -> Path:
    homes = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not homes:
        pytest.fail("there is no PostgreSQL: install Debian's package postgresql")
    return homes[-1]


@pytest.mark.slow
@pytest.mark.postgres
def test_a_real_postgresql(tmp_path, monkeypatch):
    import sqlalchemy

    with PostgresServer() as server:
        url = f"postgresql+pg8000://me@127.0.0.1:{server.port}/postgres"
        engine = sqlalchemy.create_engine(url)
        with engine.begin() as connection:
            connection.execute(
                sqlalchemy.text(
                    "CREATE TABLE articles (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), text text, price numeric, "
                    "tags text[], changed timestamptz DEFAULT now())"
                )
            )
            for number in range(2500):
                values = {"text": document(number)["text"], "price": f"{number}.25"}
                statement = "INSERT INTO articles (text, price, tags) VALUES (:text, :price, ARRAY['a', 'b'])"
                connection.execute(sqlalchemy.text(statement), values)
        monkeypatch.setenv("DATABASE", url)
        run = small_run(tmp_path, url="env:DATABASE", table="public.articles", updated_at="changed")
        assert run.run() == 0
        assert counts(run) == {"added": 2500}
        with engine.begin() as connection:
            connection.execute(
                sqlalchemy.text(
                    "UPDATE articles SET text = 'new', changed = now() + interval '1s' WHERE price = 7.25"
                )
            )
            connection.execute(sqlalchemy.text("DELETE FROM articles WHERE price < 3"))
        assert run.run() == 0
        assert counts(run) == {"changed": 1, "deleted": 3, "unchanged": 2496}
        (row,) = (row for row in run.rows().values() if '"text":"new"' in row["_source"])
        assert '"tags":["a","b"]' in row["_source"]
        assert os.environ["DATABASE"] not in (tmp_path / "run.json").read_text()
