"""Write how probable the line holds each image of a split or a folder, the least probable first.

python -m stages.image_likelihoods test likelihoods.parquet
python -m stages.image_likelihoods FOLDER likelihoods.parquet --show 60

Beside the table stands a picture of the least likely images, each above its reconstruction, its
place and its nats: likelihoods.png. A folder (or zip archive) is read as `image_folder` reads it:
the same resizing as the training images. What the columns mean: stages/evaluation/image_table.py
and docs/likelihood.md. Runs outside DVC: it judges whatever images you point it at.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pyarrow
from pyarrow import parquet

from stages.assembly.first_stage import load_first_stage
from stages.assembly.second_stage import load_second_stage
from stages.core.devices import resolve_device
from stages.core.errors import ParamsError
from stages.core.pictures import captioned_grid, save_png
from stages.core.programs import exit_status
from stages.core.seeds import seed_argument
from stages.evaluation.given_images import open_given_images
from stages.evaluation.image_table import ImageTable, LikelihoodOfImages
from stages.stores.prepared import open_prepared

__all__ = ["main", "write_table"]

COLUMNS = 10
"""Images per row of the picture."""
SIDE = 128
"""Of an image and its reconstruction in one, in pixels."""


def write_table(path: Path, table: ImageTable, about: dict[str, str]) -> None:
    """Write table and picture; each appears whole or not at all.

    Args:
        path: Of the table; the picture has its name with the suffix .png.
        table: What was found.
        about: Schema metadata: what was judged, and by what.
    """
    rows = pyarrow.Table.from_pandas(table.rows, preserve_index=False)
    rows = rows.replace_schema_metadata({**(rows.schema.metadata or {}), **about})
    building = path.with_name(f".{path.name}.building")
    parquet.write_table(rows, building)
    building.replace(path)
    if len(table.least_likely):
        # Images above their reconstructions: one picture, twice as high.
        pairs = np.concatenate([table.least_likely, table.reconstructions], axis=2)
        captions = [_caption(row) for row in table.rows.head(len(pairs)).to_dict("records")]
        save_png(captioned_grid(pairs, captions, COLUMNS, SIDE), path.with_suffix(".png"))


def _caption(row: dict[str, object]) -> str:
    name = str(row.get("file") or row.get("class_name") or row.get("label") or "")
    short = name if len(name) <= 14 else f"…{name[-13:]}"
    return f"{row['index']} {short}\n{row['total_nats']:.0f} nats"


def _judge(arguments: argparse.Namespace) -> None:
    if arguments.table.suffix.lower() == ".png":
        raise ParamsError(f"table: must be no picture, which goes beside; got {arguments.table}")
    if arguments.table.is_dir():
        raise ParamsError(f"table: must be a file to write; got the folder {arguments.table}")
    device = resolve_device(arguments.device)
    first = load_first_stage(arguments.autoencoder, device)
    second = load_second_stage(arguments.prior, device)
    prepared = open_prepared(arguments.prepared)
    judge = LikelihoodOfImages(first, second, arguments.seed, device)
    images = open_given_images(arguments.images, prepared)
    table = judge.table(images, arguments.batch_size, arguments.show)
    about = {
        "images": images.title,
        "autoencoder": first.artifact.digest,
        "prior": second.artifact.digest,
        "prepared": prepared.artifact.digest,
        "seed": str(arguments.seed),
    }
    write_table(arguments.table, table, about)
    for file in images.rejected:
        print(f"left out: {file.path}: {file.reason}", file=sys.stderr)
    total = table.rows["total_nats"]
    where = images.title if images.split is None else f"the {images.title}"
    print(
        f"{arguments.table}: {len(total)} images of {where}\n"
        f"total        mean {total.mean():.2f}, median {total.median():.2f}, "
        f"largest {total.max():.2f} nats per image"
    )
    if "bits_per_dim" in table.rows:
        print(f"             mean {table.rows['bits_per_dim'].mean():.4f} bits per dim")


def main(arguments: list[str]) -> int:
    """Run the program; its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.image_likelihoods", description=__doc__.splitlines()[0]
    )
    parser.add_argument("images", help="train, validation or test; a folder; a zip archive")
    parser.add_argument("table", type=Path, help="Parquet file to write; the picture goes beside")
    parser.add_argument("--show", type=_positive, default=40, help="images of the picture")
    parser.add_argument("--seed", type=seed_argument, default=0, help="of the draws of posteriors")
    parser.add_argument("--batch-size", type=_positive, default=128, help="images at a time")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    for name in ("autoencoder", "prior", "prepared"):
        parser.add_argument(f"--{name}", type=Path, default=Path("data") / name)
    options = parser.parse_args(arguments)
    return exit_status(lambda: _judge(options))


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, is {number}")
    return number


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
