"""Speed of sentence chunking on one core, next to other splitters and to plain ICU, in one run.

    python benchmarks/chunking.py [--megabytes 4] [--rounds 5] [--long 50] [--json FILE]

Every splitter gets the same texts: the English and the Chinese XQuAD paragraphs of data/, joined by line ends and
repeated up to the size, once as one long value and once as one value a paragraph. The splitters take turns, round
by round; the figure is the median of the rounds, in megabytes of UTF-8 a second of processor time. The others cut
by characters (about what 250 words take), because they count no words; "ICU" only finds sentences and words, cuts
nothing and stores no chunk. `--long` also chunks one value of that many megabytes and of a tenth of it, to see that
the cost grows no faster than the text.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import icu
from chonkie import RecursiveChunker, SentenceChunker
from langchain_text_splitters import RecursiveCharacterTextSplitter
from semantic_text_splitter import TextSplitter

from models.chunking_settings import DEFAULT, parse_chunking_settings
from transforms.chunk.strategies import chunk_text

DATA = Path(__file__).parent.parent / "data"
CORPORA = {"English": DATA / "xquad" / "corpus.jsonl", "Chinese": DATA / "xquad-zh" / "corpus.jsonl"}
CHARACTERS = {"English": 1500, "Chinese": 400}
WORD = parse_chunking_settings({"strategy": "word", "max_chunk_size": 250, "overlap": 100})
RECURSIVE = parse_chunking_settings(
    {"strategy": "recursive", "max_chunk_size": 250, "separator_group": "markdown"}
)

Splitter = Callable[[str], object]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--long", type=float, default=0, metavar="MEGABYTES")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    figures: dict[str, dict[str, float]] = {}
    for language, path in CORPORA.items():
        paragraphs = load(path, arguments.megabytes)
        for shape, values in {
            "one value": ["\n".join(paragraphs)],
            "a value a paragraph": paragraphs,
        }.items():
            figures[f"{language}, {shape}"] = measure(
                splitters(CHARACTERS[language]), values, arguments.rounds
            )
    if arguments.long:
        figures["long values"] = {
            f"{language} {size:g} MB": chunk_long_value(path, size)
            for language, path in CORPORA.items()
            for size in (arguments.long / 10, arguments.long)
        }
    show(figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1), "utf-8")


def load(path: Path, megabytes: float) -> list[str]:
    """Read paragraphs, repeated until they have the size."""
    paragraphs = [json.loads(line)["text"] for line in path.read_text("utf-8").splitlines()]
    size = sum(len(paragraph.encode()) + 1 for paragraph in paragraphs)
    return paragraphs * max(1, round(megabytes * 1e6 / size))


def splitters(characters: int) -> dict[str, Splitter]:
    sentence = SentenceChunker(tokenizer="character", chunk_size=characters, chunk_overlap=characters // 10)
    recursive = RecursiveChunker(tokenizer="character", chunk_size=characters)
    langchain = RecursiveCharacterTextSplitter(chunk_size=characters, chunk_overlap=characters // 10)
    semantic = TextSplitter(characters)
    return {
        "this project, sentence 250/1": lambda text: chunk_text(text, DEFAULT),
        "this project, word 250/100": lambda text: chunk_text(text, WORD),
        "this project, recursive 250": lambda text: chunk_text(text, RECURSIVE),
        "ICU, sentences and words": iterate_icu,
        "chonkie SentenceChunker": sentence.chunk,
        "chonkie RecursiveChunker": recursive.chunk,
        "langchain RecursiveCharacter": langchain.split_text,
        "semantic-text-splitter": semantic.chunks,
    }


def iterate_icu(text: str) -> tuple[list[int], list[int]]:
    """Find every sentence, and every word with its rule status: what any chunker with Elasticsearch's rules needs."""
    root = icu.Locale.getRoot()
    sentences = icu.BreakIterator.createSentenceInstance(root)
    words = icu.BreakIterator.createWordInstance(root)
    sentences.setText(text)
    words.setText(text)
    status = words.getRuleStatus
    return list(sentences), [end for end in words if status()]


def measure(candidates: dict[str, Splitter], values: Sequence[str], rounds: int) -> dict[str, float]:
    """Return megabytes a second of processor time for each splitter, the median over the rounds."""
    megabytes = sum(len(value.encode()) for value in values) / 1e6
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, split in candidates.items():
            started = time.process_time()
            for value in values:
                split(value)
            seconds[name].append(time.process_time() - started)
    return {name: megabytes / statistics.median(taken) for name, taken in seconds.items()}


def chunk_long_value(path: Path, megabytes: float) -> float:
    text = "\n".join(load(path, megabytes))
    started = time.process_time()
    chunk_text(text, DEFAULT)
    return len(text.encode()) / 1e6 / (time.process_time() - started)


def show(figures: dict[str, dict[str, float]]) -> None:
    for heading, rows in figures.items():
        print(f"\n{heading} (MB/s of one core)")
        for name, speed in (
            sorted(rows.items(), key=lambda row: -row[1]) if heading != "long values" else rows.items()
        ):
            print(f"  {name:<32}{speed:8.1f}")


if __name__ == "__main__":
    main()
