"""Time reading of random rows of codes beside numpy.memmap and write the results; a minute."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.reading.contest import reading_contest
from benchmarks.side_by_side.contest import Contest
from benchmarks.side_by_side.program import arguments_of, run_contests

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = arguments_of("reading", __doc__, rounds=5)
    parser.add_argument("--rows", type=int, default=1_000_000, help="images of the data set")
    parser.add_argument("--codes", type=int, default=256, help="of every image")
    parser.add_argument("--batch", type=int, default=256, help="rows read together")
    parser.add_argument("--batches", type=int, default=400, help="read in one round")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:

        def contests() -> Iterator[Contest]:
            yield reading_contest(
                Path(folder),
                options.rows,
                options.codes,
                (options.batches, options.batch),
                options.seed,
            )

        run_contests("reading", options, contests)


if __name__ == "__main__":
    main()
