"""Say what a latent data set is, and whether its bytes are those that were written.

python -m stages.latents describe data/latents
python -m stages.latents describe data/latents --verify
python -m stages.latents describe s3://bucket/latents --verify
"""

import argparse
import sys

from stages.core.errors import EXIT_USER_ERROR, LatentlineError
from stages.stores.latent_format import column_types
from stages.stores.latents import LatentDataset, open_latents

__all__ = ["describe", "main"]


def describe(dataset: LatentDataset) -> str:
    """A few lines for a person: what is stored, whose it is, and how much."""
    header, files = dataset.header, dataset.artifact.files
    splits = dataset.artifact.about["splits"]
    grid = f"{header.grid_height}x{header.grid_width}"
    if header.kind == "codes":
        dtype = column_types(header)["codes"][0].name
        where = f"on a {grid} grid"
        if header.parts:
            grids = ", ".join(f"{rows}x{columns}" for rows, columns in header.parts)
            where = f"on grids {grids} (parts), end to end in rows of {header.grid_width}"
        what = f"codes {where}, alphabet of {header.num_codes}, as {dtype}"
    else:
        dtype = column_types(header)["mean"][0].name
        points = "points" if header.deterministic else "mean and log-variance"
        what = f"continuous on a {grid} grid, {header.channels} channels, {points} as {dtype}"
    lines = [
        f"latents      {what}",
        f"classes      {_classes(dataset)}",
        f"name         {dataset.artifact.digest}",
        f"autoencoder  {header.autoencoder}",
        f"prepared     {header.prepared}",
        f"format       {header.format}, version {header.version}",
    ]
    if header.kind == "continuous":
        lines.insert(
            1, f"scale        {header.scale!r} (stored = scale * the bottleneck's own units)"
        )
    for split, about in sorted(splits.items(), key=lambda item: -item[1]["rows"]):
        size = sum(files[shard]["bytes"] for shard in about["shards"])
        lines.append(
            f"{split:<12} {about['rows']} rows of {about['images']} images "
            f"({', '.join(about['views'])}), {size} bytes in {len(about['shards'])} file(s)"
        )
        if "code_usage" in about:
            lines.append(
                f"{'':<12} codes in use {about['code_usage']:.1%}, "
                f"perplexity {about['code_perplexity']:.1f}"
            )
    return "\n".join(lines)


def _classes(dataset: LatentDataset) -> str:
    if not dataset.num_classes:
        return "none"
    names = dataset.class_names
    return str(dataset.num_classes) + (f": {', '.join(names)}" if names else "")


def main(arguments: list[str]) -> int:
    """Run the program; its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.latents", description=__doc__.splitlines()[0]
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("describe", help="say what a latent data set is")
    command.add_argument("path", help="its folder or URL: data/latents, s3://bucket/latents")
    command.add_argument(
        "--verify", action="store_true", help="read every byte and compare it with the manifest"
    )
    parsed = parser.parse_args(arguments)
    try:
        dataset = open_latents(parsed.path)
        print(describe(dataset))
        if not parsed.verify:
            print("integrity    sizes are right; --verify compares every byte")
            return 0
        for name in dataset.artifact.files:
            dataset.artifact.verified(name)
        print("integrity    every byte is as it was written")
    except (LatentlineError, OSError) as error:
        print(error, file=sys.stderr)
        return EXIT_USER_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
