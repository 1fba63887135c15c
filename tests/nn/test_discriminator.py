"""The discriminator sees patches of the size the papers name, and each image alone."""

import pytest
import torch

from stages.core.errors import ParamsError
from stages.core.shapes import ImageShape
from stages.nn.discriminator import PatchDiscriminator, patch_size


def discriminator(image, width=8, layers=1):
    torch.manual_seed(2)
    return PatchDiscriminator(image, width, layers)


def some_images(batch, image):
    return torch.randn(batch, *image, generator=torch.Generator().manual_seed(1))


def test_patches_have_the_papers_sizes():
    assert [patch_size(layers) for layers in (1, 2, 3)] == [16, 34, 70]


@pytest.mark.parametrize(("layers", "image"), [(1, (2, 40, 44)), (2, (1, 76, 84))])
def test_a_logit_looks_at_one_patch(layers, image):
    network = discriminator(ImageShape(*image), layers=layers)
    # Normalisation looks at the whole image; without it the patch is all there is.
    network.norms = torch.nn.ModuleList(torch.nn.Identity() for _ in network.norms)
    images = some_images(1, image).requires_grad_()
    logits = network(images)
    row, column = logits.shape[2] // 2, logits.shape[3] // 2
    logits[0, 0, row, column].backward()
    seen = images.grad[0].abs().sum(dim=0) > 0
    rows, columns = seen.any(dim=1), seen.any(dim=0)
    assert rows.sum() == columns.sum() == patch_size(layers)


@pytest.mark.parametrize(("layers", "grid"), [(1, (10, 13)), (2, (4, 5)), (3, (1, 1))])
def test_one_logit_per_patch(layers, grid):
    image = ImageShape(3, 24, 30)
    assert discriminator(image, layers=layers)(some_images(5, image)).shape == (5, 1, *grid)


def test_widths_double_up_to_eight_times_the_first():
    network = discriminator(ImageShape(3, 100, 96), layers=5)
    assert [unit.out_channels for unit in network.units] == [16, 32, 64, 64, 64]


def test_an_image_is_judged_alone():
    image = ImageShape(1, 14, 18)
    network, images = discriminator(image), some_images(4, image)
    torch.testing.assert_close(network(images)[2:3], network(images[2:3]))


def test_it_starts_undecided_and_every_weight_learns():
    image = ImageShape(3, 32, 40)
    network = discriminator(image, width=16, layers=2)
    logits = network(some_images(4, image))
    assert 0.001 < logits.std() < 0.3
    logits.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_images_too_small_for_its_layers_are_refused():
    with pytest.raises(ParamsError, match=r"adversary\.layers: 2 .* at least 12 .* they are 11x40"):
        discriminator(ImageShape(1, 11, 40), layers=2)
    assert discriminator(ImageShape(1, 12, 40), layers=2)(torch.zeros(1, 1, 12, 40)).shape[2] == 1
