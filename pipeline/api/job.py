"""What the commands `run`, `plan`, `chunk` and `infer` do, as functions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from models.chunking_settings import DEFAULT, parse_chunking_settings
from models.embeddings import Embeddings, InputType
from models.endpoints.registry import Registry
from models.open_model import open_model
from pipeline.api.frame import Frame
from pipeline.config.defaults import DEFAULT_ENDPOINTS
from pipeline.config.load import load_config
from pipeline.logs import leave_out_noise
from pipeline.report.run_json import RunSummary


def run(
    config: str | Path, *overrides: str, allow_mass_delete: bool = False, quiet: bool = False
) -> RunSummary:
    """Run the whole job: read, chunk, embed, publish, bring the index up to date.

    Args:
        config: the run config, a YAML file.
        *overrides: ``key.path=value``, as behind ``--set``.
        allow_mass_delete: let a full sync delete more than `source.max_delete_ratio`.
        quiet: show no progress.

    Raises:
        PipelineError: the run could not be done; the published table is as it was.
    """
    leave_out_noise()
    from pipeline.run.job import run_pipeline

    loaded = load_config(str(config), list(overrides))
    return run_pipeline(loaded, allow_mass_delete=allow_mass_delete, quiet=quiet)


def plan(config: str | Path, *overrides: str, calibrate: bool = False) -> dict[str, Any]:
    """What a run would do, as ``plan --format json`` prints it.

    Args:
        config: the run config, a YAML file.
        *overrides: ``key.path=value``, as behind ``--set``.
        calibrate: load each model and embed a few chunks, to estimate the time.

    Raises:
        PipelineError: the plan could not be made.
    """
    leave_out_noise()
    from pipeline.run.forecast import forecast

    return forecast(load_config(str(config), list(overrides)), calibrate=calibrate)


def chunk(text: str, settings: Mapping[str, Any] | None = None) -> Frame:
    """Chunk a text; one row a chunk: ``start_offset`` and ``end_offset`` in UTF-16 code units, and ``text``.

    Args:
        text: what to chunk.
        settings: Elasticsearch's ``chunking_settings``; None is sentences of 250 words.

    Raises:
        ValidationError: the settings are wrong.
    """
    from transforms.chunk.strategies import chunk_text

    chosen = DEFAULT if settings is None else parse_chunking_settings(dict(settings))
    return Frame(pa.Table.from_pylist([each._asdict() for each in chunk_text(text, chosen)], _CHUNKS))


_CHUNKS = pa.schema([("start_offset", pa.int32()), ("end_offset", pa.int32()), ("text", pa.string())])


def embed(
    inference_id: str,
    texts: Sequence[str],
    input_type: InputType = "ingest",
    *,
    endpoints: str = DEFAULT_ENDPOINTS,
    models: Mapping[str, Any] | None = None,
) -> Embeddings:
    """Embed texts by an endpoint.

    Args:
        inference_id: the endpoint.
        texts: what to embed.
        input_type: ``ingest`` for documents, ``search`` for queries.
        endpoints: folder of the endpoints' definitions.
        models: where weights lie, as in the run config.

    Returns:
        The embeddings in the order of the texts: arrays, see `models.embeddings`.

    Raises:
        InferenceError: there is no such endpoint, or it failed.
    """
    embedder = open_model(Registry(endpoints).get(inference_id), models or {}).load()
    try:
        return embedder.embed(list(texts), input_type)
    finally:
        embedder.close()
