"""Time quantizers of moving averages beside peers and write the results; minutes."""

from collections.abc import Iterator

from benchmarks.quantizer.contest import GRID, quantizer_contest
from benchmarks.side_by_side.contest import Contest
from benchmarks.side_by_side.program import add_device, arguments_of, device_of, run_contests

__all__ = ["main"]

SIZES = ["64x512", "256x1024", "256x8192", "8x16384"]


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = arguments_of("quantizer", __doc__, rounds=5)
    parser.add_argument("--vectors", type=int, default=16_384, help=f"a multiple of {GRID**2}")
    parser.add_argument("--sizes", nargs="+", default=SIZES, help="numbers per vector x codes")
    add_device(parser)
    options = parser.parse_args(arguments)

    def contests() -> Iterator[Contest]:
        for size in options.sizes:
            dim, codes = map(int, size.split("x"))
            yield quantizer_contest(options.vectors, dim, codes, options.seed, device_of(options))

    run_contests("quantizer", options, contests)


if __name__ == "__main__":
    main()
