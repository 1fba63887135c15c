"""What kernels need of a machine."""

import pytest

from stages.nn.kernels.cpp_kernels import can_compile
from tests.nn.kernels.emulation import tiles_of_some_kind


@pytest.fixture(scope="session")
def _compiler():
    if not can_compile():
        pytest.skip("no C++ compiler is here, or PyTorch calls it in another way")


@pytest.fixture
def _tiles(_compiler):
    with tiles_of_some_kind():
        yield
