"""Who is let in: names of this server only, no page from elsewhere, a key beyond this machine."""

import pytest
from starlette.testclient import TestClient

from pipeline.__main__ import main
from pipeline.serve.app import create_app
from pipeline.serve.corpus import Corpus
from pipeline.serve.security import Door, open_door


def client_of(door, tmp_path, base_url="http://127.0.0.1:8700"):
    return TestClient(create_app(Corpus(endpoints=str(tmp_path / "eps")), door), base_url=base_url)


@pytest.fixture
def client(tmp_path):
    return client_of(Door(), tmp_path)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8700", 200),
        ("localhost", 200),
        ("[::1]:8700", 200),
        ("LOCALHOST:80", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("evil.example:127.0.0.1", 403),
        ("[", 403),
        ("", 403),
    ],
)
def test_only_names_of_this_server_are_answered(client, host, status):
    answer = client.get("/_inference", headers={"host": host})
    assert answer.status_code == status
    if status == 403:
        assert "this server is not" in answer.json()["error"]["reason"]


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:8700", 200),
        ("http://evil.example", 403),
        ("http://127.0.0.1:9999", 403),
        ("null", 403),
        ("", 403),
    ],
)
def test_pages_from_elsewhere_change_nothing(client, origin, status):
    body = {"input": "x"}
    answer = client.post("/_inference/.hashing-dense", json=body, headers={"origin": origin})
    assert answer.status_code == status


def test_answers_keep_browsers_careful(client):
    for path in ("/health", "/none", "/_inference"):
        headers = client.get(path).headers
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


def test_a_key_is_asked_for_everywhere_but_where_nothing_is_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("SERVE_KEY", "sk-planted-4711")
    client = client_of(open_door("0.0.0.0", "env:SERVE_KEY"), tmp_path, "http://search.example")
    for path in ("/_inference", "/v1/models", "/metrics", "/_inference/.minilm-l6-v2", "/page/none"):
        answer = client.get(path)
        assert answer.status_code == 401, path
        assert "sk-planted" not in answer.text
    assert client.get("/v1/models").json()["error"]["code"] == "invalid_api_key"
    assert client.get("/health").status_code == 200
    for value, status in (
        ("ApiKey sk-planted-4711", 200),
        ("Bearer sk-planted-4711", 200),
        ("Bearer sk-planted-4712", 401),
        ("Bearer ü", 401),
        ("Basic sk-planted-4711", 401),
        ("sk-planted-4711", 401),
    ):
        answer = client.get("/_inference", headers={"authorization": value.encode()})
        assert answer.status_code == status, value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--host", "0.0.0.0"), "--api-key env:NAME"),
        (("--host", "::"), "--api-key env:NAME"),
        (("--host", "127.0.0.2"), "--api-key env:NAME"),
        (("--host", "0.0.0.0", "--api-key", "env:NO_SUCH_KEY"), "NO_SUCH_KEY is not set"),
        (("--host", "0.0.0.0", "--api-key", "sk-planted-4711"), "holds a literal secret"),
        (("--host", "no.such.host.invalid", "--api-key", "env:HOME"), "cannot be listened on"),
    ],
)
def test_nobody_listens_openly(arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    assert main(["serve", *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "sk-planted" not in error
