"""Images through codes to bits: what the two stages promise, made good.

    bits of an image = -log2 p(y) - log2 p(c given y) - log2 p(x given c)

with codes c of the image x, and its class y where either stage looks at classes (uniform: log2 of
their number). The codes are coded one by one under the prior, in the order in which it draws them;
the decoder network then says what to expect of the pixels, and these are coded under the
likelihood. The bits per dim of `evaluate` are thereby a rate (the argument of Townsend et al. 2019,
arXiv:1901.04866, section 2, for latents that are a function of the image: nothing has to be
bought back).

Encoder and decoder must compute the same probabilities to the last bit, and a product of matrices
depends in its last bits on their shapes. So both are one walk through the line: the prior *draws*,
with a cache, token after token, and who walks decides what is drawn, naming the codes it knows or
those it reads. Networks are called on `GROUP` images together, the last group filled up.

Differs: codes only. Posteriors would need their bits back, from discretized latents.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from stages.assembly.first_stage import FirstStage
from stages.assembly.second_stage import SecondStage
from stages.coding.codable import NOT_IN_TURN, why_not_codable
from stages.coding.entropy import Coder, Reader, Writer
from stages.core.errors import ArtifactError, ParamsError
from stages.core.intensities import from_pixels
from stages.core.shapes import Labels, Pixels
from stages.heads.base import SamplerSettings
from stages.likelihoods.base import ChooseLevels, Levels

__all__ = ["GROUP", "CodedGroup", "LineCoder"]

GROUP = 64
"""Images coded together; part of the format: another number gives other last bits."""

WholeGroup = Int[Tensor, " group"]

_DECODED = 16
"""Images decoded in one call: full-size feature maps need far more memory than tokens."""


@dataclass(frozen=True)
class CodedGroup:
    """Up to `GROUP` images."""

    pixels: Pixels
    labels: Labels | None


@dataclass(frozen=True, kw_only=True)
class _Choice(SamplerSettings):
    """Draws nothing: says what each code is, from what is known or from what is read."""

    coder: Coder
    known: Int[Tensor, "rows tokens"] | None
    """Codes of the group's images; None: they are read."""
    rows: int
    """Images that are there; the others fill up the group and are all code 0."""
    tokens: int
    prior_kind: str
    asked: list[int] = field(default_factory=list)
    """Which tokens were asked for, in that order."""

    def choose(
        self, logits: Float[Tensor, "batch num_codes"], uniforms: Float[Tensor, " batch"]
    ) -> Int[Tensor, " batch"]:
        """The codes of one token; the uniform number says which.

        Raises:
            ParamsError: If images are not asked for the same token.
        """
        # Priors hand each token its own numbers, so these can carry its place.
        if len(uniforms) != GROUP or bool((uniforms != uniforms[0]).any()):
            raise ParamsError(f"prior.kind: {self.prior_kind!r} {NOT_IN_TURN}")
        token = int(uniforms[0].item() * self.tokens)
        self.asked.append(token)
        probabilities = logits[: self.rows].cpu().double().softmax(dim=-1).numpy()
        given = None if self.known is None else self.known[:, token].numpy()
        found = torch.zeros(len(logits), dtype=torch.int64)
        found[: self.rows] = torch.from_numpy(self.coder.symbols(probabilities, given))
        return found.to(logits.device)


class LineCoder:
    """Codes groups of images with one trained line.

    Args:
        first: The autoencoder; its bottleneck stores codes, its likelihood is discretized.
        second: The prior over these codes.
        device: Where both are.

    Raises:
        ArtifactError: If the prior is of another autoencoder.
        ParamsError: If latents are no codes, the likelihood gives no bits, or the prior does not
            say what to expect of each code.
    """

    def __init__(self, first: FirstStage, second: SecondStage, device: torch.device) -> None:
        if second.autoencoder_digest != first.artifact.digest:
            raise ArtifactError(
                f"{second.artifact.path} was made from autoencoder {second.autoencoder_digest}, "
                f"but {first.artifact.path} is {first.artifact.digest}; use the two that belong "
                "together"
            )
        if reason := why_not_codable(first.params, second.params, second.prior.spec):
            raise ParamsError(reason)
        self.first, self.second, self.device = first, second, device
        # A class is needed by whoever looks at it.
        self.num_classes = max(second.prior.num_classes, first.autoencoder.num_classes)

    @torch.inference_mode()
    def write(self, group: CodedGroup) -> np.ndarray:
        """The images as words of 32 bits.

        Args:
            group: The images; labels None: without classes, which the prior calls 'no class'.

        Raises:
            ParamsError: If the autoencoder cannot do without classes, or the prior does not say
                what to expect of each code.
        """
        writer, count = Writer(), len(group.pixels)
        labels = self._labels(writer, group.labels, count, group.labels is not None)
        pixels = _filled(group.pixels).to(self.device)
        with _exact():
            codes = self.first.autoencoder.encode(from_pixels(pixels), self._of_first(labels))
        assert isinstance(codes, Tensor)
        known = codes.flatten(1)[:count].cpu()
        self._walk(writer, count, labels, known, group.pixels.long())
        return writer.words()

    @torch.inference_mode()
    def read(self, words: np.ndarray, count: int, with_labels: bool) -> CodedGroup:
        """The images again.

        Args:
            words: What `write` gave.
            count: How many images they are.
            with_labels: Whether they came with classes.

        Raises:
            ValueError: If the words do not fit the line: written with other probabilities.
        """
        reader = Reader(words)
        labels = self._labels(reader, None, count, with_labels)
        levels = self._walk(reader, count, labels, None, None)
        kept = None if labels is None else labels[:count].cpu()
        return CodedGroup(levels.to(torch.uint8), kept)

    def _walk(
        self,
        coder: Coder,
        count: int,
        labels: WholeGroup | None,
        codes: Int[Tensor, "rows tokens"] | None,
        pixels: Int[Tensor, "rows channels height width"] | None,
    ) -> Int[Tensor, "images channels height width"]:
        """Through prior and decoder; what is known is coded, what is not is read."""
        spec, prior = self.second.prior.spec, self.second.prior
        choice = _Choice(
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            guidance=1.0,
            coder=coder,
            known=codes,
            rows=count,
            tokens=spec.tokens,
            prior_kind=self.second.params.prior.kind,
        )
        places = (torch.arange(spec.tokens) + 0.5) / spec.tokens
        uniforms = places[None, :, None].expand(GROUP, -1, prior.noise_shape[1])
        with _exact():
            drawn = prior.sample(
                labels if prior.num_classes else None, uniforms.to(self.device), choice
            )
            if sorted(choice.asked) != list(range(spec.tokens)):
                raise ParamsError(f"prior.kind: {choice.prior_kind!r} {NOT_IN_TURN}")
            assert codes is None or torch.equal(drawn.flatten(1)[:count].cpu(), codes)
            found = []
            for start in range(0, count, _DECODED):
                stop = start + _DECODED
                of_these = None if labels is None else labels[start:stop]
                parameters = self.first.parameters(
                    drawn[start:stop], spec.scale, self._of_first(of_these)
                )
                some = None if pixels is None else pixels[start:stop]
                rows = min(count, stop) - start
                choose = _pixels_chosen(coder, some, rows)
                found.append(self.first.autoencoder.likelihood.walk(parameters, choose)[:rows])
        return torch.cat(found)

    def _labels(
        self, coder: Coder, given: Labels | None, count: int, there: bool
    ) -> WholeGroup | None:
        """Classes as any symbol, all equally probable; on the device, the group filled up."""
        if not there or not self.num_classes:
            if self.first.autoencoder.num_classes:
                raise ParamsError(
                    "autoencoder.kind: this one looks at classes, so images must come with theirs"
                )
            return None
        table = np.ones((count, self.num_classes))
        known = None if given is None else given.cpu().numpy()
        labels = torch.zeros(GROUP, dtype=torch.int64)
        labels[:count] = torch.from_numpy(coder.symbols(table, known))
        return labels.to(self.device)

    def _of_first(self, labels: WholeGroup | None) -> WholeGroup | None:
        return labels if self.first.autoencoder.num_classes else None


def _pixels_chosen(coder: Coder, pixels: Levels | None, rows: int) -> ChooseLevels:
    """What the likelihood asks, answered from the coder."""

    def choose(
        probabilities: Float[Tensor, "batch some_channels some_rows some_columns levels"],
        places: tuple[slice, slice, slice],
    ) -> Levels:
        table = probabilities[:rows].flatten(0, 3).numpy()
        given = None
        if pixels is not None:
            given = pixels[(slice(None), *places)].flatten().numpy()
        found = torch.zeros(probabilities.shape[:-1], dtype=torch.int64)
        found[:rows] = torch.from_numpy(coder.symbols(table, given)).view(found[:rows].shape)
        return found

    return choose


def _filled(pixels: Pixels) -> UInt8[Tensor, "group channels height width"]:
    """A whole group, with black images in the end."""
    missing = pixels.new_zeros(GROUP - len(pixels), *pixels.shape[1:])
    return torch.cat([pixels, missing])


def _exact() -> AbstractContextManager[None]:
    # The same sums in the same order on an accelerator too.
    return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
