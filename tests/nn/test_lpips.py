"""LPIPS against its definition, torchvision's network and the published example."""

import pytest
import torch
import torch.nn.functional as F

from stages.core.errors import ParamsError
from stages.core.shapes import ImageShape
from stages.files.torchvision_import import import_torchvision
from stages.nn.lpips import LINEAR, LPIPS, SQUEEZENET, network_size, open_lpips, resize_rule
from tests.nn.lpips_files import random_lpips, tensors_of, write_lpips

COLOURS = ImageShape(3, 70, 66)


def pair(batch=2, channels=3, height=70, width=66, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return (torch.rand(2, batch, channels, height, width, generator=draw) * 2 - 1).unbind()


def test_the_published_example_of_the_real_weights(shared_data):
    # The docstring of learned_perceptual_image_patch_similarity in torchmetrics.
    folder = shared_data.parent / "weights" / "lpips_squeeze"
    if not folder.is_dir():
        pytest.skip(f"no LPIPS weights at {folder}")
    draw = torch.Generator().manual_seed(42)
    images, others = (torch.rand(2, 3, 100, 100, generator=draw) * 2 - 1 for _ in range(2))
    network = open_lpips(folder, ImageShape(3, 100, 100), field="test")
    assert network(images, others).tolist() == pytest.approx([0.1024, 0.0938], abs=5e-5)


def test_the_features_are_those_of_torchvisions_network():
    network, (images, _) = random_lpips(), pair()
    theirs = import_torchvision("models").squeezenet1_1(weights=None).features
    theirs.load_state_dict(network.features.state_dict())
    torch.testing.assert_close(network.features(images), theirs.eval()(images))


def test_the_distance_is_the_sum_over_layers_of_means_over_cells():
    network, (images, others) = random_lpips(), pair(batch=1)
    expected = 0.0
    a, b = ((x - network.mean) / network.std for x in (images, others))
    weights = iter(network.weights)
    for number, layer in enumerate(network.features):
        a, b = layer(a), layer(b)
        if number in (1, 4, 7, 9, 10, 11, 12):
            weight, cells = next(weights), a[0, 0].numel()
            for x, y in zip(a[0].flatten(1).T, b[0].flatten(1).T, strict=True):
                expected += (weight * (x / x.norm() - y / y.norm()) ** 2).sum().item() / cells
    assert network(images, others).item() == pytest.approx(expected, rel=1e-4)


def test_it_is_symmetric_and_zero_for_equal_images_only():
    network, (images, others) = random_lpips(), pair()
    assert network(images, images).abs().max() == 0
    assert (network(images, others) > 0).all()
    assert torch.equal(network(images, others), network(others, images))


def test_each_pair_is_judged_alone():
    network, (images, others) = random_lpips(), pair(batch=3)
    alone = [network(images[i : i + 1], others[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(network(images, others), torch.cat(alone))


def test_grey_images_are_three_equal_channels():
    network, (images, others) = random_lpips(), pair(channels=1)
    colours = (x.repeat(1, 3, 1, 1) for x in (images, others))
    assert torch.equal(network(images, others), network(*colours))


@pytest.mark.parametrize(
    ("size", "seen"),
    [((8, 12), (64, 96)), ((28, 28), (64, 64)), ((100, 40), (160, 64)), ((64, 65), (64, 65))],
)
def test_small_images_are_enlarged_to_the_size_of_the_patches(size, seen):
    assert network_size(*size) == seen
    network, (images, others) = random_lpips(), pair(height=size[0], width=size[1])
    by_hand = (F.interpolate(x, seen, mode="bilinear") for x in (images, others))
    torch.testing.assert_close(network(images, others), network(*by_hand))


def test_the_resizing_is_told_in_words():
    assert resize_rule(64, 90) == "none"
    assert resize_rule(28, 32) == "bilinear, 28x32 to 64x73 (shorter side 64)"


def test_descending_its_gradient_brings_images_together():
    network, (images, others) = random_lpips(), pair(batch=1)
    others.requires_grad_()
    optimizer, distances = torch.optim.Adam([others], lr=0.03), []
    for _ in range(12):
        distance = network(images, others).sum()
        optimizer.zero_grad()
        distance.backward()
        optimizer.step()
        distances.append(distance.item())
    assert distances[-1] < 0.6 * distances[0]
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_cells_without_any_activation_have_finite_gradients():
    network, (images, others) = random_lpips(), pair()
    network.features[0].bias.fill_(-100)
    others.requires_grad_()
    network(images, others).sum().backward()
    assert others.grad.isfinite().all()


def test_lower_precision_around_it_changes_nothing():
    network, (images, others) = random_lpips(), pair(batch=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = network(images, others)
    assert torch.equal(inside, network(images, others))


def test_files_give_back_the_network_and_their_checksums(tmp_path, monkeypatch):
    checksums = write_lpips(tmp_path, monkeypatch)
    read = open_lpips(tmp_path, COLOURS, field="test")
    assert read.checksums == checksums
    torch.manual_seed(0)
    images, others = pair()
    assert not torch.equal(LPIPS()(images, others), read(images, others))
    assert torch.equal(random_lpips()(images, others), read(images, others))


@pytest.mark.parametrize("name", [SQUEEZENET, LINEAR])
def test_a_missing_file_is_told_with_the_parameter(name, tmp_path, monkeypatch):
    write_lpips(tmp_path, monkeypatch)
    (tmp_path / name).unlink()
    with pytest.raises(ParamsError, match=rf"{name}: no such file; perceptual\.weights must name"):
        open_lpips(tmp_path, COLOURS, field="perceptual.weights")


def test_a_file_of_other_bytes_is_refused(tmp_path, monkeypatch):
    write_lpips(tmp_path, monkeypatch)
    with (tmp_path / LINEAR).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(
        ParamsError, match=r"squeeze\.pth: sha256 must begin with \w{64}, is \w{64}"
    ):
        open_lpips(tmp_path, COLOURS, field="test")


def test_a_known_file_of_another_network_is_refused(tmp_path, monkeypatch):
    files = tensors_of(random_lpips())
    files[SQUEEZENET]["features.4.squeeze.weight"] = torch.zeros(16, 128, 3, 3)
    write_lpips(tmp_path, monkeypatch, files)
    with pytest.raises(
        ParamsError,
        match=r"features\.4\.squeeze\.weight must be \(16, 128, 1, 1\), is \(16, 128, 3",
    ):
        open_lpips(tmp_path, COLOURS, field="test")
    del files[SQUEEZENET]["features.4.squeeze.weight"]
    write_lpips(tmp_path, monkeypatch, files)
    with pytest.raises(ParamsError, match="is absent"):
        open_lpips(tmp_path, COLOURS, field="test")


def test_images_of_two_channels_are_refused(tmp_path):
    with pytest.raises(
        ParamsError, match=r"evaluate\.lpips_weights: .* the images have 2 channels"
    ):
        open_lpips(tmp_path, ImageShape(2, 70, 66), field="evaluate.lpips_weights")
