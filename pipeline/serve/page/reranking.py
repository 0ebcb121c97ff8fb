"""The page's reranking: the endpoints that there are for it, and the one that a request names."""

from collections.abc import Mapping, Sequence
from typing import Any

from models.endpoints.registry import Registry
from models.errors import InferenceError
from models.reranker import Relevance, Reranker
from pipeline.errors import PipelineError
from pipeline.search.hits.reranking import DEPTH, open_reranker
from pipeline.serve.corpus import Corpus
from pipeline.serve.inference import known_form
from pipeline.serve.page.parameters import WrongParameter, whole_number

MOST_DEPTH = 1000


def reranking_endpoints(corpus: Corpus) -> list[str]:
    """Ids of the endpoints that rerank."""
    folder, _ = _sections(corpus)
    return [endpoint.inference_id for endpoint in Registry(folder).list("rerank")]


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
