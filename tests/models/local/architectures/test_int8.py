"""Products in int8 against numpy, whole number by whole number, and models in int8 on every kind of kernel."""

import ctypes
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from support.checkpoints import TEXTS, endpoint, make_cross_encoder, make_encoder, make_masked_lm

from models.local.architectures import native
from models.local.architectures.bert import Array, HeadWeights
from models.local.architectures.layouts import lay_out_pair, quantize
from models.local.engine.batching import TokenBatch
from models.local.model import local_model
from models.local.rerank.model import local_rerank_model

pytestmark = pytest.mark.kernels

MINILM = "all-minilm-l6-v2"
VARIANTS = {"AMX": 4, "AVX-VNNI": 5, "AVX-512 VNNI": 6, "AVX-512": 7, "AVX2": 8}
Product = Callable[[Array, Array, Array], Array]


def by_numpy(rows: Array, weight: Array, bias: Array) -> Array:
    """The same arithmetic in numpy: whole numbers, a scale for each output, a scale and a zero for each token."""
    numbers, scales = quantize(weight)
    high, low = np.maximum(rows.max(axis=1), 0), np.minimum(rows.min(axis=1), 0)
    with np.errstate(all="ignore"):
        spread = high - low
        counts = spread > np.float32(1e-30)
        factors = np.where(counts, np.float32(254) / spread, np.float32(0)).astype(np.longdouble)
        steps = np.where(counts, spread / np.float32(254), np.float32(0))
        # Sums are exact in 64 bits, so that rounding is that of the instruction: once, and to even numbers.
        zeros = -np.rint(low * factors)
        found = np.rint(rows * factors[:, None] + zeros[:, None]).astype(np.int64)
        assert found.min(initial=0) >= 0
        assert found.max(initial=0) <= 255
        sums = (found - zeros.astype(np.int64)[:, None]) @ numbers.T.astype(np.int64)
        scaled = sums.astype(np.float32) * steps[:, None]
        return (scaled.astype(np.float64) * scales + bias).astype(np.float32)


def product_by(library: ctypes.CDLL, name: str) -> Product:
    """rows [tokens, inputs] x weight [outputs, inputs] + bias by one kind of kernels; skips where it cannot run."""
    variant = VARIANTS[name]
    library.kernels_for_this_cpu.restype = ctypes.POINTER(native.Kernels)
    library.kernels_for_this_cpu.argtypes = [ctypes.c_int64]
    library.int8_product.restype = None
    library.int8_product.argtypes = [ctypes.c_int64, *[ctypes.c_void_p] * 4, *[ctypes.c_int64] * 4]
    found = library.kernels_for_this_cpu(variant)
    if not found:
        pytest.skip(f"needs a processor with {name}")

    def compute(rows: Array, weight: Array, bias: Array) -> Array:
        strips, padded = lay_out_pair((weight, bias), found.contents)
        out = np.zeros((len(rows), len(weight)), np.float32)
        addresses = [array.ctypes.data for array in (rows, strips, padded, out)]
        library.int8_product(variant, *addresses, *rows.shape, len(weight), 0)
        return out

    return compute


@pytest.fixture(params=VARIANTS)
def product(request: pytest.FixtureRequest, emulated: ctypes.CDLL) -> Product:
    return product_by(emulated, request.param)


@pytest.mark.parametrize(
    ("tokens", "inputs", "outputs"),
    [(1, 8, 4), (31, 64, 32), (33, 80, 70), (130, 130, 37), (200, 7, 1), (64, 384, 96)],
)
def test_products_are_those_of_numpy(product: Product, tokens: int, inputs: int, outputs: int) -> None:
    random = np.random.default_rng(inputs)
    # Some tokens and some outputs are far larger than others, and most tokens lie on one side of zero.
    rows = random.normal(random.normal(size=(tokens, 1)), size=(tokens, inputs))
    rows = (rows * 10.0 ** random.integers(-15, 15, (tokens, 1))).astype(np.float32)
    weight = random.normal(size=(outputs, inputs)) * 10.0 ** random.integers(-5, 5, (outputs, 1))
    weight = weight.astype(np.float32)
    rows[tokens // 2], weight[outputs // 2] = 0, 0
    zero, bias = np.zeros(outputs, np.float32), random.normal(size=outputs).astype(np.float32)
    np.testing.assert_array_equal(product(rows, weight, zero), by_numpy(rows, weight, zero))
    found = product(rows, weight, bias)
    np.testing.assert_allclose(found, by_numpy(rows, weight, bias), rtol=1e-6)
    assert (found[tokens // 2] == bias).all()
    exact = rows.astype(np.float64) @ weight.T.astype(np.float64)
    size = np.linalg.norm(rows.astype(np.float64), axis=1)[:, None] * np.linalg.norm(weight, axis=1)
    assert (np.abs(product(rows, weight, zero) - exact) <= 0.02 * size).all()


EDGES = [0.0, -0.0, 1, -1, 0.5, 126.5 / 254, 1e-38, -1e-45, 1e-30, 3e38, -3e38, 2.5 / 254, -3.5 / 254]


def test_tokens_at_the_edges(product: Product) -> None:
    """Any two of them in a token: ends of a range, halves, what is too small to count, what is almost too large."""
    rows = np.array([[one, other, 0] for one in EDGES for other in EDGES], np.float32)
    weight = np.array([[1, 0, 0], [0, -1, 0], [1e-3, -1e-3, 5], [0, 0, 0]], np.float32)
    bias = np.zeros(4, np.float32)
    np.testing.assert_array_equal(product(rows, weight, bias), by_numpy(rows, weight, bias))


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sums_do_not_overflow(product: Product, sign: int) -> None:
    rows, weight = np.full((3, 4096), sign, np.float32), np.ones((5, 4096), np.float32)
    np.testing.assert_allclose(product(rows, weight, np.zeros(5, np.float32)), sign * 4096, rtol=1e-6)


def matrix(rows: int, columns: int, elements: st.SearchStrategy[float]) -> st.SearchStrategy[Array]:
    return arrays.arrays(np.float32, st.tuples(st.integers(1, rows), st.just(columns)), elements=elements)


def test_what_is_no_number_stays_one(product: Product) -> None:
    """An embedding that was computed from it must not look like one: it is found by its numbers that are not finite."""
    for broken in (np.nan, -np.nan, np.inf, -np.inf):
        rows = np.ones((3, 9), np.float32)
        rows[1, 4] = np.copysign(broken, -1 if str(broken).startswith("-") else 1)
        found = product(rows, np.ones((7, 9), np.float32), np.zeros(7, np.float32))
        assert not np.isfinite(found[1]).any()
        assert np.isfinite(found[[0, 2]]).all()


@pytest.mark.parametrize("name", ["AMX", "AVX-512 VNNI", "AVX2"])
@settings(max_examples=40)
@given(
    matrix(40, 9, st.floats(-(2.0**100), 2.0**100, width=32) | st.floats(-1, 1, width=32)),
    matrix(14, 9, st.floats(-100, 100, width=32) | st.floats(-(2.0**-20), 2.0**-20, width=32)),
)
@example(np.zeros((1, 9), np.float32), np.zeros((1, 9), np.float32))
def test_any_numbers(emulated: ctypes.CDLL, name: str, rows: Array, weight: Array) -> None:
    bias = np.zeros(len(weight), np.float32)
    found = product_by(emulated, name)(rows, weight, bias)
    np.testing.assert_array_equal(found, by_numpy(rows, weight, bias))


@given(matrix(9, 5, st.floats(-(2.0**127), 2.0**127, width=32)))
def test_weights_use_their_whole_range_and_never_the_smallest_number(weight: Array) -> None:
    numbers, scales = quantize(weight)
    most = np.abs(weight).max(axis=1)
    assert numbers.min() >= -127
    assert (np.abs(numbers.astype(int)).max(axis=1) == np.where(scales > 0, 127, 0)).all()
    assert ((scales > 0) == (most >= 127 * np.finfo(np.float32).tiny)).all()
    error = np.abs(numbers * scales.astype(np.float64)[:, None] - weight)
    assert (error <= np.maximum(0.501 * scales, 127 * np.finfo(np.float32).tiny)[:, None]).all()


def embedded(folder: Path | str, dtype: str, texts: Sequence[str], task: str = "text_embedding") -> Array:
    model = local_model(endpoint(task, "own"), {"own": {"location": str(folder), "dtype": dtype}})
    found = model.load("cpu").embed(texts, "ingest")
    if task == "text_embedding":
        return found.values
    rows = np.zeros((len(found), len(found.vocabulary)), np.float32)
    rows[np.repeat(np.arange(len(rows)), np.diff(found.indptr)), found.token_ids] = found.weights
    return rows


def cosines(found: Array, expected: Array) -> Array:
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return (found * expected).sum(axis=1) / np.where(lengths > 0, lengths, 1)


@contextmanager
def int8_kernels(name: str, library: ctypes.CDLL) -> Iterator[bool]:
    """Compute in int8 with one kind of kernels, or with those that a value of the environment variable leaves."""
    with pytest.MonkeyPatch.context() as patch:
        if name not in VARIANTS:
            patch.setenv(native.DISABLING_VARIABLE, name)
            yield True
            return
        find, only, others = library.kernels_for_this_cpu, VARIANTS[name], native._load
        find.restype, find.argtypes = ctypes.POINTER(native.Kernels), [ctypes.c_int64]
        patch.delenv(native.DISABLING_VARIABLE, raising=False)
        patch.setattr(native, "_VARIANTS", {**native._VARIANTS, ("int8", ""): (only,)})
        patch.setattr(native, "_load", lambda one: find(one).contents if one == only else others(one))
        yield bool(find(only))


@pytest.mark.parametrize(
    "shape",
    [
        {"hidden_size": 64, "num_attention_heads": 2},
        {"hidden_size": 80, "num_attention_heads": 4, "intermediate_size": 130},
        {"hidden_size": 36, "num_attention_heads": 6, "intermediate_size": 50},
    ],
)
def test_embeddings_are_the_same_bits_with_all_kernels(
    shape: dict, emulated: ctypes.CDLL, tmp_path: Path
) -> None:
    """A table that one machine has begun can be continued by another."""
    folder = make_encoder("bert", tmp_path / "model", **shape)
    texts = TEXTS * 12  # more tokens than a group of panels has
    float32, found = embedded(folder, "float32", texts), {}
    for name in ("", "avx512", "avx2", *VARIANTS):
        with int8_kernels(name, emulated) as is_there:
            if is_there:
                found[name] = embedded(folder, "int8", texts)
    assert cosines(found[""], float32).min() > 0.99
    assert not np.array_equal(found[""], float32)
    for values in found.values():
        np.testing.assert_array_equal(values, found[""])


def test_a_text_has_the_same_bits_in_any_company() -> None:
    texts = [" ".join(f"word{n * k % 97}" for n in range(k)) for k in (1, 2, 31, 33, 64, 150, 300)]
    model = local_model(endpoint("text_embedding", MINILM), {MINILM: {"dtype": "int8"}}).load("cpu")
    together = model.embed(texts * 3, "ingest").values
    alone = np.concatenate([model.embed([text], "ingest").values for text in texts])
    np.testing.assert_array_equal(together, np.tile(alone, (3, 1)))
    expected = local_model(endpoint("text_embedding", MINILM)).load("cpu").embed(texts, "ingest").values
    assert 0.995 < cosines(alone, expected).min() < 0.99999


def test_sparse_embeddings_are_the_same_bits_with_all_kernels(emulated: ctypes.CDLL, tmp_path: Path) -> None:
    folder = make_masked_lm("bert", tmp_path / "model")
    texts = TEXTS * 12
    float32, found = embedded(folder, "float32", texts, "sparse_embedding"), {}
    for name in ("", "avx512", "avx2", *VARIANTS):
        with int8_kernels(name, emulated) as is_there:
            if is_there:
                found[name] = embedded(folder, "int8", texts, "sparse_embedding")
    np.testing.assert_allclose(found[""], float32, atol=0.1)
    assert not np.array_equal(found[""], float32)
    for values in found.values():
        np.testing.assert_array_equal(values, found[""])
    np.testing.assert_array_equal(
        found[""], np.tile(embedded(folder, "int8", TEXTS, "sparse_embedding"), (12, 1))
    )


@pytest.mark.parametrize("width", [12, 36, 64])
def test_the_head_takes_the_largest_logit_of_a_text(emulated: ctypes.CDLL, width: int) -> None:
    """By numpy, from the same rounded numbers: for texts of all lengths, none at all among them."""
    random = np.random.default_rng(width)
    lengths = np.array([0, 1, 2, 3, 11, 12, 13, 0, 40, 1])
    hidden = random.normal(size=(lengths.sum(), width)).astype(np.float32)
    dense = (
        random.normal(size=(width, width)).astype(np.float32),
        random.normal(size=width).astype(np.float32),
    )
    decoder = random.normal(size=(70, width)).astype(np.float32)
    norm = np.ones(width, np.float32), np.zeros(width, np.float32)
    weights = HeadWeights(dense, norm, decoder, np.zeros(70, np.float32), 1e-12, "gelu")
    inner = by_numpy(hidden, *dense)
    inner = np.array([[x / 2 * (1 + math.erf(x / math.sqrt(2))) for x in row] for row in inner.tolist()])
    inner = (inner - inner.mean(axis=1, keepdims=True)) / inner.std(axis=1, keepdims=True)
    logits = by_numpy(inner.astype(np.float32), decoder, np.zeros(70, np.float32))
    ends = np.cumsum(lengths)
    expected = [
        np.log1p(np.maximum(logits[end - length : end].max(axis=0), 0)) if length else np.zeros(70)
        for end, length in zip(ends, lengths, strict=True)
    ]
    batch = TokenBatch(np.zeros(lengths.sum(), np.int32), lengths)
    for name in VARIANTS:
        with int8_kernels(name, emulated) as is_there:
            if not is_there:
                continue
            found = native.kernels((), "int8")
            head = native.NativeHead(weights, native.for_head(found), np.zeros(0, np.int64), False)
            counts, token_ids, found_weights = head.forward(hidden, batch)
        dense_rows = np.zeros((len(lengths), 70))
        dense_rows[np.repeat(np.arange(len(lengths)), counts), token_ids] = found_weights
        # A number in a thousand is rounded the other way, since norms are added up in another order here.
        np.testing.assert_allclose(dense_rows, expected, atol=0.02)
        assert np.median(np.abs(dense_rows - expected)) < 1e-6


def test_cross_encoders_in_int8(tmp_path: Path) -> None:
    folder = make_cross_encoder("bert", tmp_path / "model")
    models = [
        local_rerank_model(endpoint("rerank", "own"), {"own": {"location": str(folder), "dtype": dtype}})
        for dtype in ("int8", "float32", "bfloat16")
    ]
    found, expected = (model.load("cpu").rerank("the cat", TEXTS).scores for model in models[:2])
    np.testing.assert_allclose(found, expected, atol=0.1)
    assert not np.array_equal(found, expected)
    int8, float32, bfloat16 = (model.fingerprint for model in models)
    assert int8 != float32 == bfloat16
    assert models[0].describe()["dtype"] == "int8"


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_text_with_what_is_no_number_has_no_weights_that_look_like_some(
    broken: float, emulated: ctypes.CDLL
) -> None:
    width, lengths = 12, np.array([3, 14, 1, 5])
    hidden = np.random.default_rng(1).normal(size=(lengths.sum(), width)).astype(np.float32)
    hidden[3], hidden[17] = (
        broken,
        broken,
    )  # the first token of the second text, and the only one of the third
    square, zeros = np.eye(width, dtype=np.float32), np.zeros(width, np.float32)
    decoder, bias = np.ones((70, width), np.float32), np.zeros(70, np.float32)
    weights = HeadWeights((square, zeros), (zeros + 1, zeros), decoder, bias, 1e-12, "gelu")
    for name in VARIANTS:
        with int8_kernels(name, emulated) as is_there:
            if not is_there:
                continue
            found = native.for_head(native.kernels((), "int8"))
            head = native.NativeHead(weights, found, np.zeros(0, np.int64), False)
            rows = head.forward(hidden, TokenBatch(np.zeros(lengths.sum(), np.int32), lengths))
        is_number = np.split(np.isfinite(rows.weights), np.cumsum(rows.counts)[:-1])
        assert rows.counts[1:3].tolist() == [70, 70]
        assert [row.all() for row in is_number] == [True, False, False, True]
        assert not is_number[1].any()
        assert not is_number[2].any()
