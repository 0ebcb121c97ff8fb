"""Embeddings by other means: what each is worth in speed, in likeness to float32, and in retrieval.

    python benchmarks/backends.py --corpus corpus.jsonl.gz --texts 200
    python benchmarks/backends.py --corpus corpus.jsonl.gz --ours [--sparse] --threads 1
    python benchmarks/backends.py --data COLLECTION [COLLECTION …]   # nDCG@10 over whole collections in BEIR's layout

MiniLM by the engine in float32, bfloat16 and int8 with the kernels of this machine, by torch.compile, and by ONNX
Runtime in float32 and int8 (dynamic quantization of the weights, one scale for each output); ``--ours`` leaves out the
others, and ``--sparse`` takes SPLADE instead. All get the same texts and take turns; figures are medians, and ratios
are taken within a round. nDCG is compared with that of float32 by a paired randomization test over the queries.
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
from engine import DENSE, SPARSE, alternate, folder_of, machine, ratio

Matrix = Any
"""Embeddings, one a row: an array, or a sparse matrix of SciPy."""

Embed = Callable[[Sequence[str]], Matrix]
WINDOW, BATCH = 256, 8
REFERENCE = "engine, float32"


def engine(dtype: str, variant: str, sparse: bool, threads: int) -> Embed:
    """Our engine, one copy for each thread."""
    from models.endpoints.endpoint import parse_endpoint
    from models.local.architectures.native import DISABLING_VARIABLE
    from models.open_model import open_model

    os.environ[DISABLING_VARIABLE] = variant
    name = SPARSE if sparse else DENSE
    settings = {"model_id": name, "num_threads": 1, "num_allocations": threads}
    body = {"service": "elasticsearch", "service_settings": settings}
    endpoint = parse_endpoint("bench", body, "sparse_embedding" if sparse else "text_embedding")
    embedder = open_model(endpoint, {name: {"dtype": dtype}}).load("cpu")
    os.environ.pop(DISABLING_VARIABLE)

    def embed(texts: Sequence[str]) -> Matrix:
        found = embedder.embed(list(texts), "ingest")
        return as_matrix(found) if sparse else found.values

    return embed


def as_matrix(found: Any) -> Matrix:
    """Sparse embeddings as SciPy knows them."""
    from scipy.sparse import csr_matrix

    shape = (len(found), len(found.vocabulary))
    return csr_matrix((found.weights, found.token_ids, found.indptr), shape=shape)


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


def engines(sparse: bool, threads: int) -> dict[str, Embed]:
    """The engine in every precision, and with older instructions, as far as this machine has them."""
    from models.errors import ModelLoadError

    found = {}
    for dtype in ("float32", "bfloat16", "int8"):
        for variant in ("", "avx512", "avx2"):
            if dtype == "bfloat16" and variant:
                continue
            name = f"engine, {dtype}" + (f" ({variant})" if variant else "")
            try:
                found[name] = engine(dtype, variant, sparse, threads)
            except ModelLoadError as error:
                print(f"{name} is left out: {error}")
    return found


def others(folder: Path) -> dict[str, Embed]:
    """What else computes MiniLM's embeddings, on all cores."""
    return {
        "torch.compile": compiled(),
        "ONNX Runtime, float32": onnx_runtime(folder, int8=False),
        "ONNX Runtime, int8": onnx_runtime(folder, int8=True),
    }


def cosines(found: Matrix, reference: Matrix) -> npt.NDArray[np.float64]:
    """The cosine of each row to the same row of the reference."""

    def dot(left: Matrix, right: Matrix) -> npt.NDArray[np.float64]:
        product = left.multiply(right) if hasattr(left, "multiply") else left * right
        return np.asarray(product.sum(axis=1), np.float64).ravel()

    return dot(found, reference) / np.sqrt(dot(found, found) * dot(reference, reference))


def retrieval(embed: Embed, data: Path) -> tuple[Matrix, npt.NDArray[np.float64]]:
    """The embeddings of a collection, and nDCG@10 of each query by exact search; title and text joined by a blank."""
    import ir_measures
    from documents import read_corpus

    from pipeline.evaluation.judgements import load_qrels, load_queries

    documents = read_corpus(str(next(data.glob("corpus.jsonl*"))))
    qrels, queries = load_qrels(data / "qrels.tsv"), load_queries(data / "queries.jsonl")
    vectors = embed([f"{one.get('title', '')} {one['text']}".strip() for one in documents])
    scores = embed([queries[each] for each in qrels]) @ vectors.T
    scores = scores.toarray() if hasattr(scores, "toarray") else scores
    ids = [one["_id"] for one in documents]
    run = {
        query: {ids[row]: float(row_scores[row]) for row in np.argsort(-row_scores)[:10]}
        for query, row_scores in zip(qrels, scores, strict=True)
    }
    values = {
        each.query_id: each.value for each in ir_measures.iter_calc([ir_measures.nDCG @ 10], qrels, run)
    }
    return vectors, np.array([values.get(query, 0.0) for query in qrels])


def compare_retrieval(systems: dict[str, Embed], data: Path) -> dict[str, dict[str, float]]:
    """nDCG@10 of each system, its difference to float32 and that one's p value, and cosines over the collection."""
    from pipeline.evaluation.statistics import paired_test

    reference, expected = retrieval(systems[REFERENCE], data)
    result = {REFERENCE: {"nDCG@10": float(expected.mean())}}
    for name, embed in systems.items():
        if name == REFERENCE:
            continue
        vectors, values = retrieval(embed, data)
        difference, p = paired_test(expected, values)
        likeness = cosines(vectors, reference)
        result[name] = {
            "nDCG@10": float(values.mean()),
            "difference": difference,
            "p": p,
            "documents": len(likeness),
            "least cosine": float(likeness.min()),
            "median cosine": float(np.median(likeness)),
        }
    return result


def compare_speed(systems: dict[str, Embed], texts: list[str], rounds: int) -> dict[str, dict[str, float]]:
    """How much faster each system is than float32, and how like its embeddings are."""
    vectors = {name: embed(texts) for name, embed in systems.items()}
    times = alternate({name: lambda embed=embed: embed(texts) for name, embed in systems.items()}, rounds)
    return {
        name: {
            "seconds": statistics.median(one.wall for one in times[name]),
            "times as fast": ratio(times, name, REFERENCE, 0),
            "by processor time": ratio(times, name, REFERENCE, 1),
            "least cosine": float(cosines(vectors[name], vectors[REFERENCE]).min()),
        }
        for name in systems
    }


def show(title: str, result: dict[str, dict[str, float]]) -> None:
    print(title)
    for name, figures in result.items():
        print(f"  {name:28}", "  ".join(f"{key} {value:.6g}" for key, value in figures.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, default=Path("data/xquad/corpus.jsonl"))
    parser.add_argument("--texts", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of the engine")
    parser.add_argument("--ours", action="store_true", help="the engine alone")
    parser.add_argument("--sparse", action="store_true", help="SPLADE, by the engine alone")
    parser.add_argument(
        "--data", nargs="*", type=Path, default=[], help="collections: measure nDCG@10 as well"
    )
    parser.add_argument("--json", type=Path, help="write all figures here")
    arguments = parser.parse_args()
    from engine import read_texts

    with tempfile.TemporaryDirectory() as folder:
        systems = engines(arguments.sparse, arguments.threads)
        if not (arguments.ours or arguments.sparse):
            systems |= others(Path(folder))
        speed = compare_speed(systems, read_texts(arguments.corpus, arguments.texts), arguments.rounds)
        show("speed", speed)
        result: dict[str, Any] = {"machine": machine(arguments.threads), "speed": speed}
        # What has float32's embeddings has float32's ranking, and older instructions give the same embeddings.
        different = {
            name: each
            for name, each in systems.items()
            if name == REFERENCE or (speed[name]["least cosine"] < 0.9999 and "(" not in name)
        }
        for data in arguments.data:
            result[data.name] = compare_retrieval(different, data)
            show(data.name, result[data.name])
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
