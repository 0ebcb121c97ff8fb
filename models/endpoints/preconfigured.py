"""The endpoints that nobody has to define."""

from functools import cache
from typing import Any, NamedTuple

from models.endpoints.endpoint import Endpoint, parse_endpoint

_ADAPTIVE = {
    "num_threads": 1,
    "adaptive_allocations": {
        "enabled": True,
        "min_number_of_allocations": 0,
        "max_number_of_allocations": 32,
    },
}
_JINA = {"similarity": "cosine", "element_type": "float"}


class Preconfigured(NamedTuple):
    """An endpoint that nobody has to define."""

    task_type: str
    service: str
    service_settings: dict[str, Any]
    chunking_settings: dict[str, Any] | None = None


# MiniLM would read 256 tokens of Elasticsearch's 250 words and not the rest, and find less on long documents
# (docs/retrieval.md).
_MINILM_CHUNKS = {"strategy": "sentence", "max_chunk_size": 150, "sentence_overlap": 1}

PRECONFIGURED: dict[str, Preconfigured] = {
    ".elser-2-elasticsearch": Preconfigured(
        "sparse_embedding",
        "elasticsearch",
        {"model_id": ".elser_model_2", **_ADAPTIVE},
    ),
    ".rerank-v1-elasticsearch": Preconfigured(
        "rerank", "elasticsearch", {"model_id": ".rerank-v1", **_ADAPTIVE}
    ),
    ".elser-2-elastic": Preconfigured("sparse_embedding", "elastic", {"model_id": "elser_model_2"}),
    ".multilingual-e5-small-elasticsearch": Preconfigured(
        "text_embedding",
        "elasticsearch",
        {"model_id": ".multilingual-e5-small", **_ADAPTIVE},
    ),
    ".jina-embeddings-v3": Preconfigured(
        "text_embedding",
        "elastic",
        {"model_id": "jina-embeddings-v3", "dimensions": 1024, **_JINA},
    ),
    ".jina-embeddings-v5-text-small": Preconfigured(
        "text_embedding",
        "elastic",
        {"model_id": "jina-embeddings-v5-text-small", "dimensions": 1024, **_JINA},
    ),
    ".jina-embeddings-v5-text-nano": Preconfigured(
        "text_embedding",
        "elastic",
        {"model_id": "jina-embeddings-v5-text-nano", "dimensions": 768, **_JINA},
    ),
    ".minilm-l6-v2": Preconfigured(
        "text_embedding", "elasticsearch", {"model_id": "all-minilm-l6-v2", **_ADAPTIVE}, _MINILM_CHUNKS
    ),
    ".splade-tiny": Preconfigured(
        "sparse_embedding", "elasticsearch", {"model_id": "splade-tiny", **_ADAPTIVE}
    ),
    ".hashing-dense": Preconfigured("text_embedding", "hashing", {"dimensions": 64}),
    ".hashing-sparse": Preconfigured("sparse_embedding", "hashing", {}),
}
"""The endpoints that are always there, by id."""


@cache
def preconfigured(inference_id: str) -> Endpoint | None:
    """Return the preconfigured endpoint with this id, or None."""
    if inference_id not in PRECONFIGURED:
        return None
    found = PRECONFIGURED[inference_id]._asdict()
    task_type = found.pop("task_type")
    body = {name: value for name, value in found.items() if value is not None}
    return parse_endpoint(inference_id, body, task_type)
