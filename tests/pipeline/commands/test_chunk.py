"""The command ``chunk``: JSON lines in and out, and the view in the terminal."""

import io
import json
import subprocess
import sys

import pytest

from models.errors import InferenceError
from pipeline.__main__ import main
from pipeline.commands.chunk import chunk
from pipeline.errors import ConfigError, PipelineError
from transforms.chunk.json_lines import chunk_lines


def answers(*lines):
    out = io.BytesIO()
    encoded = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    chunk_lines(io.BytesIO(b"\n".join(encoded)), out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def offsets(answer):
    return [(each["start_offset"], each["end_offset"]) for each in answer["chunks"]]


def test_one_answer_a_line_in_order():
    lines = [{"id": str(number), "text": f"Text {number}."} for number in range(50)]
    found = answers(*lines)
    assert [answer["id"] for answer in found] == [line["id"] for line in lines]
    assert found[7] == {"id": "7", "chunks": [{"start_offset": 0, "end_offset": 7, "text": "Text 7."}]}


def test_settings_of_the_line():
    settings = {"strategy": "word", "max_chunk_size": 10, "overlap": 1}
    words = " ".join("abcdefghijklm")
    (found,) = answers({"id": 1, "text": words, "chunking_settings": settings})
    assert offsets(found) == [(0, 19), (17, 25)]


def test_default_rules():
    text = "word " * 400
    missing, null, empty = answers(
        {"text": text}, {"text": text, "chunking_settings": None}, {"text": text, "chunking_settings": {}}
    )
    assert missing == empty
    assert offsets(null) == [(0, 1249), (749, 1999)]


@pytest.mark.parametrize(
    ("line", "id", "error"),
    [
        (b"not json", None, "line 1 is not JSON"),
        (b'"text"', None, "line 1 is not a JSON object"),
        (b"\xff\xfe", None, "line 1 is not JSON"),
        ({"id": "a"}, "a", "[text] is missing"),
        ({"id": "a", "text": 5}, "a", "[text] is a int, not a string"),
        (
            {"id": 7, "text": "x", "chunking_settings": {"strategy": "word", "max_chunk_size": 5, "z": 1}},
            7,
            "Validation Failed: 1: Word based chunking settings can not have the following settings: [z];"
            "2: [chunking_settings] Invalid value [5.0]. [max_chunk_size] must be greater than or equal to [10.0];",
        ),
        (
            {"id": "a", "text": "x", "chunking_settings": {"max_chunk_size": 50}},
            "a",
            "Can't generate Chunker without ChunkingStrategy provided",
        ),
        (
            {"id": "a", "text": "x", "chunking_settings": []},
            "a",
            "Validation Failed: 1: field [chunking_settings]",
        ),
        (
            {
                "id": "a",
                "text": "w " * 20,
                "chunking_settings": {"strategy": "recursive", "max_chunk_size": 10, "separators": ["("]},
            },
            "a",
            "Chunk separator regex [(] is not a valid Java regular expression",
        ),
    ],
)
def test_a_bad_line_is_answered_and_the_next_goes_on(line, id, error):
    bad, good = answers(line, {"id": "next", "text": "Fine."})
    assert bad["id"] == id
    assert bad["error"].startswith(error)
    assert good["id"] == "next"
    assert "chunks" in good


def test_surrogates_survive():
    lone, pair = answers(b'{"id": "\\udc00", "text": "a\\ud800b"}', b'{"id": "p", "text": "\\ud83d\\ude00"}')
    assert lone == {"id": "\udc00", "chunks": [{"start_offset": 0, "end_offset": 3, "text": "a\ud800b"}]}
    assert pair["chunks"] == [{"start_offset": 0, "end_offset": 2, "text": "😀"}]


def test_blank_lines_are_no_input():
    assert len(answers(b"", b"  ", {"text": "x"}, b"")) == 1


def feed(monkeypatch, data):
    stdin = io.TextIOWrapper(io.BytesIO(data))
    monkeypatch.setattr(sys, "stdin", stdin)


def test_command_reads_stdin(monkeypatch, capfdbinary):
    feed(monkeypatch, b'{"id": "1", "text": "One. Two."}\n')
    assert main(["chunk"]) == 0
    assert json.loads(capfdbinary.readouterr().out)["chunks"][0]["text"] == "One. Two."


def test_settings_of_the_command_hold_where_a_line_has_none(monkeypatch, capfdbinary):
    feed(monkeypatch, b'{"text": "One. Two."}\n{"text": "One. Two.", "chunking_settings": {}}\n')
    settings = '{"strategy": "sentence", "max_chunk_size": 20, "contiguous": true}'
    assert main(["chunk", "--settings", settings]) == 0
    assert len(capfdbinary.readouterr().out.splitlines()) == 2


def test_tokens_are_counted_by_the_endpoint(monkeypatch, capfdbinary):
    settings = {"strategy": "word", "max_chunk_size": 10, "overlap": 0, "size_unit": "tokens"}
    feed(monkeypatch, json.dumps({"text": "word " * 30, "chunking_settings": settings}).encode())
    assert main(["chunk", "--endpoint", ".minilm-l6-v2"]) == 0
    found = json.loads(capfdbinary.readouterr().out)["chunks"]
    assert [len(each["text"].split()) for each in found] == [8, 8, 8, 6]


def show(tmp_path, capsys, text, **options):
    path = tmp_path / "text.txt"
    path.write_text(text, "utf-8")
    chunk(str(path), **options)
    return capsys.readouterr().out


def test_view_shows_offsets_words_and_what_is_repeated(tmp_path, capsys):
    settings = '{"strategy": "word", "max_chunk_size": 10, "overlap": 2}'
    out = show(tmp_path, capsys, "😀 " + " ".join("abcdefghijklm"), settings=settings)
    assert "2 chunks" in out
    assert "chunk 1/2 · [0, 22) · 10 words ──" in out
    assert "chunk 2/2 · [18, 28) · 5 words · repeats 2 words ──" in out


def test_view_counts_tokens_and_marks_truncation(tmp_path, capsys):
    out = show(tmp_path, capsys, "antidisestablishmentarianism " * 60, endpoint=".minilm-l6-v2")
    assert "TRUNCATED at 256 tokens" in out
    kept = out.split("──\n", 1)[1].split("✂")[0]
    assert 20 < len(kept.split()) < 60


def test_view_cannot_be_steered_by_the_text(tmp_path, capsys):
    out = show(tmp_path, capsys, "a\x1b[31mred [bold]b[/bold] \x9b31m")
    assert "\x1b" not in out
    assert "\x9b" not in out
    assert "␛[31mred [bold]b[/bold]" in out


def test_bad_settings_name_every_problem(tmp_path):
    with pytest.raises(ConfigError) as refusal:
        chunk(None, settings='{"strategy": "sentence", "max_chunk_size": 5, "x": 1}')
    assert len(refusal.value.problems) == 2
    with pytest.raises(ConfigError, match="not JSON"):
        chunk(None, settings="{")
    with pytest.raises(ConfigError, match="Invalid chunkingStrategy page"):
        chunk(None, settings='{"strategy": "page"}')


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(PipelineError, match="cannot be read: No such file"):
        chunk(str(tmp_path / "missing.txt"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(PipelineError, match="is not UTF-8 text"):
        chunk(str(tmp_path / "binary"))


def test_unknown_endpoint():
    with pytest.raises(InferenceError, match="not found"):
        chunk(None, endpoint="no-such-endpoint")


def test_a_closed_pipe_is_no_error(tmp_path):
    lines = b'{"id": "1", "text": "One."}\n' * 20_000
    (tmp_path / "lines").write_bytes(lines)
    with (tmp_path / "lines").open("rb") as stdin:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "chunk"],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert json.loads(process.stdout.readline())["id"] == "1"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


def test_a_refused_line_is_an_exit_code(monkeypatch, capfd):
    feed(monkeypatch, b'{"id": "1", "text": "One."}\nno json\n{"id": "3", "text": "Three."}\n')
    assert main(["chunk"]) == 1
    out, err = capfd.readouterr()
    assert len(out.splitlines()) == 3, "every line has its answer"
    assert "one line was refused; its answer says why" in err
