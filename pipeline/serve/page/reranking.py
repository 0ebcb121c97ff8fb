"""The page's reranking: the endpoints that there are for it, and the one that a request names."""

from collections.abc import Mapping, Sequence
from typing import Any

from models.endpoints.endpoint import Endpoint
from models.endpoints.registry import Registry
from models.errors import InferenceError
from models.open_model import open_rerank_model
from models.reranker import Relevance, Reranker
from pipeline.errors import PipelineError
from pipeline.search.hits.reranking import DEPTH, open_reranker
from pipeline.serve.corpus import Corpus
from pipeline.serve.inference import known_form
from pipeline.serve.page.parameters import WrongParameter, whole_number

MOST_DEPTH = 1000


def reranking_endpoints(corpus: Corpus) -> list[str]:
    """Ids of the endpoints that rerank and whose models can be had."""
    folder, models = _sections(corpus)
    endpoints = Registry(folder).list("rerank")
    return [endpoint.inference_id for endpoint in endpoints if _can_be_had(endpoint, models)]


def _can_be_had(endpoint: Endpoint, models: Mapping[str, Any]) -> bool:
    try:
        return not open_rerank_model(endpoint, models).problems()
    except InferenceError:
        return False


def reranking(corpus: Corpus, query: Mapping[str, str], k: int) -> dict[str, Any]:
    """What a search is told of reranking: attributes of `SearchOptions`; none where a request does not want it.

    Args:
        corpus: what is served.
        query: ``rerank``, an endpoint's id, and ``depth``, documents to rank again.
        k: documents to find.

    Raises:
        WrongParameter: one of them is wrong, or the endpoint's model cannot be used.
    """
    inference_id = query.get("rerank")
    if not inference_id:
        return {}
    depth = whole_number(query, "depth", max(DEPTH, k), k, MOST_DEPTH)
    try:
        opened = open_reranker(known_form(inference_id), *_sections(corpus))
        return {"rerank": _Told(opened), "depth": depth}
    except PipelineError as error:
        reason = str(error)
    except InferenceError as error:
        reason = error.reason
    raise WrongParameter("rerank", reason)


def _sections(corpus: Corpus) -> tuple[str | None, Mapping[str, Any]]:
    """Folder of the endpoints and the ``models`` section: the run config's, or those that the index knows."""
    if corpus.config is not None:
        return corpus.endpoints, corpus.models
    metadata = corpus.index.state.metadata
    return metadata.get("endpoints_path"), metadata.get("models") or {}


class _Told(Reranker):
    """A reranker whose errors are told beside the field that names it."""

    def __init__(self, reranker: Reranker) -> None:
        self._reranker = reranker

    def rerank(self, query: str, texts: Sequence[str]) -> Relevance:
        """See `models.reranker.Reranker`."""
        try:
            return self._reranker.rerank(query, texts)
        except InferenceError as error:
            reason = error.reason
        raise WrongParameter("rerank", reason)

    def close(self) -> None:
        """Nothing: other searches share the model."""
