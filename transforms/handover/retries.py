"""How often requests to services were tried again, left by the workers in the run's folder.

A bundle that saw retries leaves one small file. The retries of a bundle that the runner repeats count too: the service
was asked that often.
"""

import uuid
from collections import Counter

import orjson

from transforms import files


def write_retries(folder: str, inference_id: str, retries: int) -> None:
    """Leave the retries of one bundle.

    Args:
        folder: the run's folder.
        inference_id: the endpoint.
        retries: how many requests were tried again.
    """
    with files.create(files.join(folder, f"retries-{uuid.uuid4().hex}.json")) as handle:
        handle.write(orjson.dumps({inference_id: retries}))


def read_retries(folder: str) -> Counter[str]:
    """Add up what all workers left, by endpoint."""
    totals: Counter[str] = Counter()
    for path, _ in files.list_files(folder, "retries-*.json"):
        with files.open_read(path) as handle:
            totals.update(orjson.loads(handle.read()))
    return totals
