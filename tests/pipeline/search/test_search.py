"""Search is exact: rankings and scores equal those computed straight from the table."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deltalake import DeltaTable
from support.index_table import IndexTable
from support.paths import ROOT

from models.embeddings import DenseEmbeddings
from pipeline.__main__ import main
from pipeline.errors import PipelineError
from pipeline.search.dense import DenseField, similarity_scores
from pipeline.search.fusion import linear, reciprocal_rank
from pipeline.search.open_index import SearchIndex
from pipeline.search.pruning import Pruning, prune_tokens
from pipeline.search.query_embedding import embed_queries
from pipeline.search.ranking import Ranking
from pipeline.search.retrievers import find_retrievers, rank_vectors
from pipeline.search.search import search, search_many
from transforms.index.state import FieldState, IndexState
from transforms.index.update import update_index

XQUAD = ROOT / "data" / "xquad"
QUERIES = [json.loads(line)["text"] for line in (XQUAD / "queries.jsonl").read_text().splitlines()[::40]]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> IndexTable:
    """XQuAD's paragraphs, one chunk a sentence, with some plain fields."""
    table = IndexTable(tmp_path_factory.mktemp("search") / "table")
    lines = (XQUAD / "corpus.jsonl").read_text().splitlines()
    documents = [
        {
            "_id": document["_id"],
            "text": document["text"].replace(". ", ".\n"),
            "title": f"Paragraph {number}",
            "year": 2000 + number % 10,
            "genre": "abc"[number % 3],
            "open": number % 2 == 0,
            "day": f"2024-{1 + number % 12:02d}-15",
        }
        for number, document in enumerate(map(json.loads, lines))
    ]
    table.put(*documents[:100])
    table.put(*documents[100:])
    return table


@pytest.fixture(scope="module")
def index(table: IndexTable, tmp_path_factory: pytest.TempPathFactory) -> SearchIndex:
    path = str(tmp_path_factory.mktemp("search") / "index")
    update_index(table.path, path)
    return SearchIndex(path)


def rows_of(table: IndexTable, field: str) -> list[tuple[str, list[Any]]]:
    """(_id, embeddings of the chunks) of each document, in the order of the index."""
    rows = DeltaTable(table.path).to_pyarrow_table(columns=["_id", field]).to_pylist()
    order = {id_: at for at, id_ in enumerate(f"d{number}" for number in range(240))}
    rows.sort(key=lambda row: order[row["_id"]])
    return [(row["_id"], [chunk["embeddings"] for chunk in row[field]["chunks"]]) for row in rows]


def test_dense_ranking_is_that_of_brute_force(table: IndexTable, index: SearchIndex) -> None:
    rows = rows_of(table, "text_dense")
    for query, hits in zip(QUERIES, search_many(index, QUERIES, mode="dense", k=240), strict=True):
        embedded = embed_queries(index.state, "text_dense", [query]).values[0].astype(np.float64)
        exact = {}
        for id_, chunks in rows:
            vectors = np.array(chunks, np.float64)
            cosines = vectors @ embedded / np.linalg.norm(vectors, axis=1) / np.linalg.norm(embedded)
            exact[id_] = (1 + cosines.max()) / 2
        assert {hit.id: hit.score for hit in hits} == pytest.approx(exact)
        scores = [exact[hit.id] for hit in hits]
        assert scores == sorted(scores, reverse=True)


def test_sparse_scores_are_dot_products_of_quantized_weights(table: IndexTable, index: SearchIndex) -> None:
    step = index.fields["text_sparse"].step
    rows = rows_of(table, "text_sparse")
    for query, hits in zip(QUERIES, search_many(index, QUERIES, mode="sparse", k=240), strict=True):
        weights = embed_queries(index.state, "text_sparse", [query]).row(0)
        exact, floats = {}, {}
        for id_, chunks in rows:
            dots = [sum(weights.get(t, 0) * round(w / step) * step for t, w in chunk) for chunk in chunks]
            exact[id_] = max(dots)
            floats[id_] = max(
                sum(weights.get(token, 0) * weight for token, weight in chunk) for chunk in chunks
            )
        assert {hit.id: hit.score for hit in hits} == pytest.approx(
            {id_: score for id_, score in exact.items() if score > 0}, rel=1e-5
        )
        # Rounding moves a weight by at most half a step.
        for hit in hits:
            assert abs(hit.score - floats[hit.id]) <= sum(weights.values()) * step / 2 + 1e-6


@pytest.mark.parametrize("mode", ["bm25", "sparse", "dense"])
def test_a_document_has_the_score_of_its_best_chunk(index: SearchIndex, mode: str) -> None:
    for hits in search_many(index, QUERIES, mode=mode, k=10):
        deep = search(index, QUERIES[0], mode=mode, k=240)
        assert len({hit.id for hit in deep}) == len(deep)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_the_first_k_do_not_depend_on_k(index: SearchIndex) -> None:
    for mode in ("bm25", "sparse", "dense"):
        for query in QUERIES:
            deep = [round(hit.score, 5) for hit in search(index, query, mode=mode, k=100)]
            assert [round(hit.score, 5) for hit in search(index, query, mode=mode, k=7)] == deep[:7]


@pytest.mark.parametrize(
    ("similarity", "element_type", "expected"),
    [
        ("cosine", "float", (1 + (3 * 1 + 4 * 2) / 5 / np.sqrt(5)) / 2),
        ("dot_product", "float", (1 + 11) / 2),
        ("l2_norm", "float", 1 / (1 + 4 + 4)),
        ("max_inner_product", "float", 11 + 1),
        ("dot_product", "byte", 0.5 + 11 / (2 * (1 << 15))),
        ("cosine", "byte", (1 + 11 / 5 / np.sqrt(5)) / 2),
    ],
)
def test_scores_follow_elasticsearchs_formulas(similarity: str, element_type: str, expected: float) -> None:
    state = FieldState("text_embedding", {}, 2, similarity, element_type)
    vectors = np.array([[3, 4]], state.dtype)
    query = np.array([[1, 2]], np.float64)
    if similarity == "cosine":
        query = query / np.sqrt(5)
    field = DenseField(state, vectors, np.array([5], np.float32))
    assert similarity_scores(field, slice(0, 1), query)[0, 0] == pytest.approx(expected)


def test_negative_inner_products_and_bits() -> None:
    state = FieldState("text_embedding", {}, 2, "max_inner_product", "float")
    field = DenseField(state, np.array([[-3.0, 0]], np.float32), np.array([3], np.float32))
    assert similarity_scores(field, slice(0, 1), np.array([[1.0, 0]]))[0, 0] == pytest.approx(1 / 4)
    bits = DenseField(
        FieldState("text_embedding", {}, 16, "l2_norm", "bit"), np.array([[1, -1]], np.int8), None
    )
    # 00000001 11111111 against 00000000 11111111: one of 16 bits differs.
    assert similarity_scores(bits, slice(0, 1), np.array([[0, -1]], np.int8))[0, 0] == pytest.approx(15 / 16)


def test_hybrid_is_reciprocal_rank_fusion(index: SearchIndex) -> None:
    query = QUERIES[3]
    hits = search(index, query, mode="hybrid", k=5)
    ranks = {
        mode: {hit.id: at for at, hit in enumerate(search(index, query, mode=mode, k=100), 1)}
        for mode in ("bm25", "sparse", "dense")
    }
    for hit in hits:
        assert hit.score == pytest.approx(
            sum(1 / (60 + found[hit.id]) for found in ranks.values() if hit.id in found)
        )
        assert sum(hit.parts.values()) == pytest.approx(hit.score)


def test_fusion_by_hand(index: SearchIndex) -> None:
    unit = next(iter(index.units.values()))
    first = Ranking(unit, np.array([1, 2, 3]), np.array([9.0, 5.0, 1.0]), np.zeros(3, np.int64))
    second = Ranking(unit, np.array([3, 4]), np.array([0.5, 0.4]), np.zeros(2, np.int64))
    fused = {hit.document: hit.score for hit in reciprocal_rank([first, second], 10)}
    assert fused == pytest.approx({1: 1 / 61, 2: 1 / 62, 3: 1 / 63 + 1 / 61, 4: 1 / 62})
    weighted = {hit.document: hit.score for hit in linear([first, second], [2, 1], 10)}
    assert weighted == pytest.approx({1: 2, 2: 1, 3: 0 + 1, 4: 0})


@pytest.mark.parametrize("mode", ["bm25", "sparse", "dense", "hybrid"])
@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("genre=a", lambda n: n % 3 == 0),
        ("genre!=a", lambda n: n % 3 != 0),
        ("year>=2008", lambda n: n % 10 >= 8),
        ("open=true", lambda n: n % 2 == 0),
        ("day<2024-03-01", lambda n: n % 12 < 2),
        ('{"range": {"day": {"gte": "2024-06-15T00:00:00Z", "lt": "2024-07"}}}', lambda n: n % 12 == 5),
        (
            '{"bool": {"should": [{"term": {"year": 2001}}, {"terms": {"genre": ["b"]}}]}}',
            lambda n: n % 10 == 1 or n % 3 == 1,
        ),
        ('{"exists": {"field": "year"}}', lambda n: True),
    ],
)
def test_filters_hold_in_every_mode(index: SearchIndex, mode: str, text: str, holds: Any) -> None:
    from pipeline.search.filters import parse_filters

    for query in QUERIES[:4]:
        hits = search(index, query, mode=mode, k=300, filter=parse_filters([text]))
        assert hits
        assert hits == search(index, query, mode=mode, k=300, filter=text), "Python takes the same text"
        assert all(holds(int(hit.id[1:])) for hit in hits)
        if mode != "hybrid":
            everything = search(index, query, mode=mode, k=300)
            assert {hit.id for hit in hits} == {hit.id for hit in everything if holds(int(hit.id[1:]))}


@pytest.mark.parametrize(
    ("query", "k", "message"),
    [("", 5, "a query is empty"), (" \n", 5, "is empty"), ("otter", 0, "at least 1; got 0")],
)
def test_searches_for_nothing_are_refused(index: SearchIndex, query: str, k: int, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        search(index, query, k=k)


def test_filters_say_what_is_wrong(index: SearchIndex) -> None:
    from pipeline.search.filters import parse_filters

    for text, message in [
        ("colour=red", "is no field that a filter can use; there are: _id, year, genre, open, day"),
        ("year=soon", r"is of type \[long\], and 'soon' is none"),
        ("year", "is not understood"),
        ('{"prefix": {"genre": "a"}}', "filter .prefix. is not understood"),
        ("day>yesterday", "is no date of the format"),
        ('{"bool": {"most": []}}', "bool has no .most."),
    ]:
        with pytest.raises(PipelineError, match=message):
            search(index, "x", mode="dense", filter=parse_filters([text]))


def test_wide_filters_are_exact_too(index: SearchIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter that lets many documents through is applied to tantivy's hits; the result is the same."""
    from pipeline.search.filters import parse_filters

    narrow = [search(index, query, mode="sparse", filter=parse_filters(["genre=a"])) for query in QUERIES]
    monkeypatch.setattr("pipeline.search.ranking.FEW_DOCUMENTS", 0)
    wide = [search(index, query, mode="sparse", filter=parse_filters(["genre=a"])) for query in QUERIES]
    assert [[(h.id, round(h.score, 5)) for h in hits] for hits in wide] == [
        [(h.id, round(h.score, 5)) for h in hits] for hits in narrow
    ]


@pytest.mark.parametrize("mode", ["bm25", "sparse"])
def test_an_explanation_adds_up_to_the_score(index: SearchIndex, mode: str) -> None:
    for query in QUERIES[:5]:
        for hit in search(index, query, mode=mode, k=3, explain=True):
            (matches,) = hit.explanation.values()
            assert sum(match.score for match in matches) == pytest.approx(hit.score, rel=1e-4)
            assert [match.score for match in matches] == sorted(
                (match.score for match in matches), reverse=True
            )


def test_highlights_mark_other_forms_of_a_word(index: SearchIndex) -> None:
    hit = search(index, "career sack", mode="bm25", k=1)[0]
    assert "<em>sacks</em>" in hit.highlight or "<em>sack</em>" in hit.highlight
    assert hit.highlight.replace("<em>", "").replace("</em>", "").count("<") == 0


def test_text_fields_are_searched_by_their_values(index: SearchIndex) -> None:
    hit = search(index, "Paragraph 77", mode="bm25", field="title", k=1)[0]
    assert (hit.id, hit.chunk.field, hit.chunk.text) == ("d77", "title", "Paragraph 77")
    by_source = search(index, "career sacks", mode="bm25", field="text", k=3)
    assert [hit.id for hit in by_source] == [
        hit.id for hit in search(index, "career sacks", mode="bm25", k=3)
    ]


def test_modes_find_their_fields(index: SearchIndex) -> None:
    assert [retriever.name for retriever in find_retrievers(index, "hybrid", "text")] == [
        "bm25:text",
        "sparse:text_sparse",
        "dense:text_dense",
    ]
    assert [retriever.name for retriever in find_retrievers(index, "hybrid", "text_dense")] == [
        "bm25:text_dense",
        "dense:text_dense",
    ]
    assert [retriever.name for retriever in find_retrievers(index, "hybrid", "title")] == ["bm25:title"]
    with pytest.raises(
        PipelineError, match=r"\[text_sparse\] has no dense embeddings; fields that have: text_dense"
    ):
        search(index, "x", mode="dense", field="text_sparse")
    with pytest.raises(PipelineError, match=r"no field \[body\]"):
        search(index, "x", field="body")


def test_pruning_by_elasticsearchs_rule() -> None:
    counts = {"the": 900, "sack": 10, "career": 20, "of": 800}
    weights = {"the": 0.5, "sack": 2.0, "career": 0.1, "of": 1.0, "unseen": 3.0}
    # The average token is in 1730 / 4 / 1000 of the chunks: `the` and `of` are over twice as frequent as that.
    kept = prune_tokens(weights, counts, 1000, Pruning(2.0, 0.3))
    assert kept == {"sack": 2.0, "career": 0.1, "of": 1.0}
    with pytest.raises(ValueError, match=r"must be between \[1\] and \[100\]"):
        Pruning(0.5)


def test_pruned_searches_score_less(index: SearchIndex) -> None:
    full = search(index, QUERIES[0], mode="sparse", k=1)[0]
    pruned = search(index, QUERIES[0], mode="sparse", k=1, pruning=Pruning(1.0, 0.9))
    assert not pruned or pruned[0].score <= full.score


def test_queries_of_another_model_are_refused(index: SearchIndex, table: IndexTable) -> None:
    other = DenseEmbeddings(np.zeros((1, 32), np.float32), np.zeros(1, bool), np.zeros(1, np.int32))
    (retriever,) = find_retrievers(index, "dense", None)
    with pytest.raises(PipelineError, match="has embeddings of 64 numbers, the query has 32"):
        rank_vectors(index, retriever, other, 10)


def test_an_endpoint_that_changed_is_refused(index: SearchIndex, tmp_path: Path) -> None:
    import shutil

    path = shutil.copytree(index.path, tmp_path / "index")
    state = IndexState.load(path)
    assert state is not None
    state.fields["text_dense"].definition["embedding_fingerprint"] = "0123456789abcdef"
    state.save(path)
    with pytest.raises(PipelineError, match=r"was embedded by hashing \(fingerprint 0123456789abcdef\)"):
        search(str(path), "x", mode="dense")
    assert search(str(path), "career", mode="bm25")


def test_a_search_endpoint_must_fit(index: SearchIndex, tmp_path: Path) -> None:
    import shutil

    path = shutil.copytree(index.path, tmp_path / "index")
    state = IndexState.load(path)
    assert state is not None
    state.fields["text_dense"].definition["search_inference_id"] = ".minilm-l6-v2"
    state.save(path)
    with pytest.raises(PipelineError, match=r"has dimensions \[64\], but its search_inference_id"):
        search(str(path), "x", mode="dense")


def test_no_index_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="there is no index at"):
        SearchIndex(tmp_path)


def test_the_command_prints_hits(index: SearchIndex, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["search", str(index.path), "career sacks", "--mode", "dense", "--k", "3", "--format", "json"]
    assert main(argv) == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    assert len(hits) == 3
    assert set(hits[0]["chunk"]) == {"field", "start_offset", "end_offset", "text"}
    assert main(["search", str(index.path), "career sacks", "--explain", "--filter", "genre=a"]) == 0
    assert "best chunk" in capsys.readouterr().out


def test_the_command_prunes_by_thresholds(index: SearchIndex, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["search", str(index.path), QUERIES[0], "--mode", "sparse", "--k", "1", "--format", "json"]
    scores = []
    for more in ([], ["--pruning", "100,0"], ["--pruning", "1,0.9"], ["--pruning", "elasticsearch"]):
        assert main([*argv, *more]) == 0
        hits = json.loads(capsys.readouterr().out)["hits"]
        scores.append(hits[0]["score"] if hits else 0.0)
    assert scores[0] == scores[1] > scores[2]
    for wrong, message in (
        ("5", "nor of the form RATIO,WEIGHT"),
        ("5,2", "must be between 0 and 1, got 2.0"),
    ):
        assert main([*argv, "--pruning", wrong]) == 1
        assert message in capsys.readouterr().err


def test_the_command_takes_a_file_of_queries(index: SearchIndex, tmp_path: Path, capsys: Any) -> None:
    queries = tmp_path / "queries.tsv"
    queries.write_text("q1\tcareer sacks\nq2\tprime numbers\n")
    assert main(["search", str(index.path), "--queries", str(queries), "--k", "2", "--mode", "bm25"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["query_id"] for line in lines] == ["q1", "q2"]
    assert main(["search", str(index.path)]) == 1
    assert "takes a QUERY" in capsys.readouterr().err


def test_weights_change_a_linear_fusion(index: SearchIndex) -> None:
    query = QUERIES[1]
    only_bm25 = {"bm25": 1.0, "sparse": 0.0, "dense": 0.0}
    hits = search(index, query, fusion="linear", weights=only_bm25, k=3)
    assert [hit.id for hit in hits] == [hit.id for hit in search(index, query, mode="bm25", k=3)]
    with pytest.raises(PipelineError, match="no weight for sparse"):
        search(index, query, fusion="linear", weights={"bm25": 1.0})


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("year>=1970 AND kind=report", [{"range": {"year": {"gte": "1970"}}}, {"term": {"kind": "report"}}]),
        ('kind="this AND that" AND x=1', [{"term": {"kind": "this AND that"}}, {"term": {"x": "1"}}]),
        ("title=BRAND", [{"term": {"title": "BRAND"}}]),
        ('{"term": {"a": "x AND y"}}', [{"term": {"a": "x AND y"}}]),
    ],
)
def test_clauses_of_a_filter_are_joined_by_and(text, clauses):
    from pipeline.search.filters import parse_filters

    assert parse_filters([text]) == {"bool": {"filter": clauses}}


@pytest.mark.parametrize("text", ["AND", "a=1 AND ", "a AND b=1", "a"])
def test_a_filter_that_is_not_understood_says_how_to_write_one(text):
    from pipeline.search.filters import parse_filters

    with pytest.raises(PipelineError, match="year>=1970 AND kind=report"):
        parse_filters([text])
