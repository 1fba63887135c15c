"""Compress images with a trained line into a file, and get them back bit for bit.

python -m stages.compress encode test images.coded
python -m stages.compress encode FOLDER images.coded
python -m stages.compress decode images.coded images.npy
python -m stages.compress describe images.coded

A file is decoded by the autoencoder and the prior it was coded with, and by no others; see
docs/likelihood.md. Encoding takes a split of data/prepared, or a folder or zip archive of images,
which are first made what the training images are: what is coded is the 8-bit images after that.
"""

import argparse
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from stages.assembly.first_stage import load_first_stage
from stages.assembly.second_stage import load_second_stage
from stages.coding.coded_file import CodedFile, open_coded, write_coded
from stages.coding.line_coder import GROUP, CodedGroup, LineCoder
from stages.core.errors import DataError
from stages.core.mapped_arrays import new_mapped_array
from stages.core.programs import exit_status
from stages.core.progress import progress
from stages.evaluation.given_images import GivenImages, open_given_images
from stages.stores.prepared import open_prepared

__all__ = ["describe", "main"]

CPU = torch.device("cpu")


def describe(file: CodedFile) -> str:
    """A few lines for a person: what is in it, whose it is, and how much it takes."""
    header = file.header
    dims = max(1, header.count * header.image.dims)
    shape = "x".join(str(size) for size in header.image)
    return "\n".join(
        [
            f"images       {header.count} of {shape}, {'with' if header.labels else 'without'} "
            "their classes",
            f"size         {file.size} bytes, {file.header_bytes} of them header; "
            f"{8 * file.size / dims:.4f} bits per dim",
            f"autoencoder  {header.autoencoder}",
            f"prior        {header.prior}",
            f"computed by  {header.computed_by}",
        ]
    )


def _encode(arguments: argparse.Namespace) -> None:
    coder = _coder(arguments)
    images = open_given_images(arguments.images, open_prepared(arguments.prepared))
    if images.prepared.image_shape != coder.first.image:
        raise DataError(
            f"{arguments.prepared} holds images of {tuple(images.prepared.image_shape)}, but the "
            f"autoencoder takes {tuple(coder.first.image)} (channels, height, width)"
        )
    write_coded(arguments.file, coder, _groups(images))
    for file in images.rejected:
        print(f"left out: {file.path}: {file.reason}", file=sys.stderr)
    print(describe(open_coded(arguments.file)))


def _groups(images: GivenImages) -> Iterator[CodedGroup]:
    """Whole groups, whatever pieces the source gives."""
    singles = (
        (pixels, None if piece.labels is None else piece.labels[index])
        for piece in images.pieces(GROUP)
        for index, pixels in enumerate(piece.pixels)
    )
    with progress(len(images), 0, "image", "encode") as bar:
        while group := list(islice(singles, GROUP)):
            pixels, labels = zip(*group, strict=True)
            known = None if labels[0] is None else torch.from_numpy(np.array(labels))
            yield CodedGroup(torch.from_numpy(np.stack(pixels)), known)
            bar.advance(len(group))


def _decode(arguments: argparse.Namespace) -> None:
    file, coder = open_coded(arguments.file), _coder(arguments)
    torch.set_num_threads(file.header.threads)
    shape = (file.header.count, *file.header.image)
    building = arguments.images.with_name(f".{arguments.images.name}.building")
    done = 0
    try:
        with progress(file.header.count, 0, "image", "decode") as bar:
            decoded = new_mapped_array(building, np.uint8, shape)
            for group in file.groups(coder):
                decoded[done : done + len(group.pixels)] = group.pixels.numpy()
                done += len(group.pixels)
                bar.advance(len(group.pixels))
            decoded.flush()
        building.replace(arguments.images)
    finally:
        building.unlink(missing_ok=True)
    print(f"{arguments.images}: {done} images, uint8 {shape}, as they were coded")


def _describe(arguments: argparse.Namespace) -> None:
    print(describe(open_coded(arguments.file)))


def _coder(arguments: argparse.Namespace) -> LineCoder:
    first = load_first_stage(arguments.autoencoder, CPU)
    return LineCoder(first, load_second_stage(arguments.prior, CPU), CPU)


def main(arguments: list[str]) -> int:
    """Run the program; its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.compress", description=__doc__.splitlines()[0]
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    encode = commands.add_parser("encode", help="images into a file")
    encode.add_argument("images", help="train, validation or test; a folder; a zip archive")
    encode.add_argument("file", type=Path, help="file to write")
    encode.add_argument("--prepared", type=Path, default=Path("data/prepared"))
    encode.set_defaults(run=_encode)
    decode = commands.add_parser("decode", help="a file back into images")
    decode.add_argument("file", type=Path, help="what encode wrote")
    decode.add_argument("images", type=Path, help=".npy file to write, uint8 N C H W")
    decode.set_defaults(run=_decode)
    for command in (encode, decode):
        command.add_argument("--autoencoder", type=Path, default=Path("data/autoencoder"))
        command.add_argument("--prior", type=Path, default=Path("data/prior"))
    described = commands.add_parser("describe", help="what a file holds")
    described.add_argument("file", type=Path, help="what encode wrote")
    described.set_defaults(run=_describe)
    parsed = parser.parse_args(arguments)
    return exit_status(lambda: parsed.run(parsed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
