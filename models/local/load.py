"""From a checkpoint's files to an embedder that is ready to run."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from models.embeddings import Embedder
from models.endpoints.endpoint import Endpoint
from models.errors import ModelLoadError
from models.local.architectures import bert, generic, native, packed, static, torch_bert
from models.local.architectures.torchscript import ScriptedModel
from models.local.checkpoint import OpenCheckpoint
from models.local.dense import Compute, DenseEmbedder
from models.local.device import choose_device, choose_dtype, must_agree
from models.local.engine.batching import CPU_TOKENS, GPU_TOKENS, TokenBatch
from models.local.engine.workers import Workers, allocations, usable_cores
from models.local.settings import dimensions_of, similarity_of
from models.local.sparse import SparseEmbedder, SparseRows, read_idf
from models.local.weights import read_json, read_tensors


def unsupported(folder: Path, task_type: str) -> list[str]:
    """Say why the checkpoint in `folder` cannot run here; an empty list means it can."""
    config = read_json(folder, "config.json")
    kind = config.get("model_type")
    if static.is_static(config):
        return []
    if kind in bert.MODEL_TYPES:
        return bert.unsupported(folder, config)
    if task_type == "sparse_embedding":
        known = ", ".join(bert.MODEL_TYPES)
        return [f"Sparse embeddings come from checkpoints of type {known}; [{folder}] is of type [{kind}]"]
    if generic.is_known(config):
        return []
    reason = f"The checkpoint in [{folder}] is of type [{kind}], which transformers does not know"
    return [reason + (bert.CODE_OF_ITS_OWN if config.get("auto_map") else "")]


def load_embedder(opened: OpenCheckpoint, endpoint: Endpoint, device: str | None) -> Embedder:
    """Load the weights of a checkpoint.

    Args:
        opened: the checkpoint, found to have no problems.
        endpoint: what is wanted of it.
        device: None takes a CUDA device where there is one.

    Raises:
        ModelLoadError: there is no such device, the dtype is not for it, or what it computes is wrong.
    """
    device = choose_device(device)
    embedder = _load_on(opened, endpoint, device, choose_dtype(opened.checkpoint.dtype, device))
    if device != "cpu":
        reference = _load_on(opened, endpoint, "cpu", "float32")
        try:
            must_agree(embedder, reference, bits=endpoint.element_type == "bit")
        finally:
            reference.close()
    return embedder


def _load_on(opened: OpenCheckpoint, endpoint: Endpoint, device: str, dtype: str) -> Embedder:
    budget = static.BATCH_TOKENS if opened.is_static else CPU_TOKENS if device == "cpu" else GPU_TOKENS
    plan = allocations(endpoint.service_settings, device)
    workers = Workers(plan, usable_cores() if device == "cpu" else None)
    common = {"workers": workers, "device": device, "token_budget": budget}
    if opened.is_script:
        return _scripted(opened, dtype, common)
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
    if opened.is_static:
        return static.pooled(static.read_vectors(opened.folder, len(opened.tokens.vocabulary())))
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
        fast_head = native.NativeHead(head_weights, native.for_head(found), special, twice)
        return lambda batch: fast_head.forward(fast.forward(batch), batch)
    encoder = torch_bert.BertEncoder(weights, device, dtype)
    head = torch_bert.VocabularyHead(head_weights, device, dtype, special, twice)
    return packed.OnDevice(lambda batch: head.forward(encoder.forward(batch), batch), device)


def _kernels(opened: OpenCheckpoint, weights: bert.BertWeights, device: str, dtype: str) -> Any | None:
    wanted = device == "cpu" and opened.checkpoint.backend == "auto"
    return native.kernels_for(weights, dtype) if wanted else None


def _scripted(opened: OpenCheckpoint, dtype: str, common: Mapping[str, Any]) -> SparseEmbedder:
    tokens = opened.tokens
    device = common["device"]
    script = packed.OnDevice(ScriptedModel(opened.folder, device, tokens.special_ids(), dtype), device)
    # Elasticsearch spells ELSER's tokens so, since a dot separates the parts of a field name there.
    return SparseEmbedder(script, tokens, rename=lambda token: token.replace(".", "__"), **common)
