"""What ranks texts for a query: the interface of a loaded reranking model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Relevance:
    """How relevant n texts are for one query.

    Attributes:
        scores: float32 [n]; higher is better. Scores of one model can be compared, those of two cannot.
        tokens: tokens that the model saw, those of the query once for each text; 0 if unknown.
    """

    scores: npt.NDArray[np.float32]
    tokens: int = 0

    def order(self) -> npt.NDArray[np.intp]:
        """Positions of the texts, best first; equal scores stay in the order of the texts."""
        return np.argsort(-self.scores, kind="stable")


class Reranker(Protocol):
    """A loaded model or an open service that ranks. Weak-referenceable, safe to call from several threads."""

    def rerank(self, query: str, texts: Sequence[str]) -> Relevance:
        """Say how relevant each text is for the query.

        Args:
            query: what is looked for.
            texts: any number of texts.

        Raises:
            InferenceError: the request failed.
        """
        ...

    def close(self) -> None:
        """Release the model, its threads and its connections."""
        ...
