"""MiniLM's embeddings by other means: what each is worth in speed, in likeness to float32, and in retrieval.

    python benchmarks/backends.py --corpus corpus.jsonl.gz --texts 200
    python benchmarks/backends.py --data COLLECTION            # nDCG@10 over a whole collection in BEIR's layout

The engine in float32 (with and without AMX) and bfloat16, torch.compile, and ONNX Runtime in float32 and int8 (dynamic
quantization of the weights, one scale for each output). All get the same texts and take turns; figures are medians.
"""

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from engine import DENSE, alternate, folder_of

Embed = Callable[[Sequence[str]], npt.NDArray[np.float32]]
WINDOW, BATCH = 256, 8


def engine(dtype: str, variant: str = "") -> Embed:
    """Our engine, one copy for each core."""
    from models.endpoints.endpoint import parse_endpoint
    from models.local.architectures.native import DISABLING_VARIABLE
    from models.open_model import open_model

    os.environ[DISABLING_VARIABLE] = variant
    settings = {"model_id": DENSE, "num_threads": 1, "num_allocations": len(os.sched_getaffinity(0))}
    body = {"service": "elasticsearch", "service_settings": settings}
    endpoint = parse_endpoint("bench", body, "text_embedding")
    embedder = open_model(endpoint, {DENSE: {"dtype": dtype}}).load("cpu")
    os.environ.pop(DISABLING_VARIABLE)
    return lambda texts: embedder.embed(list(texts), "ingest").values


def padded(compute: Callable[[Any, Any], Any]) -> Embed:
    """Whatever takes padded batches: texts sorted by length, eight at a time, averaged over their tokens."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{folder_of(DENSE)}/tokenizer.json")
    tokenizer.enable_truncation(WINDOW)
    tokenizer.enable_padding()

    def embed(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
        found = np.empty((len(texts), 384), np.float32)
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            encoded = tokenizer.encode_batch([texts[row] for row in rows])
            ids = np.array([each.ids for each in encoded], np.int64)
            mask = np.array([each.attention_mask for each in encoded], np.int64)
            pooled = (compute(ids, mask) * mask[:, :, None]).sum(1)
            found[rows] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return found

    return embed


def compiled() -> Embed:
    """torch.compile of transformers' model, for batches of any shape."""
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder_of(DENSE)).eval()
    forward = torch.compile(model, dynamic=True)

    def compute(ids: Any, mask: Any) -> Any:
        with torch.inference_mode():
            found = forward(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
        return found.last_hidden_state.numpy()

    return padded(compute)


def onnx_runtime(folder: Path, int8: bool) -> Embed:
    """ONNX Runtime on all cores."""
    import onnxruntime
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from transformers import AutoModel

    path = folder / "float32.onnx"
    if not path.exists():
        model = AutoModel.from_pretrained(folder_of(DENSE), attn_implementation="eager").eval()
        wrapped = torch.nn.Module()
        wrapped.model = model
        wrapped.forward = lambda ids, mask: model(input_ids=ids, attention_mask=mask).last_hidden_state
        example = torch.ones(2, 16, dtype=torch.int64)
        names = {"input_names": ["ids", "mask"], "output_names": ["hidden"]}
        axes = {name: {0: "texts", 1: "length"} for name in ("ids", "mask", "hidden")}
        torch.onnx.export(wrapped, (example, example), str(path), dynamic_axes=axes, dynamo=False, **names)
    if int8:
        quantize_dynamic(path, folder / "int8.onnx", weight_type=QuantType.QInt8, per_channel=True)
        path = folder / "int8.onnx"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return padded(lambda ids, mask: session.run(["hidden"], {"ids": ids, "mask": mask})[0])


def backends(folder: Path) -> dict[str, Embed]:
    """Every backend that this machine can run."""
    from models.errors import ValidationError

    found = {"engine, float32": engine("float32"), "engine, float32 without AMX": engine("float32", "avx512")}
    try:
        found["engine, bfloat16"] = engine("bfloat16")
    except ValidationError as error:
        print(f"bfloat16 is left out: {error}")
    return found | {
        "torch.compile": compiled(),
        "ONNX Runtime, float32": onnx_runtime(folder, int8=False),
        "ONNX Runtime, int8": onnx_runtime(folder, int8=True),
    }


def ndcg(embed: Embed, data: Path) -> float:
    """nDCG@10 of exact search over a collection, title and text joined by a blank."""
    import ir_measures
    from documents import read_corpus

    from pipeline.evaluation.judgements import load_qrels, load_queries

    documents = read_corpus(str(next(data.glob("corpus.jsonl*"))))
    qrels, queries = load_qrels(data / "qrels.tsv"), load_queries(data / "queries.jsonl")
    vectors = embed([f"{one.get('title', '')} {one['text']}".strip() for one in documents])
    scores = embed([queries[each] for each in qrels]) @ vectors.T
    ids = [one["_id"] for one in documents]
    run = {
        query: {ids[row]: float(row_scores[row]) for row in np.argsort(-row_scores)[:10]}
        for query, row_scores in zip(qrels, scores, strict=True)
    }
    measure = ir_measures.nDCG @ 10
    return float(ir_measures.calc_aggregate([measure], qrels, run)[measure])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, default=Path("data/xquad/corpus.jsonl"))
    parser.add_argument("--texts", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path, help="a collection: measure nDCG@10 as well")
    parser.add_argument("--json", type=Path, help="write all figures here")
    arguments = parser.parse_args()
    from engine import read_texts

    texts = read_texts(arguments.corpus, arguments.texts)
    result: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        found = backends(Path(folder))
        vectors = {name: embed(texts) for name, embed in found.items()}
        reference = vectors["engine, float32 without AMX"]
        systems = {name: lambda embed=embed: embed(texts) for name, embed in found.items()}
        times = alternate(systems, arguments.rounds)
        for name, embed in found.items():
            slower = [
                one.wall / ours.wall for one, ours in zip(times[name], times["engine, float32"], strict=True)
            ]
            result[name] = {
                "seconds": statistics.median(one.wall for one in times[name]),
                "times the engine's": statistics.median(slower),
                "least cosine": float((vectors[name] * reference).sum(1).min()),
            }
            # What has float32's embeddings has float32's ranking.
            if arguments.data and (name == "engine, float32" or result[name]["least cosine"] < 0.9999):
                result[name]["nDCG@10"] = ndcg(embed, arguments.data)
            print(
                f"{name:30}",
                "  ".join(f"{key} {value:.6g}" for key, value in result[name].items()),
                flush=True,
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
