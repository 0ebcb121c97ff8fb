"""Requests to services: retries, deadlines, bounds, and answers that are wrong."""

import gc
import os
import subprocess
import sys
import textwrap
import time

import pytest
from support.scripted_service import scripted_service

from models.endpoints.endpoint import parse_endpoint
from models.errors import InferenceError, ModelLoadError, TransientError
from models.remote.http import HttpClient, Policy
from models.remote.model import remote_model

QUICK = Policy(timeout=60.0, attempts=3, first_wait=0.01, max_wait=0.3, patience=20)
SECRET = "sk-planted-4711"


def openai(url, **settings):
    body = {
        "service": "openai",
        "service_settings": {
            "api_key": "env:PLANTED",
            "model_id": "m",
            "url": f"{url}/v1/embeddings",
            **settings,
        },
    }
    return parse_endpoint("remote", body, "text_embedding")


@pytest.fixture(autouse=True)
def planted(monkeypatch):
    monkeypatch.setenv("PLANTED", SECRET)


def embed(service, texts, policy=QUICK, **settings):
    embedder = remote_model(openai(service.url, **settings), policy).load()
    try:
        return embedder.embed(texts, "ingest")
    finally:
        embedder.close()


def test_an_embedder_that_nobody_holds_closes_its_connections(monkeypatch):
    closed = []
    monkeypatch.setattr(HttpClient, "close", lambda client: closed.append(client))
    with scripted_service() as service:
        embedder = remote_model(openai(service.url), QUICK).load()
        embedder.embed(["a"], "ingest")
        assert closed == []
        del embedder
        gc.collect()
    assert len(closed) == 1


def test_embeddings_come_back_in_the_order_of_the_texts():
    with scripted_service() as service:
        found = embed(service, ["a", "bb", "ccc"])
        request = service.requests[0]
    assert found.values.tolist() == [[1, 97, 1], [2, 98, 1], [3, 99, 1]]
    assert request["body"] == {"input": ["a", "bb", "ccc"], "model": "m"}
    assert request["headers"]["Authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 529, 408])
def test_failures_that_may_pass_are_tried_again(status):
    with scripted_service({"status": status, "body": "{}"}, {"status": status, "body": "{}"}, {}) as service:
        assert len(embed(service, ["a"])) == 1
        assert len(service.requests) == 3


def test_a_storm_of_429_ends_as_a_transient_error():
    with scripted_service({"status": 429, "body": '{"error": {"message": "slow down"}}'}) as service:
        with pytest.raises(
            TransientError, match=r"Received a rate limit status code .*\[remote\] .*\[429\].*slow down"
        ):
            embed(service, ["a"])
        assert len(service.requests) == QUICK.attempts


@pytest.mark.parametrize(("asked", "at_least"), [("0.2", 0.2), ("3600", 0.3)])
def test_retry_after_is_honoured_within_bounds(asked, at_least):
    with scripted_service({"status": 429, "headers": {"Retry-After": asked}, "body": "{}"}, {}) as service:
        embed(service, ["a"])
        first, second = (request["at"] for request in service.requests)
    assert second - first >= at_least * 0.95  # an hour would never end


def test_retry_after_may_be_a_date():
    from email.utils import formatdate

    from models.remote.http import _retry_after

    assert 3_000 < _retry_after(formatdate(time.time() + 3_600, usegmt=True)) <= 3_600
    assert _retry_after("soon") == 0


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422])
def test_other_refusals_are_not_tried_again(status):
    with scripted_service({"status": status, "body": '{"error": {"message": "no such model"}}'}) as service:
        with pytest.raises(InferenceError, match="no such model") as failure:
            embed(service, ["a"])
        assert len(service.requests) == 1
    assert failure.value.status == status
    assert not isinstance(failure.value, TransientError)
    assert isinstance(failure.value, ModelLoadError) == (status in (401, 403, 404))


def test_a_service_that_hangs_is_given_up():
    with scripted_service({"delay": 200}) as service:
        with pytest.raises(TransientError, match=r"did not answer.*0\.5 s"):
            embed(service, ["a"], Policy(timeout=0.5, attempts=5, first_wait=0.01))
        assert not any("delayed" in request for request in service.requests), "it hangs still"


def test_a_slow_body_meets_the_deadline():
    with scripted_service({"drip": 0.05}) as service, pytest.raises(TransientError, match="did not answer"):
        embed(service, ["some text"], Policy(timeout=0.5, attempts=5, first_wait=0.01))


def test_a_service_that_is_not_there_is_a_transient_error():
    with scripted_service() as service:
        url = service.url
    endpoint = openai(url)
    with pytest.raises(TransientError, match=r"Failed to send request .*127\.0\.0\.1:\d+.*ConnectError"):
        remote_model(endpoint, QUICK).load().embed(["a"], "ingest")


def test_an_answer_that_is_cut_off_is_tried_again_then_reported():
    with scripted_service({"cut": 20}, {}) as service:
        assert len(embed(service, ["a"])) == 1
    with scripted_service({"cut": 20}) as service, pytest.raises(TransientError, match="RemoteProtocolError"):
        embed(service, ["a"])


@pytest.mark.parametrize("body", ['{"data": [{"embedding": [0.1, ', "<html>busy</html>", " "])
def test_an_answer_that_is_no_json_is_an_error(body):
    with (
        scripted_service({"body": body}) as service,
        pytest.raises(InferenceError, match="is not complete JSON"),
    ):
        embed(service, ["a"])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("{}", "has not the shape of embeddings"),
        ("[]", "has not the shape of embeddings"),
        ("null", "has not the shape of embeddings"),
        ('{"data": [{"index": 0}]}', "has not the shape of embeddings"),
        ('{"data": [{"index": 0, "embedding": null}]}', "equally long lists of numbers"),
        ('{"data": [{"index": 0, "embedding": []}]}', "equally long lists of numbers"),
        ('{"data": [{"index": 0, "embedding": ["x"]}]}', "equally long lists of numbers"),
        ('{"data": [{"index": 0, "embedding": [[1.0]]}]}', "equally long lists of numbers"),
        ('{"data": [{"index": 0, "embedding": [1e999]}]}', "is not complete JSON"),
        ('{"error": {"message": "quota of org-7 is spent"}}', "quota of org-7 is spent"),
        ('{"detail": "the model is loading"}', "the model is loading"),
        ('{"data": [{"index": 1, "embedding": [1.0]}]}', "are not numbered from 0 on"),
    ],
)
def test_an_answer_of_another_shape_is_an_error(body, message):
    with scripted_service({"body": body}) as service, pytest.raises(InferenceError, match=message):
        embed(service, ["a"])


def test_embeddings_that_all_have_one_index_are_an_error():
    body = '{"data": [{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [2.0]}]}'
    with scripted_service({"body": body}) as service, pytest.raises(InferenceError, match="whose they are"):
        embed(service, ["a", "b"])


def test_embeddings_of_different_lengths_are_an_error():
    body = '{"data": [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0, 2.0]}]}'
    with scripted_service({"body": body}) as service, pytest.raises(InferenceError, match="equally long"):
        embed(service, ["a", "b"])


@pytest.mark.parametrize(("drop", "count"), [(-1, 2), (1, 4)])
def test_a_wrong_number_of_embeddings_is_an_error(drop, count):
    expected = f"Error the number of embedding responses [{count}] does not equal the number of requests [3]"
    with scripted_service({"drop": drop}) as service, pytest.raises(InferenceError) as failure:
        embed(service, ["a", "b", "c"])
    assert failure.value.reason == expected
    assert failure.value.status == 500


def test_embeddings_of_other_dimensions_than_the_endpoint_has_are_an_error():
    expected = r"embeddings size \[3\] does not match the size specified in the settings \[5\]"
    with scripted_service() as service, pytest.raises(InferenceError, match=expected):
        embed(service, ["a"], dimensions=5)


def test_an_oversized_answer_is_not_read():
    with scripted_service({"megabytes": 500}) as service:
        with pytest.raises(InferenceError, match="is larger than"):
            embed(service, ["a"], Policy(timeout=200, attempts=3, first_wait=0.01))
        (request,) = service.requests
    assert request["sent"] < 450 << 20


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_host_is_refused(status):
    with scripted_service() as elsewhere:
        location = f"{elsewhere.url.replace('127.0.0.1', 'localhost')}/steal"
        step = {"status": status, "headers": {"Location": location}, "body": "{}"}
        refusal = pytest.raises(InferenceError, match=rf"Unhandled redirection .*\[{status}\].*localhost")
        with scripted_service(step) as service, refusal:
            embed(service, ["a"])
        assert elsewhere.requests == []


def test_a_redirect_within_the_host_is_followed():
    with scripted_service(
        {"status": 307, "headers": {"Location": "/v2/embeddings"}, "body": "{}"}, {}
    ) as service:
        assert len(embed(service, ["a"])) == 1
        assert [request["path"] for request in service.requests] == ["/v1/embeddings", "/v2/embeddings"]


def test_batches_respect_the_service_and_keep_the_order(monkeypatch):
    from models.endpoints import services

    small = {**services.SERVICES, "openai": services.Service(tasks=("text_embedding",), batch=10)}
    texts = [f"{'x' * (n % 7)}{n}" for n in range(31)]
    with scripted_service() as service:
        endpoint = openai(service.url)
        monkeypatch.setattr("models.remote.model.SERVICES", small)
        found = remote_model(endpoint, QUICK).load().embed(texts, "ingest")
        sizes = sorted(len(request["body"]["input"]) for request in service.requests)
    assert sizes == [1, 10, 10, 10]
    assert [row[0] for row in found.values.tolist()] == [len(text) for text in texts]


def test_no_texts_need_no_request():
    with scripted_service() as service:
        assert len(embed(service, [])) == 0
        assert service.requests == []


@pytest.mark.parametrize("texts", [[""], ["   "]])
def test_blank_texts_are_sent_as_they_are(texts):
    with scripted_service() as service:
        assert len(embed(service, texts)) == 1
        assert service.requests[0]["body"]["input"] == texts


@pytest.mark.parametrize(
    ("text", "max_input_tokens", "sent", "is_truncated"),
    [
        ("abcdef", 1, "abc", True),
        ("abc", 1, "abc", False),
        ("awesome", 2, "awesom", True),
        ("awesome", None, "awesome", False),
    ],
)
def test_max_input_tokens_cuts_three_characters_a_token(text, max_input_tokens, sent, is_truncated):
    settings = {} if max_input_tokens is None else {"max_input_tokens": max_input_tokens}
    with scripted_service() as service:
        found = embed(service, [text], **settings)
        assert service.requests[0]["body"]["input"] == [sent]
    assert found.is_truncated.tolist() == [is_truncated]


@pytest.mark.parametrize(
    "refusal",
    [
        {"status": 413, "body": '{"error": "content too large"}'},
        {"status": 400, "body": '{"error": {"message": "This model\'s maximum context length is 3 tokens"}}'},
    ],
)
def test_a_text_that_is_too_large_is_cut_to_half(refusal):
    with scripted_service(refusal, {}) as service:
        found = embed(service, ["abcdefg"])
        assert [request["body"]["input"] for request in service.requests] == [["abcdefg"], ["abc"]]
    assert found.is_truncated.tolist() == [True]


def test_only_the_text_that_is_too_large_is_cut():
    refusal = {"status": 413, "body": "{}"}
    with scripted_service(refusal, {}, refusal, {}) as service:
        found = embed(service, ["fine", "much too long"])
    assert found.is_truncated.tolist() == [False, True]
    assert found.values[:, 0].tolist() == [4, 6]


def test_a_text_that_never_fits_is_an_error():
    with scripted_service({"status": 413, "body": "{}"}) as service:
        with pytest.raises(InferenceError, match="Received a content too large status code"):
            embed(service, ["abcdefg" * 100])
        assert len(service.requests) < 12


WORKER = textwrap.dedent("""
    import sys
    from models.endpoints.endpoint import parse_endpoint
    from models.remote.model import remote_model
    settings = {"api_key": "env:PLANTED", "model_id": "m", "url": sys.argv[1],
                "rate_limit": {"requests_per_minute": 600}}
    endpoint = parse_endpoint("remote", {"service": "openai", "service_settings": settings}, "text_embedding")
    embedder = remote_model(endpoint).load()
    for _ in range(8):
        embedder.embed(["a"], "ingest")
""")


def test_the_rate_limit_holds_across_processes():
    with scripted_service() as service:
        command = [sys.executable, "-c", WORKER, f"{service.url}/v1/embeddings"]
        workers = [subprocess.Popen(command, env=os.environ) for _ in range(2)]
        assert [worker.wait(240) for worker in workers] == [0, 0]
        moments = sorted(request["at"] for request in service.requests)
    assert len(moments) == 16
    # 600 a minute is one in 0.1 s: 16 requests of two processes take 15 steps.
    assert moments[-1] - moments[0] > 1.0  # the first may have been late
