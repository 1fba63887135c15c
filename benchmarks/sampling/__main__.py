"""Time sampling of codes beside peers and write the results; ten minutes on an idle core.

    python -m benchmarks.sampling --runs 64x256 16x256     batch x tokens

Runs of one batch and several numbers of tokens show how the cost of a token grows.
"""

from collections.abc import Iterator

from benchmarks.sampling.contest import sampling_contest
from benchmarks.side_by_side.contest import Contest
from benchmarks.side_by_side.prior_model import PriorSize
from benchmarks.side_by_side.program import add_device, arguments_of, device_of, run_contests

__all__ = ["main"]

RUNS = ["64x256", "16x256", "1x256", "16x64", "16x1024"]


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = arguments_of("sampling", __doc__, rounds=3)
    parser.add_argument("--runs", nargs="+", default=RUNS, help="batch x tokens")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument(
        "--compile", action="store_true", help="ours also with compiled steps; a minute for each"
    )
    add_device(parser)
    options = parser.parse_args(arguments)

    def contests() -> Iterator[Contest]:
        for run in options.runs:
            batch, tokens = map(int, run.split("x"))
            yield sampling_contest(
                PriorSize(options.layers, options.width, tokens, options.heads),
                batch,
                options.seed,
                device_of(options),
                compile=options.compile,
                compile_peers=options.compile_peers,
            )

    run_contests("sampling", options, contests, warm_up=False)


if __name__ == "__main__":
    main()
