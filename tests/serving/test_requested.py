"""An image depends on what was asked for, on nobody else's request, and is that of the stage."""

from pathlib import Path

import numpy as np
import pytest

from stages.core.errors import ParamsError
from stages.serving.requested import ImageServer, Wanted
from tests.serving.lines import opened


@pytest.mark.parametrize("which", ["codes_line", "continuous_line"])
def test_image_i_is_that_of_the_stage(which: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(which)
    line = opened(folder)
    server = ImageServer(line.trained, line.options)
    wanted = [Wanted(i % 3, 5, i, 1.0) for i in range(12)]
    stage = np.load(folder / "data/samples/images.npy")
    np.testing.assert_array_equal(server.images(wanted), stage)


@pytest.mark.parametrize(("which", "pixels"), [("codes_line", "mean"), ("continuous_line", "draw")])
def test_company_and_order_change_nothing(
    which: str, pixels: str, request: pytest.FixtureRequest
) -> None:
    line = opened(request.getfixturevalue(which), pixels=pixels)
    server = ImageServer(line.trained, line.options)
    # More than one pass; of codes, two temperatures across them.
    step = 1.0 if line.has_codes else 0.0
    asked = [Wanted(i % 3, i % 5, 40 * i, 1.0 + step * (i % 2)) for i in range(70)]
    together = server.images(asked)
    order = np.random.default_rng(0).permutation(len(asked))
    np.testing.assert_array_equal(server.images([asked[i] for i in order]), together[order])
    np.testing.assert_array_equal(server.images([asked[69]])[0], together[69])
    other = server.images([Wanted(asked[0].label, 99, 0, 1.0)])[0]
    assert (other != together[0]).any()


def test_rejected_candidates_are_those_of_the_stage(codes_line: Path) -> None:
    line = opened(codes_line, rejection_tries=4, rejection_threshold=0.36)
    drawn = line.trained.sampler(line.options).draw(0, 12)
    assert len(set(drawn.candidate.tolist())) > 1
    server = ImageServer(line.trained, line.options)
    wanted = [Wanted(i % 3, 5, i, 1.0) for i in range(12)]
    np.testing.assert_array_equal(server.images(wanted), drawn.images)


def test_what_the_line_does_not_have_is_refused_before_anything_is_drawn(codes_line: Path) -> None:
    line = opened(codes_line)
    refused = line.options.model_copy(update={"variance_temperature": 0.5})
    with pytest.raises(ParamsError, match="must be 1 for codes"):
        ImageServer(line.trained, refused)
