"""Every architecture of local models beside sentence-transformers, on generated checkpoints of one size.

    python benchmarks/architectures.py --corpus CORPUS.jsonl [--only BERT XLM-R] [--texts 96] [--json OUT.json]

The checkpoints have random weights, MiniLM's tokenizer and its size: 6 layers of 384, 12 heads, 1,536 inside. Both
systems embed the same texts on one thread, in turns; a ratio is of processor times of one round, so that it holds on a
busy machine too. The padding is what sentence-transformers computes beyond the texts' own tokens.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from engine import alternate, folder_of, machine, read_texts

LAYERS, WIDTH, HEADS, INNER, WINDOW, BATCH = 6, 384, 12, 1536, 512, 32
COMMON = {
    "vocab_size": 30_522,
    "pad_token_id": 0,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
    "max_position_embeddings": WINDOW + 2,
}


def models() -> dict[str, tuple[str, Callable[[], Any]]]:
    """Name of an architecture -> how it pools, and a model of it."""
    import transformers as t

    special = {"bos_token_id": 101, "eos_token_id": 102, "cls_token_id": 101, "sep_token_id": 102}
    distil = {"vocab_size": 30_522, "dim": WIDTH, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": INNER}
    return {
        "BERT": ("mean", lambda: t.BertModel(t.BertConfig(**COMMON))),
        "DistilBERT": ("mean", lambda: t.DistilBertModel(t.DistilBertConfig(**distil))),
        "XLM-R": ("mean", lambda: t.XLMRobertaModel(t.XLMRobertaConfig(type_vocab_size=1, **COMMON))),
        "jina-embeddings-v3": ("mean", lambda: t.JinaEmbeddingsV3Model(t.JinaEmbeddingsV3Config(**COMMON))),
        "ModernBERT": ("mean", lambda: t.ModernBertModel(t.ModernBertConfig(**special, **COMMON))),
        "EuroBERT": ("mean", lambda: t.EuroBertModel(t.EuroBertConfig(**COMMON))),
        "Qwen3": (
            "last",
            lambda: t.Qwen3Model(t.Qwen3Config(num_key_value_heads=4, head_dim=WIDTH // HEADS, **COMMON)),
        ),
    }


def write_checkpoint(make: Callable[[], Any], pooling: str, folder: Path) -> None:
    """Write a checkpoint as sentence-transformers lays it out."""
    import torch

    torch.manual_seed(1)
    make().eval().save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(Path(folder_of("all-minilm-l6-v2")) / name, folder / name)
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for place, (path, kind) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    flags = {f"pooling_mode_{name}": False for name in ("cls_token", "max_tokens")}
    flags |= {"pooling_mode_mean_tokens": pooling == "mean", "pooling_mode_lasttoken": pooling == "last"}
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": WIDTH, **flags})
    )
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": WINDOW}))


def load_ours(folder: Path) -> Callable[[list[str]], Any]:
    """Our engine on a checkpoint, one thread."""
    from models.endpoints.endpoint import parse_endpoint
    from models.open_model import open_model

    threads = {"model_id": str(folder), "num_threads": 1, "num_allocations": 1}
    endpoint = parse_endpoint(
        "bench", {"service": "elasticsearch", "service_settings": threads}, "text_embedding"
    )
    embedder = open_model(endpoint).load("cpu")
    return lambda texts: embedder.embed(texts, "ingest").values


def load_theirs(folder: Path) -> Callable[[list[str]], Any]:
    """sentence-transformers on the same checkpoint; it sorts by length and pads each batch."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    return lambda texts: model.encode(
        texts, batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False
    )


def measure(pooling: str, make: Callable[[], Any], texts: list[str], rounds: int) -> dict[str, Any]:
    """Both systems on one architecture."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        folder.mkdir()
        write_checkpoint(make, pooling, folder)
        systems = {"ours": load_ours(folder), "theirs": load_theirs(folder)}
        found = {name: np.asarray(embed(texts)) for name, embed in systems.items()}
        times = alternate({name: lambda embed=embed: embed(texts) for name, embed in systems.items()}, rounds)
    cosines = (found["ours"] * found["theirs"]).sum(axis=1)
    ratios = [
        theirs.processor / ours.processor for ours, theirs in zip(times["ours"], times["theirs"], strict=True)
    ]
    return {
        "seconds": {name: statistics.median(each.processor for each in all_) for name, all_ in times.items()},
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "least_cosine": float(cosines.min()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", required=True, type=Path)
    parser.add_argument("--only", nargs="+", choices=list(models()), help="some architectures instead of all")
    parser.add_argument("--texts", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="write the figures here")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    texts = read_texts(arguments.corpus, arguments.texts)
    result: dict[str, Any] = {"machine": machine(1), "texts": len(texts), "architectures": {}}
    print("architecture         processor time, sentence-transformers / ours   least cosine")
    for name, (pooling, make) in models().items():
        if arguments.only and name not in arguments.only:
            continue
        found = result["architectures"][name] = measure(pooling, make, texts, arguments.rounds)
        print(f"{name:20} {found['ratio']:10.2f} {found['least_cosine']:42.7f}", flush=True)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
