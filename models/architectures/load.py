"""From a checkpoint's files to an embedder that is ready to run."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from models.architectures import bert
from models.dense import DenseEmbedder
from models.embeddings import Embedder
from models.errors import ModelLoadError
from models.sparse import SparseEmbedder, VocabularyHead
from models.tokens import open_tokens
from models.weights import read_json, read_tensors
from models.workers import Workers, allocations

if TYPE_CHECKING:
    import torch

    from models.local import LocalModel

_ACTIVATIONS = ("gelu", "gelu_python")


def unsupported(folder: Path, task_type: str) -> list[str]:
    """Say why the checkpoint in `folder` cannot run here; an empty list means it can."""
    config = read_json(folder, "config.json")
    kind = config.get("model_type")
    if kind not in bert.MODEL_TYPES:
        return [f"The checkpoint in [{folder}] is of type [{kind}]; known types: {sorted(bert.MODEL_TYPES)}"]
    return []


def load_embedder(model: "LocalModel", device: str | None) -> Embedder:
    """Load the weights of `model`.

    Args:
        model: its description, found to have no problems.
        device: None takes the first CUDA device where there is one.
    """
    device = device or _default_device()
    dtype = _dtype(model.checkpoint.dtype, device)
    config = read_json(model.folder, "config.json")
    tensors = {
        name: tensor.to(device, dtype)
        for name, tensor in read_tensors(model.folder).items()
        if tensor.is_floating_point()
    }
    encoder = bert.BertEncoder(tensors, config)
    tokens = open_tokens(model.folder, model.max_tokens)
    workers = Workers(allocations(model.endpoint.service_settings))
    recipe = model.recipe
    budget = 1024 if device == "cpu" else 65536
    if model.endpoint.task_type == "sparse_embedding":
        head = VocabularyHead(
            _head_weights(tensors),
            float(config.get("layer_norm_eps", 1e-12)),
            tokens.special_ids(),
            recipe.activation or "",
        )
        return SparseEmbedder(encoder, head, tokens, workers, device=device, token_budget=budget)
    settings = model.model_settings
    return DenseEmbedder(
        encoder,
        tokens,
        workers,
        pooling=recipe.pooling or "mean",
        unit=bool(recipe.normalize),
        prefixes=recipe.prefixes or {},
        dimensions=model.dimensions,
        element_type=settings["element_type"],
        similarity=settings["similarity"],
        device=device,
        token_budget=budget,
    )


def _default_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _dtype(name: str | None, device: str) -> "torch.dtype":
    """Choose what to compute in.

    Raises:
        ModelLoadError: half precision on CPU, which is slower there than full.
    """
    import torch

    if name is None:
        name = "float32" if device == "cpu" else "bfloat16"
    if device == "cpu" and name != "float32":
        raise ModelLoadError(
            f"[dtype: {name}] needs a GPU: on CPU half precision is slower than float32; leave [dtype] out",
            status=400,
        )
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def _head_weights(tensors: "Mapping[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """Find the masked-LM head; its decoder is tied to the word embeddings where it is not stored."""
    names = {
        "dense": "cls.predictions.transform.dense.weight",
        "dense_bias": "cls.predictions.transform.dense.bias",
        "norm": "cls.predictions.transform.LayerNorm.weight",
        "norm_bias": "cls.predictions.transform.LayerNorm.bias",
        "decoder_bias": "cls.predictions.bias",
    }
    plain = {bert.plain_name(name): tensor for name, tensor in tensors.items()}
    missing = [name for name in names.values() if name not in plain]
    if missing:
        raise ModelLoadError(f"The checkpoint has no masked-LM head: no tensor [{missing[0]}]")
    head = {part: plain[name] for part, name in names.items()}
    head["decoder"] = plain.get("cls.predictions.decoder.weight", plain["embeddings.word_embeddings.weight"])
    return head
