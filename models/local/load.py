"""From a checkpoint's files to an embedder that is ready to run."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from models.embeddings import Embedder
from models.endpoints.endpoint import Endpoint
from models.errors import ModelLoadError, ValidationError
from models.local.architectures import bert, generic, native, packed, torch_bert
from models.local.architectures.torchscript import ScriptedModel
from models.local.batching import TokenBatch
from models.local.checkpoint import OpenCheckpoint
from models.local.dense import Compute, DenseEmbedder
from models.local.settings import dimensions_of, similarity_of
from models.local.sparse import SparseEmbedder, SparseRows, read_idf
from models.local.weights import read_json, read_tensors
from models.local.workers import Workers, allocations, usable_cores

CPU_TOKENS, GPU_TOKENS = 1024, 65_536
"""Tokens of a batch: on a CPU what lies in the caches, on a GPU what fills it."""

_CODE_OF_ITS_OWN = (
    "; it brings code of its own, and code from a checkpoint is never run: take a conversion of the model"
    " that transformers knows (for jina-embeddings-v3: jinaai/jina-embeddings-v3-hf), or a remote service"
)


def unsupported(folder: Path, task_type: str) -> list[str]:
    """Say why the checkpoint in `folder` cannot run here; an empty list means it can."""
    config = read_json(folder, "config.json")
    kind = config.get("model_type")
    if kind in bert.MODEL_TYPES:
        return _unsupported_bert(folder, config)
    if task_type == "sparse_embedding":
        known = ", ".join(bert.MODEL_TYPES)
        return [f"Sparse embeddings come from checkpoints of type {known}; [{folder}] is of type [{kind}]"]
    if generic.is_known(config):
        return []
    reason = f"The checkpoint in [{folder}] is of type [{kind}], which transformers does not know"
    return [reason + (_CODE_OF_ITS_OWN if config.get("auto_map") else "")]


def _unsupported_bert(folder: Path, config: Mapping[str, Any]) -> list[str]:
    name = bert.setting(config, "hidden_act")
    if name not in bert.ACTIVATIONS:
        return [f"The activation [{name}] of [{folder}] is not known here"]
    positions = config.get("position_embedding_type", "absolute")
    if positions != "absolute":  # jina-v3 as its authors published it, for one
        reason = f"The positions of [{folder}] are [{positions}], and a [{config['model_type']}] here has [absolute]"
        return [reason + (_CODE_OF_ITS_OWN if config.get("auto_map") else "")]
    return []


def load_embedder(opened: OpenCheckpoint, endpoint: Endpoint, device: str | None) -> Embedder:
    """Load the weights of a checkpoint.

    Args:
        opened: the checkpoint, found to have no problems.
        endpoint: what is wanted of it.
        device: None takes the first CUDA device where there is one.

    Raises:
        ModelLoadError: there is no such device, or the dtype is not for it.
    """
    device = _device(device)
    dtype = choose_dtype(opened.checkpoint.dtype, device)
    budget = CPU_TOKENS if device == "cpu" else GPU_TOKENS
    plan = allocations(endpoint.service_settings, device)
    workers = Workers(plan, usable_cores() if device == "cpu" else None)
    common = {"workers": workers, "device": device, "token_budget": budget}
    if opened.is_script:
        return _scripted(opened, common)
    return _sparse(opened, dtype, common) if endpoint.is_sparse else _dense(opened, endpoint, dtype, common)


def _dense(
    opened: OpenCheckpoint, endpoint: Endpoint, dtype: str, common: Mapping[str, Any]
) -> DenseEmbedder:
    recipe = opened.recipe
    loaded: dict[str | None, Compute] = {}

    def model_for(input_type: str) -> Compute:
        adapter = _adapter_to_add(opened, input_type)
        if adapter not in loaded:
            loaded[adapter] = _pooled(opened, common["device"], dtype, adapter)
        return loaded[adapter]

    model_for("ingest")
    return DenseEmbedder(
        model_for,
        opened.tokens,
        unit=bool(recipe.normalize),
        prefixes=recipe.prefixes or {},
        dimensions=dimensions_of(endpoint, recipe.dimensions),
        element_type=endpoint.element_type,
        similarity=similarity_of(endpoint),
        **common,
    )


def _adapter_to_add(opened: OpenCheckpoint, input_type: str) -> str | None:
    """Name the adapter for an input type that is not in the weights yet."""
    adapter, merged = opened.recipe.adapters.get(input_type), opened.checkpoint.merged_adapter
    if merged is None or adapter is None:
        return adapter
    if adapter != merged:
        raise ModelLoadError(
            f"[{opened.checkpoint.model_id}] embeds input type [{input_type}] with the adapter [{adapter}], but the"
            f" weights in [{opened.folder}] have [{merged}] merged into them; take a checkpoint with all adapters"
        )
    return None


def _pooled(opened: OpenCheckpoint, device: str, dtype: str, adapter: str | None) -> Compute:
    pooling = opened.recipe.pooling or "mean"
    config = read_json(opened.folder, "config.json")
    if config.get("model_type") not in bert.MODEL_TYPES:
        return packed.pooled(generic.GenericEncoder(opened.folder, device, dtype, adapter), pooling, device)
    weights = bert.read_weights(read_tensors(opened.folder), config)
    found = _kernels(opened, weights, device, dtype)
    if found is not None:
        return native.pooled(native.NativeEncoder(weights, found), pooling)
    return packed.pooled(torch_bert.BertEncoder(weights, device, dtype), pooling, device)


def _sparse(opened: OpenCheckpoint, dtype: str, common: Mapping[str, Any]) -> SparseEmbedder:
    folder, tokens = opened.folder, opened.tokens
    idf = read_idf(folder, tokens.vocabulary()) if opened.recipe.query == "idf" else None
    return SparseEmbedder(_expansion(opened, common["device"], dtype), tokens, idf=idf, **common)


def _expansion(opened: OpenCheckpoint, device: str, dtype: str) -> Callable[[TokenBatch], SparseRows]:
    config, tensors = read_json(opened.folder, "config.json"), read_tensors(opened.folder)
    size = len(opened.tokens.vocabulary())
    weights, head_weights = bert.read_weights(tensors, config), bert.read_head(tensors, config, size)
    special, twice = opened.tokens.special_ids(), opened.recipe.activation == "log1p_log1p_relu"
    if len(special) and special.max() >= len(head_weights.bias):
        raise ModelLoadError(
            f"The tokenizer in [{opened.folder}] has a special token {special.max()}, and the model's vocabulary only"
            f" {len(head_weights.bias)} tokens; they belong to different checkpoints"
        )
    found = _kernels(opened, weights, device, dtype)
    if found is not None:
        fast = native.NativeEncoder(weights, found)
        fast_head = native.NativeHead(head_weights, found, special, twice)
        return lambda batch: fast_head.forward(fast.forward(batch), batch)
    encoder = torch_bert.BertEncoder(weights, device, dtype)
    head = torch_bert.VocabularyHead(head_weights, device, dtype, special, twice)
    return packed.OnDevice(lambda batch: head.forward(encoder.forward(batch), batch), device)


def _kernels(opened: OpenCheckpoint, weights: bert.BertWeights, device: str, dtype: str) -> Any | None:
    wanted = device == "cpu" and opened.checkpoint.backend == "auto"
    return native.kernels_for(weights, dtype) if wanted else None


def _scripted(opened: OpenCheckpoint, common: Mapping[str, Any]) -> SparseEmbedder:
    tokens = opened.tokens
    device = common["device"]
    script = packed.OnDevice(ScriptedModel(opened.folder, device, tokens.special_ids()), device)
    # Elasticsearch spells ELSER's tokens so, since a dot separates the parts of a field name there.
    return SparseEmbedder(script, tokens, rename=lambda token: token.replace(".", "__"), **common)


_GPU_DRIVERS = ("/dev/nvidiactl", "/dev/nvgpu", "/dev/dxg", "/dev/kfd")
"""Where Linux has the driver of a GPU: NVIDIA's, that of its small boards, that under WSL, and AMD's."""


def _device(device: str | None) -> str:
    """Choose the device; import PyTorch, which takes seconds, only where there may be another than the CPU."""
    if device == "cpu":
        return device
    may_be = (
        device is not None or sys.platform != "linux" or any(Path(driver).exists() for driver in _GPU_DRIVERS)
    )
    if may_be:
        import torch

        if torch.cuda.is_available():
            return device or "cuda"
    if device is not None:
        raise ModelLoadError(f"[device: {device}] needs a CUDA device, and this machine has none", status=400)
    return "cpu"


def choose_dtype(name: str | None, device: str) -> str:
    """Choose what to compute in.

    Args:
        name: ``float32``, ``bfloat16`` or ``float16``; None takes float32 on CPU and bfloat16 on a GPU.
        device: where to compute.

    Raises:
        ValidationError: half precision on a CPU that has no instructions for it, where it is slower than full.
    """
    name = name or ("float32" if device == "cpu" else "bfloat16")
    if device == "cpu" and name == "float16":
        raise ValidationError(["[dtype: float16] needs a GPU; leave [dtype] out, or take bfloat16"])
    if device == "cpu" and name == "bfloat16" and native.kernels((), "bfloat16") is None:
        raise ValidationError(
            [
                "[dtype: bfloat16] on a CPU needs a processor with AMX and the compiled kernels (see"
                " docs/performance.md): without them it is slower than float32; leave [dtype] out"
            ]
        )
    return name
