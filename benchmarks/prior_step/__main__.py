"""Time training steps of a prior beside peers and write the results; minutes."""

from collections.abc import Iterator

from benchmarks.prior_step.contest import step_contest
from benchmarks.side_by_side.contest import Contest
from benchmarks.side_by_side.prior_model import PriorSize
from benchmarks.side_by_side.program import add_device, arguments_of, device_of, run_contests

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = arguments_of("prior_step", __doc__, rounds=3)
    parser.add_argument("--tokens", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--compile", action="store_true", help="ours also compiled; a minute each")
    add_device(parser)
    options = parser.parse_args(arguments)

    def contests() -> Iterator[Contest]:
        for tokens in options.tokens:
            yield step_contest(
                PriorSize(options.layers, options.width, tokens, options.heads),
                options.batch,
                options.seed,
                device_of(options),
                compile=options.compile,
                compile_peers=options.compile_peers,
            )

    run_contests("prior_step", options, contests)


if __name__ == "__main__":
    main()
