"""Bounds of every exchange: a service that answers in any wrong way costs a sentence, not time or memory."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest
from support.misbehaving import MODES, misbehaving_service, url_of

from models.endpoints.endpoint import parse_endpoint
from models.errors import InferenceError, ModelLoadError
from models.remote.http import Policy
from models.remote.model import remote_model

SECRET = "sk-planted-4711-transport"

TIMEOUT = 1.0
"""Seconds that an exchange may take; nothing of what the service does may double them."""

LOAD = 3.0
"""Seconds that a busy machine may add; a mode that knows no deadline goes on for sixty."""

MEMORY = 64 << 20


@pytest.fixture(autouse=True)
def planted(monkeypatch):
    monkeypatch.setenv("PLANTED", SECRET)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def embed(url, timeout=TIMEOUT, attempts=2):
    settings = {"api_key": "env:PLANTED", "model_id": "m", "url": url}
    endpoint = parse_endpoint("remote", {"service": "openai", "service_settings": settings}, "text_embedding")
    policy = Policy(timeout=timeout, attempts=attempts, first_wait=0.01, max_wait=0.02)
    embedder = remote_model(endpoint, policy).load()
    try:
        return embedder.embed(["text"], "ingest")
    finally:
        embedder.close()


def outcome(url):
    try:
        embed(url, attempts=1)
    except InferenceError as error:
        return error.reason
    return "embeddings"


def measured(base, names, answers):
    """What each mode ends with, in how many seconds, and by how much this process grew beyond what it had."""
    os.environ["PLANTED"] = SECRET
    for name in names:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before, begun = memory("VmRSS"), time.monotonic()
        reason = outcome(url_of(base, name))
        answers.put((name, reason, time.monotonic() - begun, memory("VmHWM") - before))


def memory(name):
    """A line of this process's status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


@pytest.fixture(scope="module")
def misbehaviours():
    """Each mode's sentence, seconds and bytes, measured in processes of their own, away from the service."""
    context = multiprocessing.get_context("spawn")
    answers, names = context.Queue(), list(MODES)
    with misbehaving_service() as base:
        clients = [
            context.Process(target=measured, args=(base, names[first::4], answers), daemon=True)
            for first in range(4)
        ]
        for client in clients:
            client.start()
        found = [answers.get(timeout=240) for _ in names]
    return {name: rest for name, *rest in found}


def test_every_misbehaviour_ends_in_a_sentence(misbehaviours):
    said = {name: reason for name, (reason, _, _) in misbehaviours.items()}
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


def test_no_misbehaviour_costs_more_than_twice_the_timeout_and_64_megabytes(misbehaviours):
    late = {name: s for name, (_, s, _) in misbehaviours.items() if s > 2 * TIMEOUT + LOAD}
    large = {name: grown for name, (_, _, grown) in misbehaviours.items() if grown > MEMORY}
    assert (late, large) == ({}, {})


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
