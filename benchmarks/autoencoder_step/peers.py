"""Autoencoders of the registry, as their packages build them, and their losses.

All get images in [0, 1], channels last, as networks of convolutions like them best.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["kl_loss", "pythae_loss", "pythae_rebuilt", "vq_loss"]

Loss = Callable[[], Tensor]

_WIDTHS = (16, 32)
"""As narrow as it takes for about as many operations per image as the others have."""
_GROUPS = 8


def pythae_loss(images: Tensor) -> tuple[nn.Module, Loss]:
    """`VQVAE` with moving averages and the ResNets that pythae has for CIFAR."""
    from pythae.models import VQVAE, VQVAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn.benchmarks.cifar import (
        Decoder_ResNet_VQVAE_CIFAR,
        Encoder_ResNet_VQVAE_CIFAR,
    )

    config = VQVAEConfig(
        input_dim=(3, 32, 32), latent_dim=16, num_embeddings=512, use_ema=True, decay=0.99
    )
    model = VQVAE(
        config,
        encoder=Encoder_ResNet_VQVAE_CIFAR(config),
        decoder=Decoder_ResNet_VQVAE_CIFAR(config),
    )
    batch = ModelOutput(data=images.contiguous(memory_format=torch.channels_last))
    return model, lambda: model(batch).loss


def pythae_rebuilt(model: nn.Module, images: Tensor) -> Tensor:
    """What a model of `pythae_loss` makes of images."""
    from pythae.models.base.base_utils import ModelOutput

    return model(ModelOutput(data=images)).recon_x.reshape(images.shape)


def vq_loss(images: Tensor) -> tuple[nn.Module, Loss]:
    """`VQModel`: residual blocks with group norms, a codebook by gradient."""
    from diffusers import VQModel

    model = VQModel(
        block_out_channels=_WIDTHS,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=16,
        num_vq_embeddings=512,
        norm_num_groups=_GROUPS,
        mid_block_add_attention=False,
    )
    images = images.contiguous(memory_format=torch.channels_last)

    def loss() -> Tensor:
        decoded = model(images)
        return F.mse_loss(decoded.sample, images) + decoded.commit_loss.mean()

    return model, loss


def kl_loss(images: Tensor) -> tuple[nn.Module, Loss]:
    """`AutoencoderKL`: the same blocks around a Gaussian."""
    from diffusers import AutoencoderKL

    model = AutoencoderKL(
        block_out_channels=_WIDTHS,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=_GROUPS,
        mid_block_add_attention=False,
    )
    images = images.contiguous(memory_format=torch.channels_last)

    def loss() -> Tensor:
        posterior = model.encode(images).latent_dist
        decoded = model.decode(posterior.sample()).sample
        return F.mse_loss(decoded, images) + 1e-6 * posterior.kl().mean()

    return model, loss
