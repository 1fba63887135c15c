"""Small options of every backbone, and how to build one."""

from typing import Any

from stages.backbones.base import Backbone, BackboneOptions
from stages.core.sections import load_member, validate
from stages.core.shapes import ImageShape

IMAGE = ImageShape(3, 8, 12)


def conv(widths: list[int], blocks: int, upsampling: str = "nearest", **decoder: Any) -> dict:
    """Options of `conv`; its decoder mirrors the encoder unless `decoder` says otherwise."""
    mirror = {"decoder_widths": [], "decoder_blocks": blocks, "decoder_kernel": 3}
    values = {"kind": "conv", "widths": widths, "blocks": blocks, "upsampling": upsampling}
    return values | mirror | decoder


def attention(patch: int, width: int, layers: int, decoder_layers: int, num_heads: int) -> dict:
    """Options of `attention`."""
    return {
        "kind": "attention",
        "patch": patch,
        "width": width,
        "layers": layers,
        "decoder_layers": decoder_layers,
        "num_heads": num_heads,
    }


def patch_conv(patch: int, width: int, feature_width: int, blocks: int) -> dict:
    """Options of `patch_conv`, with as many blocks in the decoder."""
    return {
        "kind": "patch_conv",
        "patch": patch,
        "width": width,
        "feature_width": feature_width,
        "blocks": blocks,
        "decoder_blocks": blocks,
    }


EXAMPLES = [
    conv([8], 0),
    conv([8, 10], 1, "transposed"),
    conv([8, 10], 2),
    conv([8, 10], 2, decoder_widths=[4, 6], decoder_blocks=1, decoder_kernel=1),
    attention(patch=4, width=6, layers=2, decoder_layers=1, num_heads=2),
    attention(patch=2, width=5, layers=1, decoder_layers=0, num_heads=1),
    patch_conv(patch=4, width=9, feature_width=5, blocks=0),
    patch_conv(patch=2, width=9, feature_width=5, blocks=2),
    {"kind": "mlp", "widths": [11]},
    {"kind": "mlp", "widths": [11, 5]},
]


def build(
    values: dict, image: ImageShape = IMAGE, out_channels: int = 7
) -> tuple[BackboneOptions, Backbone]:
    """The options and the backbone these values describe."""
    options = validate(BackboneOptions.of_kind(values["kind"]), values, source="test")
    return options, load_member(Backbone, values["kind"])(options, image, out_channels)
