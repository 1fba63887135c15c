"""Transformers of the registry, of the same depth, width, heads and feed-forward size as ours."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.side_by_side.ceiling import fastest_precision
from benchmarks.side_by_side.prior_model import CODES, PriorSize

__all__ = ["llama", "llama_loss", "llama_sampler", "x_transformer", "x_transformer_sampler"]


def llama(size: PriorSize) -> nn.Module:
    """`LlamaForCausalLM` of transformers: RMS norms, SwiGLU, rotary places, as ours."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=CODES,
        hidden_size=size.width,
        intermediate_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        max_position_embeddings=size.tokens + 1,
        attn_implementation="sdpa",
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    return LlamaForCausalLM(config)


def llama_loss(model: Callable[..., Any], codes: Tensor) -> Tensor:
    """Mean cost of each code given those before it."""
    return model(input_ids=codes, labels=codes, use_cache=False).loss


def llama_sampler(
    size: PriorSize, batch: int, device: torch.device, *, compile: bool = False
) -> Callable[[], object]:
    """`generate` with a static cache: from one token on, no truncation, temperature 1.

    Args:
        size: Of the model.
        batch: Sequences at once.
        device: Where to.
        compile: Whether its steps are compiled, in the way it has for that.
    """
    model = llama(size).eval().to(device, fastest_precision(device))
    first = torch.zeros(batch, 1, dtype=torch.int64, device=device)

    def run(tokens: int = size.tokens) -> object:
        return model.generate(
            first,
            attention_mask=torch.ones_like(first),
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=True,
            top_k=0,
            cache_implementation="static",
            disable_compile=not compile,
        )

    run(size.tokens if compile else 2)
    return run


def x_transformer(size: PriorSize) -> nn.Module:
    """A decoder of x-transformers with the same choices, in its wrapper for codes."""
    from x_transformers import AutoregressiveWrapper, Decoder, TransformerWrapper

    decoder = Decoder(
        dim=size.width,
        depth=size.layers,
        heads=size.heads,
        attn_dim_head=size.width // size.heads,
        ff_mult=size.hidden / size.width,
        ff_glu=True,
        ff_swish=True,
        ff_no_bias=True,
        use_rmsnorm=True,
        rotary_pos_emb=True,
        attn_flash=True,
    )
    return AutoregressiveWrapper(
        TransformerWrapper(
            num_tokens=CODES,
            max_seq_len=size.tokens + 1,
            attn_layers=decoder,
            use_abs_pos_emb=False,
        )
    )


def x_transformer_sampler(
    size: PriorSize, batch: int, device: torch.device
) -> Callable[[], object]:
    """`generate` with its cache: from one token on, no truncation, temperature 1."""
    model = x_transformer(size).eval().to(device, fastest_precision(device))
    first = torch.zeros(batch, 1, dtype=torch.int64, device=device)

    @torch.inference_mode()
    def run(tokens: int = size.tokens) -> object:
        return model.generate(first, tokens, filter_logits_fn=lambda logits: logits)

    run(2)
    return run
