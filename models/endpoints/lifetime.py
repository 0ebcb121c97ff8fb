"""Until when an endpoint answers: what its definition says, or what is publicly known of Elastic's own.

Elastic's hosted models have an end-of-life date, after which requests fail. A cluster tells it in an endpoint's
``metadata``, which a definition here may carry; `catalog.json` holds what is public of the endpoints of Elastic's
inference service, with the day on which that was read.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache
from importlib import resources
from typing import Any

from models.endpoints.endpoint import Endpoint
from models.endpoints.setting_checks import parse_day

NOTICE_DAYS = 180
"""Days before the end from which on it is told."""


@dataclass(frozen=True)
class Ending:
    """An endpoint that will not answer any more.

    Attributes:
        inference_id: the endpoint.
        last: its end-of-life date.
        days: from today to that date; negative once it is past.
    """

    inference_id: str
    last: date
    days: int

    def told(self) -> str:
        """What is to be known of it, as the beginning of a sentence."""
        if self.days < 0:
            return f"[{self.inference_id}] reached its end of life on {self.last}: requests fail"
        when = "today" if self.days == 0 else f"in {self.days} day{'s' if self.days > 1 else ''}"
        return (
            f"[{self.inference_id}] reaches its end of life on {self.last}, {when}; after that requests fail"
        )


@cache
def hosted_endpoints() -> Mapping[str, Mapping[str, Any]]:
    """Elastic's hosted endpoints that are known by name: id -> ``task_type`` and ``end_of_life_date``."""
    content = resources.files("models.endpoints").joinpath("catalog.json").read_text("utf-8")
    endpoints: dict[str, dict[str, Any]] = json.loads(content)["endpoints"]
    return endpoints


def last_day(endpoint: Endpoint) -> date | None:
    """The end-of-life date of an endpoint; None where none is known."""
    heuristics = endpoint.metadata.get("heuristics") or {}
    known = hosted_endpoints().get(endpoint.inference_id, {})
    stated = heuristics.get("end_of_life_date") or known.get("end_of_life_date")
    return None if stated is None else parse_day(stated)


def ending(endpoint: Endpoint, today: date | None = None) -> Ending | None:
    """Say that an endpoint ends, from `NOTICE_DAYS` before; None where it does not, or nothing is known.

    Args:
        endpoint: the endpoint.
        today: the day to count from; None is today.
    """
    last = last_day(endpoint)
    if last is None:
        return None
    days = (last - (today or datetime.now(UTC).date())).days
    return Ending(endpoint.inference_id, last, days) if days <= NOTICE_DAYS else None
