"""How different two images look: LPIPS in the features of SqueezeNet 1.1.

    d(x, y) = sum over layers l of mean over cells of sum over maps of w_l (a_l - b_l)^2

(Zhang et al. 2018, arXiv:1801.03924, Eq. 1), where a_l, b_l are the activations of both images,
divided at every cell by their length over the maps, and w_l >= 0 weights that were fitted to
people's judgements. The network is SqueezeNet 1.1 (Iandola et al. 2016, arXiv:1602.07360), trained
on ImageNet; the weights are version 0.1 of the authors. The distance is 0 for equal images, has no
unit, and is comparable only within one network, one set of weights and one size of images.

The two files come from elsewhere: `squeezenet1_1.pth` with torchvision's names and `squeeze.pth` of
the authors' repository. They are known by their sha256: a number that is called LPIPS is LPIPS, and
files that DVC does not watch cannot change a result unseen.

Differs: the length has derivative 0 where it is 0 (the authors' root gives NaN). Images whose
shorter side is below 64 are enlarged to it, bilinearly: the weights were fitted on patches of 64
pixels, and below 17 the deepest maps would be empty. Grey images are shown in three equal channels.
Always float32: in bfloat16 the differences of nearly equal images drown.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stages.core.artifacts import file_sha256
from stages.core.errors import ParamsError
from stages.core.shapes import Images, ImageShape

__all__ = ["LPIPS", "LPIPS_FILES", "SQUEEZENET", "network_size", "open_lpips", "resize_rule"]

SQUEEZENET, LINEAR = "squeezenet1_1.pth", "squeeze.pth"
LPIPS_FILES: dict[str, tuple[str, ...]] = {
    SQUEEZENET: (
        # Rounded to half precision; as torchvision publishes it (its names end in these digits).
        "62fc568c02362d8962b4277cf1e7b1dccb0a1265d76e3ddbb069ed693b0814e2",
        "b8a52dc0",
    ),
    LINEAR: ("4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76",),
}
"""The files, and how the sha256 of each may begin."""

# Side of the patches the weights were fitted on, in pixels.
SMALLEST_SIDE = 64
# Squeezed and expanded maps (of each of two kernel sizes) by torchvision's number of the module;
# the numbers between are poolings.
_FIRES = {
    3: (64, 16, 64),
    4: (128, 16, 64),
    6: (128, 32, 128),
    7: (256, 32, 128),
    9: (256, 48, 192),
    10: (384, 48, 192),
    11: (384, 64, 256),
    12: (512, 64, 256),
}
# Modules behind which the authors look, and the maps there.
_LOOKS = {1: 64, 4: 128, 7: 256, 9: 384, 10: 384, 11: 512, 12: 512}
# Mean and standard deviation of ImageNet's channels, for intensities in [-1, 1].
_MEAN = (-0.030, -0.088, -0.188)
_STD = (0.458, 0.448, 0.450)
# Added to lengths; the authors' value.
_TINY = 1e-10

Maps = Float[Tensor, "batch maps rows columns"]


class LPIPS(nn.Module):
    """The distance; frozen, differentiable in its images.

    Attributes:
        features: SqueezeNet 1.1 without its classifier, in torchvision's numbering.
        weights: w_l of the seven layers.
        checksums: sha256 of the files the numbers come from; empty for a network of one's own.
    """

    mean: Float[Tensor, "1 3 1 1"]
    std: Float[Tensor, "1 3 1 1"]
    checksums: dict[str, str]

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, stride=2), nn.ReLU()]
        for number in range(2, 13):
            fire = number in _FIRES
            layers.append(_Fire(*_FIRES[number]) if fire else nn.MaxPool2d(3, 2, ceil_mode=True))
        self.features = nn.Sequential(*layers)
        self.weights = nn.ParameterList([torch.rand(maps) for maps in _LOOKS.values()])
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)
        self.checksums = {}
        self.requires_grad_(False).eval()

    def forward(self, images: Images, others: Images) -> Float[Tensor, " batch"]:
        """Distance of each pair of images in [-1, 1], of 1 or 3 channels and of any size."""
        with torch.autocast(images.device.type, enabled=False):
            pairs = zip(self.weights, self._seen(images), self._seen(others), strict=True)
            distances = [
                ((a - b).square() * weight[:, None, None]).sum(dim=1).mean(dim=(1, 2))
                for weight, a, b in pairs
            ]
        return torch.stack(distances).sum(dim=0)

    def _seen(self, images: Images) -> list[Maps]:
        """Activations of the seven layers, of length 1 at every cell."""
        size = network_size(*images.shape[2:])
        maps = images.float().expand(-1, 3, -1, -1)
        if size != images.shape[2:]:
            maps = F.interpolate(maps, size, mode="bilinear", align_corners=False)
        maps = (maps - self.mean) / self.std
        seen = []
        for number, layer in enumerate(self.features):
            maps = layer(maps)
            if number in _LOOKS:
                length = torch.linalg.vector_norm(maps, dim=1, keepdim=True)
                seen.append(maps / (length + _TINY))
        return seen


class _Fire(nn.Module):
    """1x1 into few maps, then 1x1 and 3x3 side by side (Iandola et al. 2016, section 3.2)."""

    def __init__(self, width: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(width, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, maps: Maps) -> Tensor:
        squeezed = F.relu(self.squeeze(maps))
        return F.relu(torch.cat([self.expand1x1(squeezed), self.expand3x3(squeezed)], dim=1))


def network_size(height: int, width: int) -> tuple[int, int]:
    """Height and width at which the network sees images of this size."""
    factor = max(1.0, SMALLEST_SIDE / min(height, width))
    return round(height * factor), round(width * factor)


def resize_rule(height: int, width: int) -> str:
    """What is done to images of this size, in words."""
    size = network_size(height, width)
    if size == (height, width):
        return "none"
    return f"bilinear, {height}x{width} to {size[0]}x{size[1]} (shorter side {SMALLEST_SIDE})"


def open_lpips(folder: Path, image: ImageShape, *, field: str) -> LPIPS:
    """Read the distance from the two files in `folder`.

    Args:
        folder: Where `squeezenet1_1.pth` and `squeeze.pth` are.
        image: Shape of the images it will see.
        field: The parameter that names the folder, for messages.

    Raises:
        ParamsError: If a file is missing, is not the one it should be, or the images have neither
            one nor three channels.
    """
    if image.channels not in (1, 3):
        raise ParamsError(
            f"{field}: LPIPS needs grey images or three colours; the images have {image.channels} "
            "channels; leave it off"
        )
    network = LPIPS()
    body = {f"features.{n}": tensor for n, tensor in network.features.state_dict().items()}
    heads = {
        f"lin{number}.model.1.weight": weight[None, :, None, None]
        for number, weight in enumerate(network.weights)
    }
    for name, targets in {SQUEEZENET: body, LINEAR: heads}.items():
        network.checksums[name] = _fill(folder / name, targets, field)
    return network


@torch.no_grad()
def _fill(path: Path, targets: dict[str, Tensor], field: str) -> str:
    """Copy a file's tensors of these names into `targets`; its sha256."""
    mend = (
        f"{field} must name the folder with {' and '.join(LPIPS_FILES)} (torchvision's SqueezeNet "
        "1.1, and LPIPS v0.1 of richzhang/PerceptualSimilarity)"
    )
    if not path.is_file():
        raise ParamsError(f"{path}: no such file; {mend}")
    checksum = file_sha256(path)
    if not checksum.startswith(LPIPS_FILES[path.name]):
        known = " or ".join(LPIPS_FILES[path.name])
        raise ParamsError(f"{path}: sha256 must begin with {known}, is {checksum}; {mend}")
    tensors = torch.load(path, weights_only=True, map_location="cpu")
    for name, target in targets.items():
        found = tuple(tensors[name].shape) if name in tensors else "absent"
        if found != tuple(target.shape):
            raise ParamsError(f"{path}: {name} must be {tuple(target.shape)}, is {found}; {mend}")
        target.copy_(tensors[name])
    return checksum
