"""The public Python API: run a job, open what it made, search it, measure it.

Rows come as a `Frame`, which becomes Arrow, pandas or polars:

    from pipeline.api import run, load_table, open_index, evaluate

    run("run_configs/quickstart.yaml")
    load_table("out/quickstart/table").chunks("text_dense").to_pandas()
    open_index("out/quickstart/index").search("career sacks", mode="dense", k=5).to_polars()
    evaluate("out/quickstart/index", "data/xquad/queries.jsonl", "data/xquad/qrels.tsv").measures().to_pandas()
"""

from pipeline.api.evaluation import EvaluationResult, evaluate
from pipeline.api.frame import Frame
from pipeline.api.job import chunk, embed, plan, run
from pipeline.api.loaded_table import LoadedTable, load_table
from pipeline.api.open_index import OpenIndex, open_index, search

__all__ = [
    "EvaluationResult",
    "Frame",
    "LoadedTable",
    "OpenIndex",
    "chunk",
    "embed",
    "evaluate",
    "load_table",
    "open_index",
    "plan",
    "run",
    "search",
]
