"""Forward, backward and AdamW on 32 x 32 colour images, in operations per second.

Networks differ in what they are made of, so their sizes are chosen for about equal operations per
image (the table says how many), and what is compared is how fast each does its own. Operations are
counted as the step runs, convolutions and matrix products alone, by PyTorch's counter.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.autoencoder_step.peers import kl_loss, pythae_loss, vq_loss
from benchmarks.side_by_side.ceiling import ceiling_contender
from benchmarks.side_by_side.contest import Contender, Contest, ours_and_compiled
from benchmarks.side_by_side.peers import peer
from benchmarks.side_by_side.training_step import STEPS_IN_A_ROW, compiled_forward, training_step
from stages.assembly.first_stage import FirstStageParams, build_first_stage
from stages.core.sections import parse_params
from stages.core.shapes import ImageShape

__all__ = ["OURS", "OURS_CONV", "make_autoencoder", "our_step", "step_contest"]

IMAGE = ImageShape(3, 32, 32)
OURS = {
    "autoencoder": {"kind": "flat"},
    "backbone": {
        "kind": "patch_conv",
        "patch": 4,
        "width": 160,
        "feature_width": 32,
        "blocks": 1,
        "decoder_blocks": 1,
    },
    "bottleneck": {
        "kind": "ema_vq",
        "num_codes": 512,
        "dim": 16,
        "commitment_weight": 1.0,
        "gradient": "straight_through",
        "decay": 0.99,
        "revive_below": 0.01,
        "kmeans_iterations": 0,
        "kmeans_vectors": 512,
    },
    "likelihood": {"kind": "gaussian", "sigma": "optimal", "value": 0.1, "decay": 0.99},
    "objective": {
        "kind": "beta",
        "kl_weight": 1.0,
        "free_bits": 0.0,
        "annealing": "none",
        "annealing_steps": 0,
        "cycles": 1,
    },
}
"""Sections of params.yaml, those of the preset `cifar_vq` with another backbone."""
OURS_CONV = OURS | {
    "backbone": {
        "kind": "conv",
        "widths": [64, 128],
        "blocks": 1,
        "decoder_widths": [],
        "decoder_blocks": 1,
        "decoder_kernel": 3,
        "upsampling": "nearest",
    },
}
"""Those of the preset, but wider."""

Loss = Callable[[], Tensor]


def step_contest(batch: int, seed: int, device: torch.device, *, compile: bool) -> Contest:
    """All autoencoders at one batch.

    Args:
        batch: Images of a step.
        seed: Of images and weights.
        device: Where to.
        compile: Whether ours is compiled; as it stands it then is one of the others.
    """
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(batch, *IMAGE, generator=generator).to(device)
    inputs = 2 * images - 1
    patches = Contender("ours, patch_conv + ema_vq", "ours", our_step(inputs, seed), 0)
    compiled = our_step(inputs, seed, compile=True) if compile else None
    # A peer of our own too: whoever trains `conv` sees what the other is worth.
    conv = Contender("ours, conv + ema_vq", "peer", our_step(inputs, seed, OURS_CONV), 0)
    contenders = (
        *ours_and_compiled(_counted(patches, batch), compiled),
        _counted(conv, batch),
        ceiling_contender(1e9, device),
        *(
            _counted(
                peer(name, package, lambda make=make: _peer_step(*make(images), device), 0), batch
            )
            for name, package, make in (
                ("pythae ResNet VQ-VAE", "pythae", pythae_loss),
                ("diffusers VQModel", "diffusers", vq_loss),
                ("diffusers AutoencoderKL", "diffusers", kl_loss),
            )
        ),
    )
    work, size = "training step of an autoencoder", f"batch {batch}"
    return Contest(work, size, "GFLOP", contenders, STEPS_IN_A_ROW, device)


def make_autoencoder(seed: int, sections: dict = OURS, image: ImageShape = IMAGE) -> nn.Module:
    """Ours, channels last as the training loop makes it."""
    params = parse_params(FirstStageParams, sections, source="benchmark", strict=True)
    torch.manual_seed(seed)
    return build_first_stage(params, image).to(memory_format=torch.channels_last)


def our_step(
    images: Tensor, seed: int, sections: dict = OURS, *, compile: bool = False
) -> Callable[[], object]:
    """One step, with what bottleneck and likelihood do after it."""
    device = images.device
    autoencoder = make_autoencoder(seed, sections).to(device)
    forward = compiled_forward(autoencoder, device) if compile else autoencoder
    generator = torch.Generator(device).manual_seed(seed)
    images = images.contiguous(memory_format=torch.channels_last)
    step = training_step(autoencoder, lambda: forward(images, None, generator).loss, device)

    def run() -> None:
        step()
        autoencoder.after_step(generator)
        autoencoder.likelihood.after_step()

    return run


def _peer_step(module: nn.Module, loss: Loss, device: torch.device) -> Callable[[], object]:
    module = module.to(device=device, memory_format=torch.channels_last)
    return training_step(module, loss, device)


def _counted(contender: Contender, batch: int) -> Contender:
    """The contender with its operations, and their number per image in its name."""
    if contender.run is None:
        return contender
    with FlopCounterMode(display=False) as counter:
        contender.run()
    flop = counter.get_total_flops()
    name = f"{contender.name} ({flop / batch / 1e6:.0f} MFLOP an image)"
    return replace(contender, name=name, amount=flop / 1e9)
