"""All benchmarks of speed, one after another: what `make bench` runs.

    python -m benchmarks --threads 2

Options are handed on to each; what has an option of its own is run by its own name, such as
`python -m benchmarks.sampling --runs 64x256`. Each runs in a process of its own: what one has left
in memory is no concern of the next.
"""

import subprocess
import sys

__all__ = ["PROGRAMS", "main"]

PROGRAMS = (
    "quantizer",
    "autoencoder_step",
    "prior_step",
    "sampling",
    "encoding",
    "reading",
    "cost_growth",
)


def main() -> None:
    """Run them; the first that fails ends it."""
    for name in PROGRAMS:
        command = [sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:]]
        print(" ".join(command[1:]), flush=True)
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
