"""Services that rerank: what each one's definition of the task `rerank` looks like, and how it is called.

A service has other settings for each of its tasks, so that one that embeds too stands here once more.
"""

from collections.abc import Mapping

from models.endpoints.services import (
    ALLOCATIONS,
    AWS,
    CLUSTER,
    COUNT,
    FLAG,
    HEADERS,
    KEY,
    NEEDED,
    NEEDED_URL,
    SERVICES,
    TEXT,
    URL,
    Service,
    Setting,
)

_LIMIT = {"rate_limit": Setting("mapping")}
_SHOWN = {"return_documents": FLAG, "top_n": COUNT}
_KEYED = {"api_key": KEY, "model_id": NEEDED, "url": URL, **_LIMIT}

MOST_TEXTS = 100
"""Texts of one request to a service of which no bound is known."""


def _service(
    settings: Mapping[str, Setting],
    task_settings: Mapping[str, Setting] | None = None,
    *,
    protocol: str = "rerank",
    rate: int | None = None,
    batch: int = MOST_TEXTS,
) -> Service:
    return Service(("rerank",), settings, task_settings or {}, protocol, rate, batch)


RERANK_SERVICES: dict[str, Service] = {
    "elasticsearch": _service(
        {
            **ALLOCATIONS,
            **CLUSTER,
            "model_id": TEXT,
            "deployment_id": TEXT,
            "long_document_strategy": Setting(choices=("truncate", "chunk")),
            "max_chunks_per_doc": COUNT,
        },
        {"return_documents": FLAG},
        protocol="local",
    ),
    "elastic": _service({"model_id": NEEDED, **CLUSTER, **_LIMIT}, protocol="local"),
    "alibabacloud-ai-search": _service(
        {
            name: setting
            for name, setting in SERVICES["alibabacloud-ai-search"].settings.items()
            if name in ("api_key", "host", "service_id", "workspace", "http_schema", "rate_limit")
        },
        rate=1000,
    ),
    "amazon_sagemaker": _service(
        {
            **AWS,
            "endpoint_name": NEEDED,
            "api": Setting(required=True, choices=("elastic",)),
            "target_model": TEXT,
            "target_container_hostname": TEXT,
            "inference_component_name": TEXT,
            "batch_size": COUNT,
        },
        {**SERVICES["amazon_sagemaker"].task_settings, **_SHOWN},
    ),
    "azureaistudio": _service(
        {
            name: setting
            for name, setting in SERVICES["azureaistudio"].settings.items()
            if name in ("api_key", "target", "provider", "endpoint_type", "rate_limit")
        },
        _SHOWN,
        rate=240,
    ),
    "cohere": _service(_KEYED, _SHOWN, rate=10_000),
    "contextualai": _service(
        _KEYED,
        {"instruction": TEXT, "top_k": COUNT, "return_documents": FLAG},
        rate=1000,
    ),
    "custom": _service(
        {
            "secret_parameters": Setting("secrets"),
            "url": NEEDED_URL,
            "headers": HEADERS,
            "query_parameters": Setting("pairs"),
            "request": Setting("mapping", required=True),
            "response": Setting("mapping", required=True),
            "batch_size": COUNT,
            **_LIMIT,
        },
        {"parameters": Setting("mapping")},
        rate=10_000,
    ),
    "googlevertexai": _service(
        {"service_account_json": KEY, "project_id": NEEDED, "model_id": TEXT, "url": URL, **_LIMIT},
        {"top_n": COUNT},
        rate=300,
        batch=200,
    ),
    "hugging_face": _service({"api_key": KEY, "url": NEEDED_URL, **_LIMIT}, _SHOWN, rate=3000, batch=32),
    "jinaai": _service(_KEYED, _SHOWN, rate=2000),
    "nvidia": _service(_KEYED, rate=3000),
    "openshift_ai": _service(
        {"api_key": KEY, "url": NEEDED_URL, "model_id": TEXT, **_LIMIT},
        _SHOWN,
        rate=3000,
    ),
    "voyageai": _service(
        _KEYED,
        {"return_documents": FLAG, "top_k": COUNT, "truncation": FLAG},
        rate=2000,
    ),
    "watsonxai": _service(
        {
            name: setting
            for name, setting in SERVICES["watsonxai"].settings.items()
            if name not in ("similarity", "dimensions", "max_input_tokens")
        },
        {"truncate_input_tokens": COUNT, **_SHOWN},
        rate=120,
    ),
}
"""By name of the service. `batch` is the most texts that one request ranks."""


def service_of(name: str, task_type: str) -> Service:
    """What the definitions of a service look like for one of its tasks.

    Raises:
        KeyError: there is no such service, or it does not rerank.
    """
    return RERANK_SERVICES[name] if task_type == "rerank" else SERVICES[name]
