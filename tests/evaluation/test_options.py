"""What is looked at is enough to be judged, or refused before any work."""

import pytest

from stages.core.errors import ParamsError
from stages.core.sections import read_yaml
from stages.params import check


@pytest.mark.parametrize(("count", "enough"), [(0, True), (1, False), (3, False), (4, True)])
def test_images_are_all_or_enough_for_a_distance(project, count, enough):
    raw = read_yaml(project / "params.yaml")
    raw["evaluate"]["max_images"] = count
    if enough:
        assert check(raw, source="p").evaluate.max_images == count
        return
    with pytest.raises(ParamsError, match=f"max_images must be 0 .* at least 4.*; got {count}"):
        check(raw, source="p")
