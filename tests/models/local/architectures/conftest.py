"""The kernels with emulated tiles."""

import ctypes
import subprocess
import sysconfig
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "support" / "kernels_with_products.cpp"
FLAGS = [
    "-O2",
    "-fno-math-errno",
    "-ffinite-math-only",
    "-fno-signed-zeros",
    "-fno-trapping-math",
    "-Wno-psabi",
]
"""Those of pyproject.toml that change numbers: what is fused differs without them."""


@pytest.fixture(scope="session")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The kernels with emulated tiles, as `models._kernels` is compiled otherwise."""
    library = tmp_path_factory.mktemp("kernels") / "emulated.so"
    include = sysconfig.get_paths()["include"]
    command = ["g++", *FLAGS, "-shared", "-fPIC", f"-I{include}"]
    subprocess.run([*command, SOURCE, "-o", library], check=True)
    return ctypes.CDLL(str(library))
