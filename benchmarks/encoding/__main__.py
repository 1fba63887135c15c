"""Time encoding to Parquet beside its forward passes and write the results; a minute."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.encoding.contest import encoding_contest
from benchmarks.side_by_side.contest import Contest
from benchmarks.side_by_side.program import arguments_of, run_contests

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = arguments_of("encoding", __doc__, rounds=3)
    parser.add_argument("--images", type=int, default=60_000, help="as Fashion-MNIST has")
    parser.add_argument("--batch", type=int, default=256)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:

        def contests() -> Iterator[Contest]:
            yield encoding_contest(Path(folder), options.images, options.batch, options.seed)

        run_contests("encoding", options, contests)


if __name__ == "__main__":
    main()
