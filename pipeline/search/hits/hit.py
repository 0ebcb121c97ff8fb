"""A document that was found."""

import dataclasses
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.search.explain import TokenMatch
from pipeline.search.open_index import FoundChunk


@dataclass(frozen=True)
class ChunkHit:
    """One of a document's chunks, with those around it.

    Attributes:
        score: its score by the ranking that shows it.
        chunk: the chunk.
        before: the chunks before it in the document, in the document's order.
        after: those after it.
    """

    score: float
    chunk: FoundChunk
    before: tuple[FoundChunk, ...] = ()
    after: tuple[FoundChunk, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The chunk as the command prints it."""
        shown = {"score": self.score, **self.chunk.to_json()}
        for name, around in (("before", self.before), ("after", self.after)):
            if around:
                shown[name] = [chunk.to_json() for chunk in around]
        return shown


@dataclass(frozen=True)
class Retrieved:
    """Where a document stood before it was reranked.

    Attributes:
        rank: from 1.
        score: its score then.
    """

    rank: int
    score: float


@dataclass(frozen=True)
class Hit:
    """A document that was found.

    Attributes:
        id: its ``_id``.
        score: its score, that of its best chunk.
        chunk: the best chunk.
        highlight: the chunk's text as HTML, with ``<em>`` around the words of the query.
        parts: hybrid search: what each retriever added to the score.
        explanation: retriever -> the tokens of the query that the chunk has; only when asked for.
        chunks: its best chunks with those around them, best first; only when more than the best one was asked for.
        retrieved: reranked search: its place before.
    """

    id: str
    score: float
    chunk: FoundChunk
    highlight: str = ""
    parts: dict[str, float] = dataclasses.field(default_factory=dict)
    explanation: dict[str, list[TokenMatch]] = dataclasses.field(default_factory=dict)
    chunks: tuple[ChunkHit, ...] = ()
    retrieved: Retrieved | None = None

    def to_json(self) -> dict[str, Any]:
        """The hit as the command prints it."""
        shown: dict[str, Any] = {"_id": self.id, "score": self.score, "chunk": self.chunk.to_json()}
        shown["highlight"] = self.highlight
        if self.parts:
            shown["parts"] = self.parts
        if self.explanation:
            shown["explanation"] = {
                name: [asdict(match) for match in found] for name, found in self.explanation.items()
            }
        if self.chunks:
            shown["chunks"] = [chunk.to_json() for chunk in self.chunks]
        if self.retrieved is not None:
            shown["retrieved"] = asdict(self.retrieved)
        return shown
