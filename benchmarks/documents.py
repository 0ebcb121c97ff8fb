"""Documents for benchmarks: a BEIR corpus that the caller names, or synthetic ones."""

import gzip
import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WORDS = (
    "the of and to in a is that for it as was with be by on not he his but at are this have from or had an "
    "system model protein cell result data study method group effect level function treatment patient gene "
    "river mountain history language music market energy climate software network surface particle theory"
).split()


def read_corpus(path: str, limit: int | None = None) -> list[dict[str, Any]]:
    """Read a BEIR corpus (`corpus.jsonl`, plain or gzip)."""
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in itertools.islice(lines, limit)]


def synthetic(count: int, words: int = 120, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Documents of about `words` words in sentences of 5 to 25."""
    generator = random.Random(seed)
    for number in range(count):
        sentences = []
        left = words
        while left > 0:
            length = min(left, generator.randint(5, 25))
            sentences.append(" ".join(generator.choices(WORDS, k=length)).capitalize() + ".")
            left -= length
        yield {"_id": f"s{number}", "title": f"Document {number}", "text": " ".join(sentences)}


def write_jsonl(path: Path, documents: Any) -> Path:
    """Write documents as JSON lines."""
    with path.open("w", encoding="utf-8") as lines:
        for document in documents:
            lines.write(json.dumps(document) + "\n")
    return path
