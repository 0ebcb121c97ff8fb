"""What services that rerank are asked and answer: a query and texts to an index and a score for each text.

Most speak the same: ``{"query": …, "documents": […], "model": …}`` to ``results[].relevance_score``. Each service is
one `RerankDialect`: where it is, how it authenticates, what its requests say, and how its answers are shaped.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from models.endpoints.endpoint import Endpoint
from models.endpoints.jsonpath import extract
from models.endpoints.secrets import Secrets
from models.remote.protocol import Call, RerankProtocol, Send, Settings, bearer, json_call, without_none
from models.remote.protocols import alibabacloud, amazon, cluster, custom, google, watsonxai

Scores = Sequence[tuple[int, float]]


def _key(endpoint: Endpoint, secrets: Secrets, send: Send) -> Callable[[], dict[str, str]]:
    """The usual header with an API key, where the endpoint has one."""
    return lambda: bearer(secrets["api_key"]) if "api_key" in secrets else {}


@dataclass(frozen=True, slots=True)
class RerankDialect:
    """How one service is asked to rerank.

    Attributes:
        url: URL of an endpoint's requests.
        body: what is sent: (endpoint, query, texts) -> fields; those that are None are left out.
        rows: name of the list in an answer; empty where the answer is that list.
        score: name of a row's score.
        authorize: makes what gives the headers of one request.
        parameters: query parameters.
    """

    url: Callable[[Endpoint], str]
    body: Callable[[Endpoint, str, Sequence[str]], Mapping[str, Any]]
    rows: str = "results"
    score: str = "relevance_score"
    authorize: Callable[[Endpoint, Secrets, Send], Callable[[], dict[str, str]]] = _key
    parameters: Callable[[Settings], list[tuple[str, str]]] = lambda settings: []


def _fixed(url: str) -> Callable[[Endpoint], str]:
    """The service's own URL, unless the endpoint names another."""
    return lambda endpoint: str(endpoint.service_settings.get("url") or url)


def _documents(endpoint: Endpoint, query: str, texts: Sequence[str]) -> dict[str, Any]:
    return {"model": endpoint.service_settings.get("model_id"), "query": query, "documents": list(texts)}


def _contextual(endpoint: Endpoint, query: str, texts: Sequence[str]) -> dict[str, Any]:
    return {**_documents(endpoint, query, texts), "instruction": endpoint.task_settings.get("instruction")}


def _voyage(endpoint: Endpoint, query: str, texts: Sequence[str]) -> dict[str, Any]:
    return {**_documents(endpoint, query, texts), "truncation": endpoint.task_settings.get("truncation")}


def _nvidia(endpoint: Endpoint, query: str, texts: Sequence[str]) -> dict[str, Any]:
    passages = [{"text": text} for text in texts]
    return {
        "model": endpoint.service_settings["model_id"],
        "query": {"text": query},
        "passages": passages,
    }


def _watsonx(endpoint: Endpoint, query: str, texts: Sequence[str]) -> dict[str, Any]:
    settings, cut = endpoint.service_settings, endpoint.task_settings.get("truncate_input_tokens")
    return {
        "model_id": settings["model_id"],
        "project_id": settings["project_id"],
        "query": query,
        "inputs": [{"text": text} for text in texts],
        "parameters": None if cut is None else {"truncate_input_tokens": cut},
    }


def _watsonx_url(endpoint: Endpoint) -> str:
    base = str(endpoint.service_settings["url"]).rstrip("/")
    return base if base.endswith("/rerank") else f"{base}/ml/v1/text/rerank"


def _studio_url(endpoint: Endpoint) -> str:
    target = str(endpoint.service_settings["target"])
    return target if "/rerank" in target else f"{target.rstrip('/')}/v1/rerank"


def _vertex_url(endpoint: Endpoint) -> str:
    settings = endpoint.service_settings
    project = quote(settings["project_id"], safe="")
    return str(settings.get("url") or f"{google.RANKING_URL}/v1/projects/{project}/{google.RANKING_PATH}")


def _vertex(endpoint: Endpoint, query: str, texts: Sequence[str]) -> dict[str, Any]:
    # Records have ids of the sender's; here they are the positions of the texts.
    records = [{"id": str(at), "content": text} for at, text in enumerate(texts)]
    return {"model": endpoint.service_settings.get("model_id"), "query": query, "records": records}


def _alibaba_url(endpoint: Endpoint) -> str:
    return alibabacloud.url_of(endpoint.service_settings, "ranker")


DIALECTS: dict[str, RerankDialect] = {
    "alibabacloud-ai-search": RerankDialect(
        _alibaba_url, lambda _, query, texts: {"query": query, "docs": list(texts)}, "result.scores", "score"
    ),
    "azureaistudio": RerankDialect(
        _studio_url,
        _documents,
        authorize=lambda _, secrets, send: lambda: {"Authorization": secrets["api_key"]},
    ),
    "cohere": RerankDialect(_fixed("https://api.cohere.com/v2/rerank"), _documents),
    "contextualai": RerankDialect(_fixed("https://api.contextual.ai/v1/rerank"), _contextual),
    "googlevertexai": RerankDialect(_vertex_url, _vertex, "records", "score", google.authorization),
    "hugging_face": RerankDialect(
        lambda endpoint: str(endpoint.service_settings["url"]),
        lambda _, query, texts: {"query": query, "texts": list(texts)},
        "",
        "score",
    ),
    "jinaai": RerankDialect(_fixed("https://api.jina.ai/v1/rerank"), _documents),
    "nvidia": RerankDialect(
        _fixed("https://ai.api.nvidia.com/v1/retrieval/nvidia/reranking"), _nvidia, "rankings", "logit"
    ),
    "openshift_ai": RerankDialect(lambda endpoint: str(endpoint.service_settings["url"]), _documents),
    "voyageai": RerankDialect(_fixed("https://api.voyageai.com/v1/rerank"), _voyage, "data"),
    "watsonxai": RerankDialect(
        _watsonx_url,
        _watsonx,
        "results",
        "score",
        watsonxai.authorization,
        lambda settings: [("version", settings["api_version"])],
    ),
    "elasticsearch": RerankDialect(
        cluster.url_of, cluster.rerank_body, "rerank", authorize=cluster.authorization
    ),
    "elastic": RerankDialect(cluster.url_of, cluster.rerank_body, "rerank", authorize=cluster.authorization),
}


class DialectProtocol(RerankProtocol):
    """Requests and answers of a service that has a dialect."""

    def __init__(self, dialect: RerankDialect, endpoint: Endpoint, secrets: Secrets, send: Send) -> None:
        self._dialect, self._endpoint = dialect, endpoint
        self._headers = dialect.authorize(endpoint, secrets, send)
        self._url = dialect.url(endpoint)

    def call(self, query: str, texts: Sequence[str]) -> Call:
        """Build the request."""
        body = without_none(self._dialect.body(self._endpoint, query, texts))
        parameters = self._dialect.parameters(self._endpoint.service_settings)
        return json_call(self._url, body, self._headers(), parameters)

    def parse(self, answer: Any) -> Scores:
        """Take each row's position and score; a service may order the rows as it likes."""
        rows = answer
        for name in filter(None, self._dialect.rows.split(".")):
            rows = rows[name]
        return [(int(row.get("index", row.get("id"))), float(row[self._dialect.score])) for row in rows]


class SageMakerRerank(RerankProtocol):
    """A model behind a SageMaker endpoint that speaks Elastic's protocol."""

    def __init__(self, endpoint: Endpoint, secrets: Secrets) -> None:
        self._send = amazon.Invocation(endpoint, secrets)

    def call(self, query: str, texts: Sequence[str]) -> Call:
        """Build the request and sign it."""
        return self._send.call({"query": query, "input": list(texts)})

    def parse(self, answer: Any) -> Scores:
        """Elastic's protocol answers as Elasticsearch does."""
        return [(int(row["index"]), float(row["relevance_score"])) for row in answer["rerank"]]


class CustomRerank(RerankProtocol):
    """Requests and answers as the definition describes them."""

    def __init__(self, endpoint: Endpoint, secrets: Secrets) -> None:
        self._templates = custom.Templates(endpoint, secrets)
        self._parser = endpoint.service_settings["response"]["json_parser"]

    def call(self, query: str, texts: Sequence[str]) -> Call:
        """Fill in the templates."""
        return self._templates.call({}, {"query": query, "input": list(texts)})

    def parse(self, answer: Any) -> Scores:
        """Follow the paths of the definition's ``json_parser``; without indexes, scores stand in the texts' order."""
        scores = extract(self._parser["relevance_score"], answer)
        path = self._parser.get("reranked_index")
        places = range(len(scores)) if path is None else extract(path, answer)
        return [(int(at), float(score)) for at, score in zip(places, scores, strict=True)]


def open_protocol(endpoint: Endpoint, secrets: Secrets, send: Send) -> RerankProtocol:
    """Return the protocol of a rerank endpoint."""
    if endpoint.service == "custom":
        return CustomRerank(endpoint, secrets)
    if endpoint.service == "amazon_sagemaker":
        return SageMakerRerank(endpoint, secrets)
    return DialectProtocol(DIALECTS[endpoint.service], endpoint, secrets, send)
