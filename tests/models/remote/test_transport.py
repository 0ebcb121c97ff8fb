"""Bounds of every exchange: a service that answers in any wrong way costs a sentence, not time or memory."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from support.misbehaving import MODES, misbehaving_service, url_of

from models.endpoints.endpoint import parse_endpoint
from models.errors import InferenceError, ModelLoadError
from models.remote.http import Policy
from models.remote.model import remote_model

SECRET = "sk-planted-4711-transport"


@pytest.fixture(autouse=True)
def planted(monkeypatch):
    monkeypatch.setenv("PLANTED", SECRET)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def embed(url, timeout=0.4):
    settings = {"api_key": "env:PLANTED", "model_id": "m", "url": url}
    endpoint = parse_endpoint("remote", {"service": "openai", "service_settings": settings}, "text_embedding")
    policy = Policy(timeout=timeout, attempts=2, first_wait=0.01, max_wait=0.02)
    embedder = remote_model(endpoint, policy).load()
    try:
        return embedder.embed(["text"], "ingest")
    finally:
        embedder.close()


def outcome(url):
    try:
        embed(url)
    except InferenceError as error:
        return error.reason
    return "embeddings"


def test_every_misbehaviour_ends_in_a_sentence():
    with misbehaving_service() as base, ThreadPoolExecutor(8) as pool:
        said = dict(zip(MODES, pool.map(outcome, (url_of(base, name) for name in MODES)), strict=True))
    assert len(MODES) >= 60
    assert [name for name, reason in said.items() if reason == "embeddings"] == []
    assert [name for name, reason in said.items() if len(reason) > 800] == []
    slow = ("never answers", "drips a header", "slow 100 Continue", "drips a chunk's size", "drips trailers")
    assert all("did not answer" in said[name] for name in slow)
    endless = (
        "endless 100 Continue",
        "gzip of empty blocks",
        "chunks without end",
        "gzip that unpacks to 256 megabytes",
    )
    assert all("is larger than" in said[name] or "did not answer" in said[name] for name in endless)
    assert "Content-Encoding is [gzip, gzip]" in said["gzip of gzip"]
    assert "Content-Encoding is [gzip, gzip]" in said["gzip in two headers"]


@pytest.mark.parametrize(
    "proxy", ["nonsense://x", "http://", "socks5://127.0.0.1:1080", "http://[::1", ":::"]
)
def test_a_proxy_that_is_none_is_a_sentence(proxy, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(ModelLoadError, match="HTTPS_PROXY is not the http or https URL of a proxy"):
        embed("https://service.example/v1/embeddings")


def test_no_proxy_reads_the_secrets_of_a_request(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(ModelLoadError, match=r"HTTP_PROXY could read the secrets .*\[service\.example\]"):
        embed("http://service.example/v1/embeddings")


def test_a_proxy_that_hangs_meets_the_deadline(monkeypatch):
    with misbehaving_service() as base:
        monkeypatch.setenv("HTTPS_PROXY", base)
        # The proxy takes the CONNECT line for a mode; it has none of that name and closes.
        with pytest.raises(InferenceError, match=r"Failed to send request|did not answer"):
            embed("https://service.example/v1/embeddings")


def test_hosts_of_no_proxy_and_this_machine_are_called_directly(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "service.invalid")
    with pytest.raises(InferenceError, match=r"Failed to send request .*service\.invalid"):
        embed("http://service.invalid/v1/embeddings", timeout=5)
    with misbehaving_service() as base, pytest.raises(InferenceError, match="not complete JSON"):
        embed(url_of(base, "no content"), timeout=5)
