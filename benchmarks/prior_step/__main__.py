"""Time training steps of a prior beside peers and write the results; minutes."""

from collections.abc import Iterator

from benchmarks.prior_step.contest import step_contest
from benchmarks.side_by_side.contest import Contest
from benchmarks.side_by_side.prior_run import add_prior_options, prior_run
from benchmarks.side_by_side.program import arguments_of, run_contests

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = arguments_of("prior_step", __doc__, rounds=3)
    parser.add_argument("--tokens", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--batch", type=int, default=32)
    add_prior_options(parser)
    options = parser.parse_args(arguments)

    def contests() -> Iterator[Contest]:
        for tokens in options.tokens:
            yield step_contest(prior_run(options, options.batch, tokens))

    run_contests("prior_step", options, contests)


if __name__ == "__main__":
    main()
