"""Time training steps of autoencoders beside peers and write the results; minutes."""

from collections.abc import Iterator

from benchmarks.autoencoder_step.contest import step_contest
from benchmarks.side_by_side.contest import Contest
from benchmarks.side_by_side.program import add_device, arguments_of, device_of, run_contests

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = arguments_of("autoencoder_step", __doc__, rounds=5)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--compile", action="store_true", help="ours also compiled; half a minute")
    add_device(parser)
    options = parser.parse_args(arguments)

    def contests() -> Iterator[Contest]:
        yield step_contest(options.batch, options.seed, device_of(options), compile=options.compile)

    run_contests("autoencoder_step", options, contests)


if __name__ == "__main__":
    main()
