"""Inception-v3 as TensorFlow had it in 2015: 2048 features. The only network whose distance is FID.

Heusel et al. 2017 (arXiv:1706.08500) defined FID by this one network, its weights of 2015-12-05 and
its habits: 8-bit images, resized to 299x299 bilinearly without antialias and with the pixel
grid of TensorFlow 1, (v - 128) / 128, average pooling that leaves out the padding, one pooling that
takes the maximum. Other Inceptions give other numbers. Architecture and resizing are those of
torch-fidelity, which reproduces the original bit for bit (Obukhov et al. 2020); logits are without
bias, as the original Inception Score took them (Salimans et al. 2016, arXiv:1606.03498).

Neither is part of this project: `pip install 'latentline[fid]'` brings torch-fidelity, and the file
`weights-inception-2015-12-05-6726825d.pth` is found among its releases.

Differs: the file is read without pickled code, and only after its sha256 was found right;
torch-fidelity itself would fetch a missing file and unpickle whatever it is given.
"""

import importlib
import io
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from stages.core.errors import ParamsError
from stages.core.shapes import ImageShape, Pixels
from stages.extractors.base import (
    Extractor,
    ExtractorOptions,
    PixelRule,
    grey_words,
    require_colours,
    resize_words,
)
from stages.files.torchvision_import import import_torchvision
from stages.nn.published_weights import require_published

__all__ = ["KNOWN", "Inception", "InceptionOptions", "build_inception"]

KNOWN: tuple[str, ...] = ("6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",)
"""sha256 of the file, whose name carries the first eight digits."""

FILE = "weights-inception-2015-12-05-6726825d.pth"
MODULE = "torch_fidelity.feature_extractor_inceptionv3"
SIDE = 299


class InceptionOptions(ExtractorOptions):
    """The file `weights-inception-2015-12-05-6726825d.pth`."""

    kind: Literal["inception"]


class Inception(Extractor):
    """The network of FID."""

    title = "Inception-v3 of 2015-12-05 (torch-fidelity), pool3"
    name = "inception"
    distance_name = "fid"
    feature_dim = 2048
    num_classes = 1008
    test_accuracy = None

    def __init__(self, network: nn.Module, checksum: str) -> None:
        self._network, self.checksum = network, checksum

    @classmethod
    def open(
        cls, options: InceptionOptions, image: ImageShape, device: torch.device
    ) -> "Inception":
        """Read the published file into torch-fidelity's network."""
        require_colours(image, cls.name)
        mend = (
            f"evaluate.networks: weights of inception must name {FILE} of torch-fidelity's "
            "releases; without it leave inception out: no other network gives FID"
        )
        checksum = require_published(Path(options.weights), KNOWN, mend)
        tensors = torch.load(options.weights, weights_only=True, map_location="cpu")
        return cls(build_inception(tensors).to(device), checksum)

    @property
    def network(self) -> nn.Module:
        """torch-fidelity's network."""
        return self._network

    def rule(self, image: ImageShape) -> PixelRule:
        """To 299x299, inside the network."""
        return PixelRule(
            resize=resize_words("bilinear of TensorFlow 1", image, SIDE, SIDE),
            antialias=False,
            values="(v - 128) / 128",
            grey=grey_words(image),
        )

    def tells_apart(self, class_names: list[str]) -> bool:
        """Not of any data here."""
        return False

    def side(self, image: ImageShape) -> tuple[int, int]:
        """299x299."""
        return SIDE, SIDE

    @torch.inference_mode()
    def features(
        self, pixels: Pixels
    ) -> tuple[Float32[Tensor, "batch feature_dim"], Float32[Tensor, "batch num_classes"]]:
        """Features, and logits over ImageNet's classes of 2015 without their bias."""
        features, logits = self._network(pixels.expand(-1, 3, -1, -1))
        return features, logits


def build_inception(tensors: dict[str, Tensor]) -> nn.Module:
    """torch-fidelity's network with these weights.

    Raises:
        ParamsError: If torch-fidelity is not installed.
    """
    # Before torch-fidelity, which imports torchvision by itself.
    import_torchvision()
    try:
        module = importlib.import_module(MODULE)
    except ModuleNotFoundError as error:
        if error.name not in (MODULE, "torch_fidelity"):
            raise
        raise ParamsError(
            "evaluate.networks: inception needs the package torch-fidelity, which is not "
            "installed; `pip install torch-fidelity`, or leave inception out"
        ) from None
    # It loads its weights from a file, unpickling what is there: it gets tensors just read.
    file = io.BytesIO()
    torch.save(tensors, file)
    file.seek(0)
    network: nn.Module = module.FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=file
    )
    # Not all of its versions leave training mode by themselves.
    return network.eval()
