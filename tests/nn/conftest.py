"""What kernels need of a machine."""

import pytest

from stages.nn.kernels.cpp_kernels import can_compile
from stages.nn.kernels.tiles import has_tiles


@pytest.fixture(scope="session")
def _compiler():
    if not can_compile():
        pytest.skip("no C++ compiler is here, or PyTorch calls it in another way")


@pytest.fixture(scope="session")
def _tiles():
    if not has_tiles():
        pytest.skip("this CPU has no tile registers (AMX), or no C++ compiler is here")
