"""The same pass in packages from the registry, each as its own documentation builds it."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["diffusers_step", "pythae_step", "vector_quantize_step"]

_ROWS = 16


def vector_quantize_step(flat: Tensor, gradient: Tensor, codes: int) -> Callable[[], object]:
    """`VectorQuantize`, straight through, as sequences of vectors."""
    from vector_quantize_pytorch import VectorQuantize

    quantizer = VectorQuantize(
        flat.shape[1], codes, decay=0.99, commitment_weight=1.0, rotation_trick=False
    )
    quantizer = quantizer.train().to(flat.device)
    vectors = flat.view(-1, _ROWS * _ROWS, flat.shape[1]).detach().requires_grad_()

    def step() -> None:
        vectors.grad = None
        quantized, _, loss = quantizer(vectors)
        torch.autograd.backward(
            [quantized, loss], [gradient.view_as(quantized), torch.ones_like(loss)]
        )

    return step


def pythae_step(flat: Tensor, gradient: Tensor, codes: int) -> Callable[[], object]:
    """`QuantizerEMA`, channels last as it wants them."""
    from pythae.models.vq_vae.vq_vae_config import VQVAEConfig
    from pythae.models.vq_vae.vq_vae_utils import QuantizerEMA

    config = VQVAEConfig(num_embeddings=codes, use_ema=True, decay=0.99)
    config.embedding_dim = flat.shape[1]
    quantizer = QuantizerEMA(config).train().to(flat.device)
    vectors = flat.view(-1, _ROWS, _ROWS, flat.shape[1]).detach().requires_grad_()
    wanted = gradient.view_as(vectors).permute(0, 3, 1, 2)

    def step() -> None:
        vectors.grad = None
        out = quantizer(vectors)
        torch.autograd.backward(
            [out.quantized_vector, out.loss], [wanted, torch.ones_like(out.loss)]
        )

    return step


def diffusers_step(flat: Tensor, gradient: Tensor, codes: int) -> Callable[[], object]:
    """The quantizer of `VQModel`, whose codebook gets a gradient and no moving average."""
    from diffusers.models.autoencoders.vae import VectorQuantizer

    quantizer = VectorQuantizer(codes, flat.shape[1], beta=0.25, legacy=False)
    quantizer = quantizer.train().to(flat.device)
    vectors = flat.view(-1, _ROWS, _ROWS, flat.shape[1]).permute(0, 3, 1, 2).detach()
    vectors.requires_grad_()
    wanted = gradient.view(-1, _ROWS, _ROWS, flat.shape[1]).permute(0, 3, 1, 2).contiguous()

    def step() -> None:
        vectors.grad = None
        quantizer.zero_grad(set_to_none=True)
        quantized, loss, _ = quantizer(vectors)
        torch.autograd.backward([quantized, loss], [wanted, torch.ones_like(loss)])

    return step
