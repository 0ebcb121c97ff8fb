"""Where a model computes and in which precision, and whether what comes out of a GPU can be believed."""

import os
import re
import sys
from collections.abc import Collection
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.embeddings import Embedder, Embeddings, SparseEmbeddings
from models.errors import InferenceError, ModelLoadError
from models.local.architectures import native

WORKER_VARIABLE = "WORKER_ID"
"""Environment variable in which Beam gives each worker process its name, such as ``worker_3`` or ``sdk-0-3``."""

_GPU_DRIVERS = ("/dev/nvidiactl", "/dev/nvgpu", "/dev/dxg", "/dev/kfd")
"""Where Linux has the driver of a GPU: NVIDIA's, that of its small boards, that under WSL, and AMD's."""

_LEAST_COSINE = 0.99
_PROBES = (
    "Embeddings of these sentences are computed twice, on the processor and on the GPU.",
    "Short, and 3.5 times shorter.",
    "If both agree, the rest can be believed: a text of another length stands in the same batch.",
)


def choose_device(name: str | None) -> str:
    """Choose the device; import PyTorch, which takes seconds, only where there may be another than the CPU.

    Args:
        name: ``cpu``, ``cuda`` or ``cuda:N``. None, and ``cuda``, take the GPU whose turn it is: that of worker process
            i is number i modulo the number of GPUs.

    Raises:
        ModelLoadError: there is no such device.
    """
    if name == "cpu":
        return name
    if name is not None or _may_have_gpus():
        count = gpu_count()
        if count and name in (None, "cuda"):
            return f"cuda:{worker_number() % count}"
        if count and name in [f"cuda:{number}" for number in range(count)]:
            return str(name)
        if count:
            raise ModelLoadError(
                f"[device: {name}] is not there: this machine has cuda:0 to cuda:{count - 1}"
            )
    if name is not None:
        raise ModelLoadError(f"[device: {name}] needs a CUDA device, and this machine has none", status=400)
    return "cpu"


def gpu_count() -> int:
    """How many GPUs this process may use."""
    if not _may_have_gpus():
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _may_have_gpus() -> bool:
    return sys.platform != "linux" or any(Path(driver).exists() for driver in _GPU_DRIVERS)


def describe_device(name: str | None, dtypes: Collection[str] = ()) -> str:
    """Say what models compute with: the GPU and its precision, or the CPU's kernels.

    Args:
        name: as `choose_device` takes it.
        dtypes: those that are asked for by name.

    Raises:
        ModelLoadError: there is no such device, or it is not for one of the dtypes.
    """
    device = choose_device(name)
    for dtype in dtypes:
        choose_dtype(dtype, device)
    if device != "cpu":
        import torch

        return f"{torch.cuda.get_device_name(device)} ({device}), {choose_dtype(None, device)}"
    found = native.name_of_kernels()
    if found is None:
        return "the CPU with PyTorch: there are no compiled kernels for it (see docs/performance.md)"
    return f"the CPU with the {found} kernels" + (_describe_int8() if "int8" in dtypes else "")


def _describe_int8() -> str:
    found = native.name_of_kernels("int8")
    if found in native.FAST_INT8:
        return f"; int8 by {found}"
    return f"; int8 by {found}, which has no instructions for it and is hardly faster than float32"


def worker_number() -> int:
    """The number of this process among the workers of its machine; 0 where it is alone."""
    found = re.search(r"(\d+)$", os.environ.get(WORKER_VARIABLE, ""))
    return int(found.group(1)) if found else 0


def choose_dtype(name: str | None, device: str) -> str:
    """Choose what to compute in.

    Args:
        name: ``float32``, ``bfloat16``, ``float16`` or ``int8``; None takes float32 on a CPU, and half precision on a
            GPU: bfloat16 where the card computes in it, else float16.
        device: where to compute.

    Raises:
        ModelLoadError: half precision where there are no instructions for it, so that it is slower than full; int8
            where there are no kernels for it.
    """
    if device != "cpu":
        return _dtype_on_gpu(name, device)
    if name == "float16":
        raise ModelLoadError(
            "[dtype: float16] needs a GPU; leave [dtype] out, or take bfloat16 or int8", status=400
        )
    if name == "bfloat16" and native.kernels((), "bfloat16") is None:
        raise ModelLoadError(
            "[dtype: bfloat16] on a CPU needs a processor with AMX and the compiled kernels (see docs/performance.md):"
            " without them it is slower than float32; leave [dtype] out",
            status=400,
        )
    if name == "int8" and native.kernels((), "int8") is None:
        raise ModelLoadError(
            "[dtype: int8] needs the compiled kernels, and there are none here for this processor, or"
            f" {native.DISABLING_VARIABLE} switches them off (see docs/performance.md); leave [dtype] out",
            status=400,
        )
    return name or "float32"


def _dtype_on_gpu(name: str | None, device: str) -> str:
    """PyTorch takes bfloat16 on any card, and fails or crawls on those that cannot compute in it, such as a T4."""
    import torch

    if name == "int8":
        raise ModelLoadError(
            f"[dtype: int8] is for CPUs, and [{device}] is a GPU; leave [dtype] out, or set [device: cpu]",
            status=400,
        )
    has_bfloat16 = torch.cuda.get_device_capability(device) >= (8, 0)
    if name == "bfloat16" and not has_bfloat16:
        card = torch.cuda.get_device_name(device)
        raise ModelLoadError(
            f"[dtype: bfloat16] is not for this GPU [{card}]; leave [dtype] out, or take float16", status=400
        )
    return name or ("bfloat16" if has_bfloat16 else "float16")


def must_agree(found: Embedder, expected: Embedder, *, bits: bool = False) -> None:
    """Embed a few texts on a GPU and on the CPU, so that a broken GPU stops the run and not each document.

    Args:
        found: on the GPU.
        expected: the same model on the CPU, in float32.
        bits: whether the embeddings are eight signs a byte.

    Raises:
        ModelLoadError: the GPU fails, or gives something else.
    """
    way_out = "set [device: cpu], or try [dtype: float32] in [models]"
    try:
        embeddings = found.embed(_PROBES, "ingest")
    except (InferenceError, RuntimeError) as error:
        raise ModelLoadError(f"The model cannot run on [{found.device}]: {error}; {way_out}") from error
    ours, wanted = (_matrix(one, bits) for one in (embeddings, expected.embed(_PROBES, "ingest")))
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(wanted, axis=1)
    cosine = float(((ours * wanted).sum(1) / lengths).min())
    if not cosine >= _LEAST_COSINE:
        raise ModelLoadError(
            f"The model gives other embeddings on [{found.device}] than on the CPU: their cosine is {cosine:.4f}, and"
            f" at least {_LEAST_COSINE} is expected; {way_out}"
        )


def _matrix(embeddings: Embeddings, bits: bool) -> npt.NDArray[np.float64]:
    """Lay embeddings out as [texts, dimensions], or [texts, vocabulary]."""
    if isinstance(embeddings, SparseEmbeddings):
        found = np.zeros((len(embeddings), len(embeddings.vocabulary)))
        found[np.repeat(np.arange(len(found)), np.diff(embeddings.indptr)), embeddings.token_ids] = (
            embeddings.weights
        )
        return found
    if bits:
        return np.unpackbits(embeddings.values.view(np.uint8), axis=1).astype(np.float64) * 2 - 1
    return embeddings.values.astype(np.float64)
