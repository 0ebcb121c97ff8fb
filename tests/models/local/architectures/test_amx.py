"""The kernels for AMX on any processor with AVX-512 and its bfloat16: tiles are emulated, all the rest is real."""

import ctypes
from pathlib import Path

import numpy as np
import pytest
from support.checkpoints import TEXTS, endpoint, make_encoder, make_masked_lm

from models.local.architectures import native
from models.local.model import local_model

FLAGS = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.kernels,
    pytest.mark.skipif("avx512_bf16" not in FLAGS, reason="needs a processor with AVX512-BF16"),
]
SHAPE = {"hidden_size": 64, "num_attention_heads": 2}


@pytest.fixture(params=["float32", "bfloat16"])
def tiles(request: pytest.FixtureRequest, emulated: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let every model take the kernels for AMX: of one part for bfloat16, of two for float32."""
    find = emulated.kernels_for_this_cpu
    find.restype, find.argtypes = ctypes.POINTER(native.Kernels), [ctypes.c_int64]
    monkeypatch.setattr(native, "_load", lambda variant: find(variant).contents)
    monkeypatch.delenv(native.DISABLING_VARIABLE, raising=False)
    found = native.kernels((64, 32, 96), request.param)
    assert found is not None
    assert (found.parts, found.size) == (
        {"float32": 2, "bfloat16": 1}[request.param],
        ctypes.sizeof(native.Kernels),
    )
    return str(request.param)


def test_dense_embeddings_equal_those_of_pytorch(tiles: str, tmp_path: Path) -> None:
    folder = str(make_encoder("bert", tmp_path / "model", **SHAPE))
    expected, found = (
        local_model(endpoint("text_embedding", "own"), {"own": {"location": folder, **settings}}).load("cpu")
        for settings in ({"backend": "torch"}, {"dtype": tiles})
    )
    assert "native" in found._model_for("ingest").__module__
    theirs, ours = expected.embed(TEXTS, "ingest").values, found.embed(TEXTS, "ingest").values
    if tiles == "float32":
        np.testing.assert_allclose(ours, theirs, atol=4e-4)
    cosine = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    assert cosine.min() >= (0.99999 if tiles == "float32" else 0.999)


def test_sparse_embeddings_equal_those_of_pytorch(
    tiles: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "support.checkpoints.SMALL", {**SHAPE, "num_hidden_layers": 2, "intermediate_size": 96}
    )
    folder = str(make_masked_lm("bert", tmp_path / "model"))
    rows = []
    for settings in ({"backend": "torch"}, {"dtype": tiles}):
        model = local_model(endpoint("sparse_embedding", "own"), {"own": {"location": folder, **settings}})
        found = model.load("cpu").embed(TEXTS, "ingest")
        row = np.zeros((len(TEXTS), len(found.vocabulary)))
        row[np.repeat(np.arange(len(TEXTS)), np.diff(found.indptr)), found.token_ids] = found.weights
        rows.append(row)
    np.testing.assert_allclose(rows[1], rows[0], atol=1e-3 if tiles == "float32" else 0.1)
