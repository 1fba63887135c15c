"""Saved and loaded, a first stage is the same; what is damaged or foreign is refused by name."""

import json
from pathlib import Path

import pytest
import torch

from stages.assembly.first_stage import (
    FirstStageParams,
    build_first_stage,
    load_first_stage,
    save_first_stage,
)
from stages.core.artifacts import new_artifact, open_artifact, read_weights, write_weights
from stages.core.errors import ArtifactError, ParamsError
from stages.core.intensities import to_pixels
from stages.core.sections import parse_params
from stages.core.shapes import ImageShape
from stages.nn.distributions import Posterior
from tests.backbones.examples import conv
from tests.bottlenecks.examples import EXAMPLES as BOTTLENECKS
from tests.objectives.examples import ELBO

IMAGE = ImageShape(3, 8, 12)
CPU = torch.device("cpu")


class Wider(FirstStageParams):
    """As a stage asks for them: with further sections."""

    seed: int


def params_of(bottleneck=BOTTLENECKS[0], widths=(8, 10)):
    sections = {
        "seed": 3,
        "autoencoder": {"kind": "flat"},
        "backbone": conv(widths, 1),
        "bottleneck": bottleneck,
        "likelihood": {"kind": "gaussian", "sigma": "optimal", "value": 0.2, "decay": 0.9},
        "objective": ELBO,
    }
    return parse_params(Wider, sections, source="test", strict=True)


def saved(path: Path, params=None):
    params = params or params_of()
    autoencoder = build_first_stage(params, IMAGE)
    with new_artifact(path, "autoencoder", {}) as folder:
        save_first_stage(folder, autoencoder, params, IMAGE)
    return autoencoder.eval()


def latents_of(autoencoder, images):
    encoded = autoencoder.encode(images)
    return encoded.mean if isinstance(encoded, Posterior) else encoded


@pytest.mark.parametrize("bottleneck", BOTTLENECKS, ids=str)
def test_what_is_loaded_is_what_was_saved(tmp_path, bottleneck):
    params, images = params_of(bottleneck), torch.rand(4, *IMAGE) * 2 - 1
    autoencoder = saved(tmp_path / "autoencoder", params)
    first = load_first_stage(tmp_path / "autoencoder", CPU)
    assert first.image == IMAGE
    assert first.params.bottleneck == params.bottleneck
    assert not first.autoencoder.training
    assert not any(p.requires_grad for p in first.autoencoder.parameters())
    assert first.autoencoder.spec == autoencoder.spec
    latents = latents_of(autoencoder, images)
    assert torch.equal(latents_of(first.autoencoder, images), latents)
    assert torch.equal(first.autoencoder.decode(latents), autoencoder.decode(latents))


def test_equal_autoencoders_give_equal_bytes(tmp_path):
    for name in ("one", "two"):
        torch.manual_seed(0)
        saved(tmp_path / name)
    one, two = (open_artifact(tmp_path / name, "autoencoder") for name in ("one", "two"))
    assert one.digest == two.digest


@pytest.mark.parametrize("bottleneck", BOTTLENECKS, ids=str)
def test_pixels_are_the_mean_of_the_likelihood_with_the_scale_undone(tmp_path, bottleneck):
    saved(tmp_path / "autoencoder", params_of(bottleneck))
    first = load_first_stage(tmp_path / "autoencoder", CPU)
    latents = latents_of(first.autoencoder, torch.rand(4, *IMAGE) * 2 - 1)
    with torch.no_grad():
        expected = to_pixels(first.autoencoder.likelihood.mean(first.autoencoder.decode(latents)))
    as_stored = latents * 4.0 if latents.is_floating_point() else latents
    pixels = first.pixels(as_stored, 4.0)
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels, expected)


def test_an_image_the_backbone_cannot_halve_is_a_mistake_in_params():
    with pytest.raises(ParamsError, match="multiples of 8; the images are 8x12"):
        build_first_stage(params_of(widths=(8, 8, 8)), IMAGE)


def test_a_missing_artifact_names_the_remedy(tmp_path):
    with pytest.raises(ArtifactError, match="dvc repro"):
        load_first_stage(tmp_path / "autoencoder", CPU)


def test_an_artifact_of_another_type_is_refused(tmp_path):
    with new_artifact(tmp_path / "prior", "prior", {}) as folder:
        (folder / "config.json").write_text("{}")
    with pytest.raises(
        ArtifactError, match="must be an artifact of type 'autoencoder', is 'prior'"
    ):
        load_first_stage(tmp_path / "prior", CPU)


@pytest.mark.parametrize("name", ["config.json", "weights.safetensors"])
def test_a_flipped_byte_is_found(tmp_path, name):
    saved(tmp_path / "autoencoder")
    file = tmp_path / "autoencoder" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{name}: damaged: sha256"):
        load_first_stage(tmp_path / "autoencoder", CPU)


def changed(path: Path, config=None, weights=None):
    """The artifact again, whole, but with other contents."""
    old = open_artifact(path, "autoencoder")
    content = json.loads((path / "config.json").read_text())
    tensors = read_weights(old, "weights.safetensors")
    if config is not None:
        config(content)
    if weights is not None:
        weights(tensors)
    with new_artifact(path, "autoencoder", {}) as folder:
        (folder / "config.json").write_text(json.dumps(content))
        write_weights(folder / "weights.safetensors", tensors)


def test_a_member_this_code_does_not_have_is_refused(tmp_path):
    path = tmp_path / "autoencoder"
    saved(path)
    changed(path, config=lambda c: c["params"]["bottleneck"].update(kind="magic"))
    with pytest.raises(
        ArtifactError, match=r"'magic' is not one of the bottlenecks.*train it again"
    ):
        load_first_stage(path, CPU)


def test_a_configuration_without_its_image_is_refused(tmp_path):
    path = tmp_path / "autoencoder"
    saved(path)
    changed(path, config=lambda c: c.pop("image"))
    with pytest.raises(ArtifactError, match="does not describe an autoencoder"):
        load_first_stage(path, CPU)


def test_weights_of_another_width_name_a_tensor_and_both_shapes(tmp_path):
    path = tmp_path / "autoencoder"
    saved(path)
    changed(path, config=lambda c: c["params"]["backbone"].update(widths=[8, 12]))
    with pytest.raises(ArtifactError, match=r"tensors do not fit .* must be \(.*\), is \(.*\)"):
        load_first_stage(path, CPU)


def test_missing_and_surplus_tensors_are_named(tmp_path):
    path = tmp_path / "autoencoder"
    saved(path)
    changed(path, weights=lambda t: t.update(surplus=torch.zeros(1)))
    with pytest.raises(ArtifactError, match=r"surplus must be absent, is \(1,\)"):
        load_first_stage(path, CPU)
    changed(path, weights=lambda t: (t.pop("surplus"), t.pop("likelihood.running_mean_square")))
    with pytest.raises(ArtifactError, match=r"running_mean_square must be \(\), is absent"):
        load_first_stage(path, CPU)
