"""What cannot change, whatever the others do."""

import pytest

from pipelines.workspace.changes import untouched

GRAPH = {"images": [], "judge": ["images"], "codes": ["images"], "prior": ["codes"]}


@pytest.mark.parametrize(
    ("changed", "left"),
    [
        ([], {"images", "judge", "codes", "prior"}),
        (["judge"], {"images", "codes", "prior"}),
        (["codes"], {"images", "judge"}),
        (["images"], set()),
    ],
)
def test_what_follows_from_a_change_is_not_settled(changed, left):
    assert untouched(list(GRAPH), GRAPH, changed) == left


def test_a_part_of_the_line_rests_on_what_is_up_to_date():
    assert untouched(["codes", "prior"], GRAPH, []) == {"codes", "prior"}
