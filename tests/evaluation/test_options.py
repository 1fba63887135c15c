"""What is looked at is enough to be judged, or refused before any work."""

import pytest

from stages.core.errors import ParamsError
from stages.core.sections import read_yaml
from stages.params import check, require_named_files


@pytest.mark.parametrize(("count", "enough"), [(0, True), (1, False), (3, False), (4, True)])
def test_images_are_all_or_enough_for_a_distance(project, count, enough):
    raw = read_yaml(project / "params.yaml")
    raw["evaluate"]["max_images"] = count
    if enough:
        assert check(raw, source="p").evaluate.max_images == count
        return
    with pytest.raises(ParamsError, match=f"max_images must be 0 .* at least 4.*; got {count}"):
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
