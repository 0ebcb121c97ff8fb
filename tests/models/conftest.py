"""The kernels of this machine, for tests of what is computed with them."""

import pytest

from models.local.architectures import native


@pytest.fixture(params=["newest", "avx512", "avx2", "off"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with each kind of kernel that this machine has, and with PyTorch alone."""
    monkeypatch.setenv(native.DISABLING_VARIABLE, "" if request.param == "newest" else request.param)
    found = native.kernels((), "float32")
    allowed = {"newest": {32, 12, 6}, "avx512": {12, 6}, "avx2": {6}, "off": set()}[request.param]
    assert found is None or found.strip in allowed
    return str(request.param)
