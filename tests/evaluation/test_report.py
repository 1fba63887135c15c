import pytest

from stages.evaluation.observe import evenly_spaced
from stages.evaluation.page import format_value


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (64, "64"), (3.14159, "3.142"), (-12.5, "-12.5"), (1e-6, "1.000e-06")],
)
def test_values_are_written_as_a_person_reads_them(value: float, text: str) -> None:
    assert format_value(value) == text


def test_rows_are_evenly_spaced_and_never_repeated() -> None:
    assert evenly_spaced(10, 0).tolist() == evenly_spaced(10, 99).tolist() == list(range(10))
    assert evenly_spaced(10, 4).tolist() == [0, 2, 5, 7]
