"""Operations and bytes of models for 256 x 256 pixels, counted without computing anything.

    python -m benchmarks.scaling.plan

Networks are built of torch's fake tensors, which have shapes and no numbers, and the operations of
a pass are counted by torch's own counter: 2 for a multiplication and an addition.
A step of training is taken as three passes, as the backward pass is about two.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from stages.assembly.first_stage import FirstStageParams, build_first_stage
from stages.assembly.second_stage import SecondStageParams, build_second_stage
from stages.bottlenecks.base import LatentSpec
from stages.core.sections import parse_params, read_yaml
from stages.core.shapes import ImageShape

__all__ = ["count_first_stage", "count_prior"]

PROJECT = Path(__file__).resolve().parents[2]
IMAGE = ImageShape(3, 256, 256)
CLASSES = 1000
WIDTHS = [128, 128, 256, 512]
"""Every level halves: 256 -> 16."""
PRIORS = {"base": (12, 768, 12), "large": (24, 1024, 16), "xl": (36, 1280, 20)}
"""Layers, width and heads of LlamaGen's B, L and XL (arXiv:2406.06525, Table 1)."""
NUM_CODES = 16384


def _raw() -> dict[str, Any]:
    raw = read_yaml(PROJECT / "params.yaml")
    return raw | read_yaml(PROJECT / "pipelines/presets/fashion_vq.yaml")


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def count_first_stage(widths: list[int], image: ImageShape, num_codes: int) -> dict[str, Any]:
    """Parameters, and operations of encoding and of decoding one image."""
    raw = _raw()
    raw["backbone"] |= {"widths": widths, "blocks": 2}
    raw["bottleneck"] |= {"num_codes": num_codes, "dim": 8}
    params = parse_params(FirstStageParams, raw, source="plan", strict=False)
    with FakeTensorMode():
        model = build_first_stage(params, image, num_classes=0).eval()
        images = torch.zeros(1, *image)
        with FlopCounterMode(display=False) as encoding:
            codes = model.encode(images)
        with FlopCounterMode(display=False) as decoding:
            model.decode(codes)
    return {
        "parameters": _parameters(model),
        "grid": list(codes.shape[1:]),
        "encode": encoding.get_total_flops(),
        "decode": decoding.get_total_flops(),
    }


def count_prior(layers: int, width: int, heads: int, grid: int, num_codes: int) -> dict[str, Any]:
    """Parameters, and operations of one forward pass over the codes of an image."""
    raw = _raw()
    raw["prior"] |= {"layers": layers, "width": width, "num_heads": heads}
    params = parse_params(SecondStageParams, raw, source="plan", strict=False)
    spec = LatentSpec("codes", grid, grid, num_codes=num_codes)
    with FakeTensorMode():
        prior = build_second_stage(params, spec, num_classes=CLASSES).eval()
        codes = torch.zeros(1, grid, grid, dtype=torch.int64)
        labels = torch.zeros(1, dtype=torch.int64)
        with FlopCounterMode(display=False) as counted:
            prior(codes, labels, torch.tensor(0.0))
    return {"parameters": _parameters(prior), "forward": counted.get_total_flops()}


def main() -> None:
    """Count and print."""
    first = count_first_stage(WIDTHS, IMAGE, NUM_CODES)
    found = {"first stage": first} | {
        f"prior {name}": count_prior(*size, first["grid"][0], NUM_CODES)
        for name, size in PRIORS.items()
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
