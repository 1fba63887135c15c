"""One line of codes and one of continuous latents for all tests of the folder."""

from pathlib import Path

import pytest

from tests.evaluation.tiny_line import CODES, CONTINUOUS
from tests.serving.lines import make_square_line


@pytest.fixture(scope="session")
def codes_line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_square_line(tmp_path_factory.mktemp("codes"), CODES)


@pytest.fixture(scope="session")
def continuous_line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_square_line(tmp_path_factory.mktemp("continuous"), CONTINUOUS)
