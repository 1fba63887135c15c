"""What the benchmarks of priors have in common: their options, and the peers beside ours."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.side_by_side.contest import Contender
from benchmarks.side_by_side.peers import peer
from benchmarks.side_by_side.prior_model import PriorSize
from benchmarks.side_by_side.program import add_device, device_of

__all__ = ["PriorRun", "add_prior_options", "language_model_peers", "prior_run"]


@dataclass(frozen=True)
class PriorRun:
    """One contest of priors."""

    size: PriorSize
    batch: int
    """Sequences at once."""
    seed: int
    """Of weights and inputs."""
    device: torch.device
    compile: bool
    """Whether ours is compiled; as it stands it then is one of the others."""
    compile_peers: bool
    """Whether there is a row more of the peer that can be."""

    @property
    def amount(self) -> int:
        """Tokens."""
        return self.batch * self.size.tokens


def add_prior_options(parser: argparse.ArgumentParser) -> None:
    """The options that `prior_run` reads, those of `add_device` among them."""
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--compile", action="store_true", help="ours also compiled; a minute each")
    parser.add_argument("--compile-peers", action="store_true", help="the peer that can be, too")
    add_device(parser)


def prior_run(options: argparse.Namespace, batch: int, tokens: int) -> PriorRun:
    """The contest of one batch and number of tokens, as the options say."""
    return PriorRun(
        PriorSize(options.layers, options.width, tokens, options.heads),
        batch,
        options.seed,
        device_of(options),
        options.compile,
        options.compile_peers,
    )


def language_model_peers(
    run: PriorRun,
    llama_name: str,
    llama: Callable[[bool], Callable[[], object]],
    x_transformer: Callable[[], Callable[[], object]],
) -> tuple[Contender, ...]:
    """Transformers of the registry at the work of a run.

    Args:
        run: The contest.
        llama_name: In the table.
        llama: Builds it, compiled or not.
        x_transformer: Builds it.
    """
    compiled = (False, True) if run.compile_peers else (False,)
    return (
        *(
            peer(
                f"{llama_name}, compiled" if how else llama_name,
                "transformers",
                lambda how=how: llama(how),
                run.amount,
            )
            for how in compiled
        ),
        peer("x-transformers", "x-transformers", x_transformer, run.amount),
    )
