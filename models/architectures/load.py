"""From a checkpoint's files to an embedder that is ready to run."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.architectures import bert, generic, native
from models.architectures.packed import Encoder
from models.dense import DenseEmbedder
from models.embeddings import Embedder
from models.errors import ModelLoadError, ValidationError
from models.idf import read_idf
from models.sparse import SparseEmbedder, VocabularyHead
from models.torchscript import ScriptedModel
from models.weights import read_json, read_tensors
from models.workers import Workers, allocations, usable_cores

if TYPE_CHECKING:
    import torch

    from models.local import LocalModel

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


def load_embedder(model: "LocalModel", device: str | None) -> Embedder:
    """Load the weights of `model`.

    Args:
        model: its description, found to have no problems.
        device: None takes the first CUDA device where there is one.

    Raises:
        ModelLoadError: there is no such device, or the dtype is not for it.
    """
    device = _device(device)
    dtype = choose_dtype(model.checkpoint.dtype, device)
    budget = CPU_TOKENS if device == "cpu" else GPU_TOKENS
    plan = allocations(model.endpoint.service_settings, device)
    workers = Workers(plan, usable_cores() if device == "cpu" else None)
    common = {"workers": workers, "device": device, "token_budget": budget}
    if model.checkpoint.backend == "torchscript":
        return _scripted(model, common)
    build = _sparse if model.endpoint.task_type == "sparse_embedding" else _dense
    return build(model, dtype, common)


def _dense(model: "LocalModel", dtype: "torch.dtype", common: Mapping[str, Any]) -> DenseEmbedder:
    recipe, settings = model.recipe, model.model_settings
    encoders: dict[str | None, Encoder] = {}

    def encoder_for(input_type: str) -> Encoder:
        adapter = _adapter_to_add(model, input_type)
        if adapter not in encoders:
            encoders[adapter] = _encoder(model, common["device"], dtype, adapter)
        return encoders[adapter]

    encoder_for("ingest")
    return DenseEmbedder(
        encoder_for,
        model.tokens,
        pooling=recipe.pooling or "mean",
        unit=bool(recipe.normalize),
        prefixes=recipe.prefixes or {},
        dimensions=model.dimensions,
        element_type=settings["element_type"],
        similarity=settings["similarity"],
        **common,
    )


def _adapter_to_add(model: "LocalModel", input_type: str) -> str | None:
    """Name the adapter for an input type that is not in the weights yet."""
    adapter, merged = model.recipe.adapters.get(input_type), model.checkpoint.merged_adapter
    if merged is None or adapter is None:
        return adapter
    if adapter != merged:
        raise ModelLoadError(
            f"[{model.checkpoint.model_id}] embeds input type [{input_type}] with the adapter [{adapter}], but the"
            f" weights in [{model.folder}] have [{merged}] merged into them; take a checkpoint with all adapters"
        )
    return None


def _sparse(model: "LocalModel", dtype: "torch.dtype", common: Mapping[str, Any]) -> SparseEmbedder:
    folder, recipe = model.folder, model.recipe
    config = read_json(folder, "config.json")
    tensors = _tensors(folder, common["device"], dtype)
    tokens = model.tokens
    head = VocabularyHead(_head_weights(tensors), config, tokens.special_ids(), recipe.activation or "")
    encoder = _bert_encoder(tensors, config, model.checkpoint.backend)
    return SparseEmbedder(
        lambda batch: head.forward(encoder.forward(batch), batch),
        tokens,
        idf=read_idf(folder, tokens.vocabulary()) if recipe.query == "idf" else None,
        **common,
    )


def _encoder(model: "LocalModel", device: str, dtype: "torch.dtype", adapter: str | None) -> Encoder:
    config = read_json(model.folder, "config.json")
    if config.get("model_type") not in bert.MODEL_TYPES:
        return generic.GenericEncoder(model.folder, device, dtype, adapter)
    return _bert_encoder(_tensors(model.folder, device, dtype), config, model.checkpoint.backend)


def _bert_encoder(tensors: "Mapping[str, torch.Tensor]", config: Mapping[str, Any], backend: str) -> Encoder:
    weights = bert.read_weights(tensors, config)
    found = native.kernels_for(weights) if backend == "auto" else None
    return native.NativeEncoder(weights, found) if found is not None else bert.BertEncoder(weights)


def _scripted(model: "LocalModel", common: Mapping[str, Any]) -> SparseEmbedder:
    tokens = model.tokens
    script = ScriptedModel(model.folder, common["device"], tokens.special_ids())
    # Elasticsearch spells ELSER's tokens so, since a dot separates the parts of a field name there.
    return SparseEmbedder(script, tokens, rename=lambda token: token.replace(".", "__"), **common)


def _tensors(folder: Path, device: str, dtype: "torch.dtype") -> "dict[str, torch.Tensor]":
    """Read a checkpoint's tensors; the stored dtype never decides what is computed in."""
    stored = read_tensors(folder)
    return {name: tensor.to(device, dtype) for name, tensor in stored.items() if tensor.is_floating_point()}


def _device(device: str | None) -> str:
    import torch

    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device != "cpu" and not torch.cuda.is_available():
        raise ModelLoadError(f"[device: {device}] needs a CUDA device, and this machine has none", status=400)
    return device


def choose_dtype(name: str | None, device: str) -> "torch.dtype":
    """Choose what to compute in.

    Args:
        name: ``float32``, ``bfloat16`` or ``float16``; None takes float32 on CPU and bfloat16 on a GPU.
        device: where to compute.

    Raises:
        ValidationError: half precision on a CPU that has no instructions for it, where it is slower than full.
    """
    import torch

    name = name or ("float32" if device == "cpu" else "bfloat16")
    if device == "cpu" and name == "float16":
        raise ValidationError(["[dtype: float16] needs a GPU; leave [dtype] out, or take bfloat16"])
    if device == "cpu" and name == "bfloat16" and native.kernels((), torch.bfloat16) is None:
        raise ValidationError(
            [
                "[dtype: bfloat16] on a CPU needs a processor with AMX and the compiled kernels (see"
                " docs/performance.md): without them it is slower than float32; leave [dtype] out"
            ]
        )
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def _head_weights(tensors: "Mapping[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """Find the masked-LM head; its decoder is tied to the word embeddings where it is not stored."""
    transform = "cls.predictions.transform"
    names = {
        "dense": f"{transform}.dense.weight",
        "dense_bias": f"{transform}.dense.bias",
        "norm": f"{transform}.LayerNorm.weight",
        "norm_bias": f"{transform}.LayerNorm.bias",
        "decoder_bias": "cls.predictions.bias",
    }
    plain = {bert.plain_name(name): tensor for name, tensor in tensors.items()}
    missing = [name for name in names.values() if name not in plain]
    if missing:
        raise ModelLoadError(f"The checkpoint has no masked-LM head: no tensor [{missing[0]}]")
    head = {part: plain[name] for part, name in names.items()}
    head["decoder"] = plain.get("cls.predictions.decoder.weight", plain["embeddings.word_embeddings.weight"])
    return head
