"""Which lines can say an image in bits: known from their parameters, before anything is trained."""

from stages.assembly.first_stage import FirstStageParams
from stages.assembly.second_stage import SecondStageParams
from stages.bottlenecks.base import LatentSpec

__all__ = ["NOT_IN_TURN", "why_not_codable"]

NOT_IN_TURN = (
    "does not say what to expect of each code given those before; code with an autoregressive "
    "prior and the head categorical"
)


def why_not_codable(
    first: FirstStageParams, second: SecondStageParams, latents: LatentSpec
) -> str | None:
    """What stands between images and bits, and what to choose instead; None: nothing.

    Args:
        first: Sections of the autoencoder.
        second: Sections of the prior.
        latents: What the autoencoder stores.
    """
    if latents.kind != "codes":
        return (
            f"bottleneck.kind: {first.bottleneck.kind!r} stores {latents.kind} latents, and only "
            "codes are coded; use a bottleneck of codes, such as ema_vq or fsq"
        )
    if not first.likelihood.discretized:
        return (
            "likelihood.kind: images have bits only under a probability of 8-bit images, not under "
            f"{first.likelihood.kind!r} as it is set; use discretized_logistic, or autoregressive "
            "with 256 levels"
        )
    prior, head = second.prior, second.head
    if not prior.in_turn:
        return f"prior.kind: {prior.kind!r} {NOT_IN_TURN}"
    if prior.has_head and not head.whole_codes:
        return f"head.kind: {head.kind!r} {NOT_IN_TURN}"
    return None
