"""Inference services as one plain dict: which tasks a service has, which settings it takes, how it is called.

A new service is one entry of `SERVICES`, and one file in `models/remote/protocols/` if it speaks a protocol of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

EMBEDDING_TASKS = ("sparse_embedding", "text_embedding", "embedding")
TASKS = (*EMBEDDING_TASKS, "rerank")
"""The tasks that endpoints here can have."""

OTHER_TASKS = ("completion", "chat_completion")

Kind = Literal[
    "string", "secret", "secrets", "url", "integer", "boolean", "strings", "headers", "mapping", "pairs"
]


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a service.

    Attributes:
        kind: type of its value. `secret` is a string that is stored as a reference, `secrets` an object of them; in
            `headers`, values of headers that carry credentials are secrets too.
        required: whether a definition must have it.
        default: what a definition without it gets; None leaves it out.
        choices: the allowed values; empty allows all.
        minimum: smallest allowed number.
    """

    kind: Kind = "string"
    required: bool = False
    default: Any = None
    choices: tuple[str, ...] = ()
    minimum: int = 1


@dataclass(frozen=True, slots=True)
class Service:
    """What a service can do and what its definitions look like.

    Attributes:
        tasks: its embedding tasks; empty for a service that has none. `models.endpoints.rerank_services` has `rerank`.
        settings: its `service_settings`.
        task_settings: its `task_settings`.
        protocol: module of `models.remote.protocols` that calls it; `local` for models that run here.
        rate: requests a minute when a definition has no `rate_limit`; None is unlimited.
        batch: most texts in one request.
        one_of: groups of settings of which at least one must be there.
        other_tasks: its tasks that neither embed nor rerank.
        note: what a user should know when defining such an endpoint.
    """

    tasks: tuple[str, ...] = ("text_embedding",)
    settings: Mapping[str, Setting] = field(default_factory=dict)
    task_settings: Mapping[str, Setting] = field(default_factory=dict)
    protocol: str = "openai"
    rate: int | None = None
    batch: int = 2048
    one_of: tuple[tuple[str, ...], ...] = ()
    other_tasks: tuple[str, ...] = OTHER_TASKS
    note: str | None = None


TEXT, NEEDED = Setting(), Setting(required=True)
SECRET, KEY = Setting("secret"), Setting("secret", required=True)
URL, NEEDED_URL = Setting("url"), Setting("url", required=True)
COUNT, FLAG, HEADERS, STRINGS = Setting("integer"), Setting("boolean"), Setting("headers"), Setting("strings")
INPUT_TYPE = Setting(choices=("ingest", "search", "classification", "clustering"))
TRUNCATE = Setting(choices=("END", "START", "NONE"))

DENSE = {
    "similarity": Setting(choices=("cosine", "dot_product", "l2_norm")),
    "dimensions": COUNT,
    "max_input_tokens": COUNT,
    "rate_limit": Setting("mapping"),
}
BYTES = Setting(default="float", choices=("float", "byte", "int8", "bit", "binary"))
BITS = Setting(default="float", choices=("float", "bit", "binary"))
AWS = {"access_key": KEY, "secret_key": KEY, "region": NEEDED}
ELEMENT_TYPE = Setting(choices=("float", "byte", "bit"))
ALLOCATIONS = {
    "num_threads": COUNT,
    "num_allocations": COUNT,
    "adaptive_allocations": Setting("mapping"),
}
CLUSTER = {"url": URL, "api_key": SECRET, "inference_id": TEXT, "max_batch_size": COUNT}
"""Our extension of `elasticsearch` and `elastic`: an endpoint of a remote cluster."""

SERVICES: dict[str, Service] = {
    "elasticsearch": Service(
        tasks=("sparse_embedding", "text_embedding"),
        settings={
            **ALLOCATIONS,
            **CLUSTER,
            "model_id": TEXT,
            "deployment_id": TEXT,
            **DENSE,
            "element_type": ELEMENT_TYPE,
        },
        protocol="local",
        batch=10,
        other_tasks=(),
    ),
    "elser": Service(
        tasks=("sparse_embedding",),
        settings={**ALLOCATIONS, "model_id": TEXT},
        protocol="local",
        batch=10,
        other_tasks=(),
        note="The [elser] service is deprecated and will be removed in a future release. Use the"
        " [elasticsearch] service instead, with [model_id] set to [.elser_model_2] in the"
        " [service_settings]",
    ),
    "elastic": Service(
        tasks=EMBEDDING_TASKS,
        settings={"model_id": NEEDED, **DENSE, **CLUSTER, "element_type": ELEMENT_TYPE},
        protocol="local",
        batch=16,
    ),
    "hashing": Service(
        tasks=("sparse_embedding", "text_embedding"),
        settings={"dimensions": COUNT, "element_type": ELEMENT_TYPE},
        protocol="local",
        batch=1024,
        other_tasks=(),
    ),
    "alibabacloud-ai-search": Service(
        tasks=("sparse_embedding", "text_embedding"),
        settings={
            "api_key": KEY,
            "host": NEEDED,
            "service_id": NEEDED,
            "workspace": NEEDED,
            "http_schema": Setting(choices=("https", "http")),
            **DENSE,
        },
        task_settings={"input_type": INPUT_TYPE, "return_token": FLAG},
        protocol="alibabacloud",
        rate=1000,
        batch=32,
    ),
    "amazonbedrock": Service(
        settings={
            **AWS,
            "model": NEEDED,
            "provider": Setting(
                choices=("amazontitan", "cohere", "ai21labs", "anthropic", "meta", "mistral")
            ),
            **DENSE,
        },
        task_settings={"truncate": TRUNCATE},
        protocol="amazon",
        rate=240,
        batch=96,
    ),
    "amazon_sagemaker": Service(
        tasks=("sparse_embedding", "text_embedding"),
        settings={
            **AWS,
            "endpoint_name": NEEDED,
            "api": Setting(required=True, choices=("openai", "elastic")),
            **DENSE,
            "element_type": Setting(choices=("byte", "float", "bit")),
            "batch_size": COUNT,
            "target_model": TEXT,
            "target_container_hostname": TEXT,
            "inference_component_name": TEXT,
        },
        task_settings={
            "custom_attributes": TEXT,
            "enable_explanations": TEXT,
            "inference_id": TEXT,
            "session_id": TEXT,
            "target_variant": TEXT,
            "user": TEXT,
        },
        protocol="amazon",
        batch=256,
    ),
    "azureaistudio": Service(
        settings={
            "api_key": KEY,
            "target": NEEDED_URL,
            "provider": Setting(
                required=True, choices=("cohere", "databricks", "meta", "microsoft_phi", "mistral", "openai")
            ),
            "endpoint_type": Setting(required=True, choices=("token", "realtime")),
            **DENSE,
        },
        task_settings={"user": TEXT},
        rate=240,
    ),
    "azureopenai": Service(
        settings={
            "api_key": SECRET,
            "entra_id": SECRET,
            "client_secret": SECRET,
            "client_id": TEXT,
            "tenant_id": TEXT,
            "scopes": STRINGS,
            "resource_name": NEEDED,
            "deployment_id": NEEDED,
            "api_version": NEEDED,
            **DENSE,
        },
        task_settings={"user": TEXT, "headers": HEADERS},
        rate=1440,
        one_of=(("api_key", "entra_id", "client_secret"),),
    ),
    "cohere": Service(
        settings={"api_key": KEY, "model_id": NEEDED, "embedding_type": BYTES, "url": URL, **DENSE},
        task_settings={"input_type": INPUT_TYPE, "truncate": TRUNCATE},
        protocol="cohere",
        rate=10_000,
        batch=96,
    ),
    "custom": Service(
        tasks=("sparse_embedding", "text_embedding"),
        settings={
            "secret_parameters": Setting("secrets"),
            "url": NEEDED_URL,
            "headers": HEADERS,
            "query_parameters": Setting("pairs"),
            "request": Setting("mapping", required=True),
            "response": Setting("mapping", required=True),
            "input_type": Setting("mapping"),
            "batch_size": Setting("integer", default=10),
            **DENSE,
        },
        task_settings={"parameters": Setting("mapping")},
        protocol="custom",
        rate=10_000,
        batch=10,
    ),
    "fireworksai": Service(
        settings={"api_key": KEY, "model_id": NEEDED, "url": URL, **DENSE},
        task_settings={"user": TEXT, "headers": HEADERS},
        rate=6000,
    ),
    "googleaistudio": Service(
        settings={"api_key": KEY, "model_id": NEEDED, **DENSE}, protocol="google", rate=360, batch=100
    ),
    "googlevertexai": Service(
        settings={
            "service_account_json": KEY,
            "model_id": TEXT,
            "location": TEXT,
            "project_id": TEXT,
            "max_batch_size": COUNT,
            "provider": Setting(choices=("google", "anthropic", "meta", "hugging_face", "mistral", "ai21")),
            "url": URL,
            **DENSE,
        },
        task_settings={"auto_truncate": FLAG, "input_type": INPUT_TYPE},
        protocol="google",
        rate=30_000,
        batch=250,
    ),
    "hugging_face": Service(
        settings={"api_key": KEY, "url": NEEDED_URL, **DENSE}, protocol="hugging_face", rate=3000, batch=20
    ),
    "jinaai": Service(
        tasks=("text_embedding", "embedding"),
        settings={
            "api_key": KEY,
            "model_id": NEEDED,
            "embedding_type": BITS,
            "element_type": BITS,
            "multimodal_model": FLAG,
            "url": URL,
            **DENSE,
        },
        task_settings={"input_type": INPUT_TYPE, "task": INPUT_TYPE, "late_chunking": FLAG},
        rate=2000,
    ),
    "llama": Service(settings={"url": NEEDED_URL, "model_id": NEEDED, "api_key": SECRET, **DENSE}, rate=3000),
    "mistral": Service(settings={"api_key": KEY, "model": NEEDED, "url": URL, **DENSE}, rate=240, batch=512),
    "nvidia": Service(
        settings={"api_key": KEY, "model_id": NEEDED, "url": URL, **DENSE},
        task_settings={"input_type": Setting(choices=("ingest", "search")), "truncate": TRUNCATE},
        rate=3000,
    ),
    "openai": Service(
        tasks=("text_embedding", "embedding"),
        settings={
            "model_id": NEEDED,
            "api_key": SECRET,
            "client_id": TEXT,
            "client_secret": SECRET,
            "token_url": URL,
            "scopes": STRINGS,
            "organization_id": TEXT,
            "url": URL,
            **DENSE,
        },
        task_settings={"user": TEXT, "headers": HEADERS},
        rate=3000,
        one_of=(("api_key", "client_secret"),),
    ),
    "openshift_ai": Service(
        settings={"api_key": KEY, "url": NEEDED_URL, "model_id": TEXT, **DENSE}, rate=3000
    ),
    "voyageai": Service(
        settings={"api_key": SECRET, "model_id": NEEDED, "embedding_type": BYTES, "url": URL, **DENSE},
        task_settings={"input_type": INPUT_TYPE, "truncation": FLAG},
        rate=2000,
        batch=128,
    ),
    "watsonxai": Service(
        settings={
            "api_key": KEY,
            "api_version": NEEDED,
            "model_id": NEEDED,
            "project_id": NEEDED,
            "url": NEEDED_URL,
            **DENSE,
        },
        protocol="watsonxai",
        rate=120,
        batch=1000,
    ),
    "ai21": Service(tasks=(), other_tasks=("completion", "chat_completion")),
    "anthropic": Service(tasks=(), other_tasks=("completion", "chat_completion")),
    "contextualai": Service(tasks=(), other_tasks=()),
    "deepseek": Service(tasks=(), other_tasks=("completion", "chat_completion")),
    "groq": Service(tasks=(), other_tasks=("chat_completion",)),
}
