"""Which GPU, which precision, and what happens when a GPU gives something else than the CPU."""

import numpy as np
import pytest
import torch
from support.checkpoints import endpoint, make_encoder, make_masked_lm

from models.embeddings import DenseEmbeddings, Embedder, SparseEmbeddings
from models.errors import InferenceError, ModelLoadError
from models.local import device, load
from models.local.architectures import native
from models.local.model import local_model


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let PyTorch say that there are two GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    monkeypatch.setattr(device, "_GPU_DRIVERS", ("/dev/null",))
    monkeypatch.delenv(device.WORKER_VARIABLE, raising=False)


@pytest.mark.parametrize(
    ("worker", "wanted", "found"),
    [
        (None, None, "cuda:0"),
        ("worker_0", None, "cuda:0"),
        ("worker_1", None, "cuda:1"),
        ("worker_2", "cuda", "cuda:0"),
        ("sdk-0-3", "cuda", "cuda:1"),
        ("worker_1", "cuda:0", "cuda:0"),
        ("worker_1", "cpu", "cpu"),
        ("a-name", None, "cuda:0"),
    ],
)
@pytest.mark.usefixtures("gpus")
def test_workers_are_spread_over_the_gpus(
    worker: str | None, wanted: str | None, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if worker is not None:
        monkeypatch.setenv(device.WORKER_VARIABLE, worker)
    assert device.choose_device(wanted) == found


@pytest.mark.usefixtures("gpus")
def test_a_gpu_that_is_not_there_is_named() -> None:
    with pytest.raises(
        ModelLoadError, match=r"\[device: cuda:2\] is not there: this machine has cuda:0 to cuda:1"
    ):
        device.choose_device("cuda:2")


@pytest.mark.parametrize(
    ("capability", "wanted", "found"),
    [
        ((9, 0), None, "bfloat16"),
        ((8, 0), "float16", "float16"),
        ((7, 5), None, "float16"),
        ((7, 5), "float32", "float32"),
    ],
)
@pytest.mark.usefixtures("gpus")
def test_the_precision_is_one_that_the_card_computes_in(
    capability: tuple[int, int], wanted: str | None, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert device.choose_dtype(wanted, "cuda:0") == found


@pytest.mark.usefixtures("gpus")
def test_bfloat16_on_a_card_without_it_is_a_mistake_in_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    with pytest.raises(ModelLoadError, match=r"not for this GPU \[Tesla T4\]"):
        device.choose_dtype("bfloat16", "cuda:0")


def test_int8_on_a_gpu_is_a_mistake_in_the_config() -> None:
    with pytest.raises(ModelLoadError, match=r"\[dtype: int8\] is for CPUs, .*set \[device: cpu\]"):
        device.choose_dtype("int8", "cuda:0")


@pytest.mark.kernels
def test_int8_is_described_with_its_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "int8" not in device.describe_device("cpu")
    monkeypatch.setenv(native.DISABLING_VARIABLE, "avx2")
    assert device.describe_device("cpu", {"int8"}) == (
        "the CPU with the AVX2 kernels; int8 by AVX2, which has no instructions for it and is hardly faster than"
        " float32"
    )
    monkeypatch.setattr(
        native, "name_of_kernels", lambda dtype="float32": {"int8": "AVX-512 VNNI"}.get(dtype, "AVX-512")
    )
    assert device.describe_device("cpu", {"int8"}) == "the CPU with the AVX-512 kernels; int8 by AVX-512 VNNI"


def test_int8_without_kernels_is_a_mistake_in_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.DISABLING_VARIABLE, "off")
    with pytest.raises(ModelLoadError, match=r"\[dtype: int8\] needs the compiled kernels"):
        device.describe_device("cpu", {"int8"})


class Fixed(Embedder):
    """Gives the same rows, whatever it is asked, or fails."""

    def __init__(self, rows: np.ndarray | Exception, sparse: bool = False) -> None:
        self.device, self.rows, self.sparse = "cuda:0", rows, sparse

    def embed(self, texts, input_type):
        if isinstance(self.rows, Exception):
            raise self.rows
        nothing = np.zeros(len(texts), np.bool_), np.zeros(len(texts), np.int32)
        if not self.sparse:
            return DenseEmbeddings(self.rows, *nothing)
        rows, ids = self.rows.nonzero()
        indptr = np.searchsorted(rows, np.arange(len(texts) + 1))
        return SparseEmbeddings(indptr, ids.astype(np.int32), self.rows[rows, ids], ("a", "b", "c"), *nothing)


RIGHT = np.array([[1, 2, 3], [3, 0, 1], [1, 1, 1]], np.float32)
NEARLY = RIGHT + 0.02
OTHER = np.roll(RIGHT, 1, axis=1)


@pytest.mark.parametrize("sparse", [False, True])
def test_a_gpu_that_agrees_is_believed(sparse: bool) -> None:
    device.must_agree(Fixed(NEARLY, sparse), Fixed(RIGHT, sparse))


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("rows", [OTHER, np.zeros_like(RIGHT), RIGHT * np.nan])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_gpu_that_gives_something_else_stops_the_run(rows: np.ndarray, sparse: bool) -> None:
    with pytest.raises(ModelLoadError, match=r"other embeddings on \[cuda:0\] .* set \[device: cpu\]"):
        device.must_agree(Fixed(rows, sparse), Fixed(RIGHT, sparse))


@pytest.mark.parametrize("error", [InferenceError("not finite"), RuntimeError("no kernel image")])
def test_a_gpu_that_fails_stops_the_run(error: Exception) -> None:
    with pytest.raises(ModelLoadError, match=rf"cannot run on \[cuda:0\]: .*{str(error)[:9]}"):
        device.must_agree(Fixed(error), Fixed(RIGHT))


def test_bits_are_compared_one_by_one() -> None:
    right = np.array([[3, -128], [5, 5], [1, 2]], np.int8)
    device.must_agree(Fixed(right), Fixed(right), bits=True)
    with pytest.raises(ModelLoadError, match="cosine is"):
        device.must_agree(Fixed(right ^ 1), Fixed(right), bits=True)


@pytest.mark.parametrize("task", ["text_embedding", "sparse_embedding"])
def test_loading_on_another_device_compares_it_with_the_cpu(task: str, tmp_path, monkeypatch) -> None:
    """The second device is the CPU under another name; what it computes is spoilt on the way out."""
    folder = make_encoder("bert", tmp_path) if task == "text_embedding" else make_masked_lm("bert", tmp_path)
    monkeypatch.setattr(load, "choose_device", lambda _: "cpu:0")
    monkeypatch.setattr(load, "choose_dtype", lambda *_: "float32")
    compared = []
    original = load.must_agree

    def watch(found: Embedder, expected: Embedder, **options: bool) -> None:
        compared.append((found.device, expected.device))
        original(expected, expected, **options)

    monkeypatch.setattr(load, "must_agree", watch)
    local_model(endpoint(task, folder)).load()
    assert compared == [("cpu:0", "cpu")]
