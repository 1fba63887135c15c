"""Time sampling of codes beside peers and write the results; ten minutes on an idle core.

    python -m benchmarks.sampling --runs 64x256 16x256     batch x tokens

Runs of one batch and several numbers of tokens show how the cost of a token grows.
"""

from collections.abc import Iterator

from benchmarks.sampling.contest import sampling_contest
from benchmarks.side_by_side.contest import Contest
from benchmarks.side_by_side.prior_run import add_prior_options, prior_run
from benchmarks.side_by_side.program import arguments_of, run_contests

__all__ = ["main"]

RUNS = ["64x256", "16x256", "1x256", "16x64", "16x1024"]


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = arguments_of("sampling", __doc__, rounds=3)
    parser.add_argument("--runs", nargs="+", default=RUNS, help="batch x tokens")
    add_prior_options(parser)
    options = parser.parse_args(arguments)

    def contests() -> Iterator[Contest]:
        for run in options.runs:
            batch, tokens = map(int, run.split("x"))
            yield sampling_contest(prior_run(options, batch, tokens))

    run_contests("sampling", options, contests, warm_up=False)


if __name__ == "__main__":
    main()
