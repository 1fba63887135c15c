"""What is looked at is enough to be judged, or refused before any work."""

import pytest

from stages.core.errors import ParamsError
from stages.core.sections import read_yaml
from stages.params import check, require_named_files


@pytest.fixture
def raw(project):
    return read_yaml(project / "params.yaml")


# A kernel distance takes 4 images of a set, a ball to the k-th neighbour k + 1, and a standard
# error over blocks two of them.
@pytest.mark.parametrize(
    ("changes", "least", "why"),
    [
        ({"precision_neighbours": 1, "density_neighbours": 1}, 4, "distances between sets"),
        ({"precision_neighbours": 7}, 8, "precision_neighbours 7"),
        ({"density_neighbours": 9}, 10, "density_neighbours 9"),
        ({"kernel_block": 6}, 12, "two blocks of evaluate.distances.kernel_block 6"),
    ],
)
def test_images_are_all_or_enough_for_what_is_asked_of_them(raw, changes, least, why):
    raw["evaluate"]["distances"] |= changes
    for count in (0, least):
        raw["evaluate"]["max_images"] = count
        assert check(raw, source="p").evaluate.max_images == count
    raw["evaluate"]["max_images"] = least - 1
    message = rf"max_images must be 0 \(all\) or at least {least}, for .*{why}; got {least - 1}"
    with pytest.raises(ParamsError, match=message):
        check(raw, source="p")


@pytest.mark.parametrize(
    ("changes", "least"),
    [
        ({}, 4),
        ({"precision_neighbours": 7}, 8),
        ({"density_neighbours": 9}, 4),
        ({"kernel_block": 6}, 12),
    ],
)
def test_samples_are_enough_for_what_is_asked_of_them(raw, changes, least):
    raw["evaluate"]["distances"] |= changes
    raw["sampling"]["count"] = least
    check(raw, source="p")
    raw["sampling"]["count"] = least - 1
    with pytest.raises(ParamsError, match=f"sampling.count: must be at least {least}, for "):
        check(raw, source="p")


def test_a_line_is_drawn_through_points_that_can_miss_it(raw):
    for points in (0, 3):
        raw["evaluate"]["distances"]["infinity_points"] = points
        check(raw, source="p")
    for points in (1, 2):
        raw["evaluate"]["distances"]["infinity_points"] = points
        with pytest.raises(ParamsError, match=f"infinity_points must be 0 .* 3.*; got {points}"):
            check(raw, source="p")


PIXELS = {"kind": "discretized_logistic", "num_mixtures": 2, "channels": "independent"}
POINTS = {"kind": "identity", "layout": "spatial", "channels": 4}
MIXTURE = {"kind": "mixture", "components": 2, "std_floor": 1e-3, "guidance_candidates": 4}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"likelihood": PIXELS}, None),
        ({}, "got 8; .* probability of 8-bit images, not under 'gaussian'"),
        ({"bottleneck": POINTS, "head": MIXTURE}, "got 8; .*'identity' stores continuous latents"),
    ],
)
def test_images_are_coded_where_they_have_bits(project, changes, message):
    raw = read_yaml(project / "params.yaml") | changes
    raw["evaluate"]["coded_images"] = 8
    if message is None:
        check(raw, source="p")
        return
    with pytest.raises(ParamsError, match=message):
        check(raw, source="p")


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("evaluate", {"networks": [{"kind": "mobilenet_v2", "weights": "gone.pth"}]}),
        ("evaluate", {"lpips_weights": "gone.pth"}),
        ("perceptual", {"weight": 0.5, "weights": "gone.pth"}),
    ],
)
def test_weights_that_are_named_are_there(project, tmp_path, monkeypatch, section, values):
    monkeypatch.chdir(tmp_path)
    raw = read_yaml(project / "params.yaml")
    require_named_files(check(raw, source="p"))
    raw[section] |= values
    params = check(raw, source="p")
    with pytest.raises(ParamsError, match=f"{section}.*must name weights.*gone.pth is not"):
        require_named_files(params)
    (tmp_path / "gone.pth").touch()
    require_named_files(params)
