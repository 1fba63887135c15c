"""Images of which a part is given, completed by the line as it stands.

    python -m stages.complete --mask upper_half --images 0,5,9 --count 6 --out completed.png
    python -m stages.complete --mask known.png --file photo.jpg --label bag --out completed.png

Writes one picture: a row per image with the original, what is known of it, and the completions.
Images are of the test split, by number, or a file. Only what is known is encoded; the rest is
drawn (stages/completion/draw.py says when that is exact, and prints how many candidates counted
where it is not).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import stages.core.quiet  # noqa: F401
from stages.completion.draw import Completed, Completer
from stages.completion.images import Given, completed, require_known_cell, row_of
from stages.completion.masks import NAMED, read_mask
from stages.core.devices import resolve_device
from stages.core.errors import ParamsError
from stages.core.pictures import labelled_rows, save_png
from stages.core.programs import exit_status
from stages.core.shapes import ImageShape
from stages.files.image_files import Form, NotAnImage, read_image
from stages.sampling.picture import class_caption
from stages.sampling.request import (
    add_settings,
    label_of,
    png_or_folder,
    requested_params,
    require_trained,
)
from stages.sampling.trained import PATHS, Trained, open_trained
from stages.stores.prepared import open_prepared

__all__ = ["main"]

_PREPARED = Path("data/prepared")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; its exit status."""
    options = _parser().parse_args(arguments)
    return exit_status(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines complete", description="Draw what is missing of an image."
    )
    parser.add_argument(
        "--mask",
        required=True,
        help=f"what is known: {', '.join(NAMED)}; or a picture (white: known) or .npy of the "
        "images' size",
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--images", metavar="I,J", help="numbers of test images")
    which.add_argument("--file", type=Path, help="an image file; its centre square is used")
    parser.add_argument("--label", help="class to complete as; else the test image's own, or none")
    parser.add_argument("--count", type=int, default=6, metavar="N", help="completions of each")
    parser.add_argument(
        "--candidates",
        type=int,
        default=64,
        metavar="K",
        help="of each completion, of which one is kept, where the mask is no prefix",
    )
    parser.add_argument("--out", required=True, help="FILE.png")
    add_settings(parser)
    return parser


def _run(options: argparse.Namespace) -> None:
    if options.count < 1 or options.candidates < 1:
        raise ParamsError("--count and --candidates must be at least 1")
    if options.rejection is not None:
        raise ParamsError("--rejection: completions are weighed by the prior, no judge is asked")
    out = png_or_folder(options.out, folder=False)
    require_trained()
    params = requested_params(options)
    paths = {type: path for type, path in PATHS.items() if type != "judge"}
    trained = open_trained(paths, resolve_device(params.device))
    image = trained.first.image
    mask = read_mask(options.mask, image.height, image.width)
    require_known_cell(mask, trained, f"--mask: {options.mask}")
    sampling = params.sampling
    completer = Completer(
        trained.walker(sampling), sampling.settings, options.candidates, sampling.seed
    )
    rows = []
    for given in _images(options, trained):
        found = completed(trained, completer, given, mask, options.count)
        print(_said(given, found, options.candidates))
        rows.append((_caption(given, trained), row_of(trained, given, mask, found)))
    out.parent.mkdir(parents=True, exist_ok=True)
    save_png(labelled_rows(rows), out)
    print(f"original, what is known, {options.count} completions: {out}")


def _images(options: argparse.Namespace, trained: Trained) -> list[Given]:
    names, classes = trained.second.class_names, trained.num_classes
    asked = None if options.label is None else label_of(options.label, names, classes)
    if options.file is not None:
        if classes and asked is None and getattr(trained.second.prior, "label_dropout", 1) == 0:
            raise ParamsError("--label: needed: this prior was always told a class")
        pixels = _from_file(options.file, trained.first.image)
        return [Given(options.file.name, 0, pixels, asked)]
    split = open_prepared(_PREPARED).split("test")
    given = []
    for text in options.images.split(","):
        if not text.strip().isdecimal() or int(text) >= len(split):
            raise ParamsError(
                f"--images: must be numbers from 0 to {len(split) - 1}, with commas between; "
                f"got {text!r}"
            )
        number = int(text)
        own = None if split.labels is None or not classes else int(split.labels[number])
        label = own if asked is None else asked
        given.append(Given(f"test {number}", number, np.array(split.images[number]), label))
    return given


def _from_file(path: Path, image: ImageShape) -> np.ndarray:
    if image.height != image.width:
        raise ParamsError(
            f"--file: files are cut to squares, but the line makes {image.height}x{image.width} "
            "images; use --images"
        )
    form = Form(image.height, image.channels, "bicubic", (255, 255, 255))
    try:
        return read_image(path.read_bytes(), path.name, form)
    except NotAnImage as error:
        raise ParamsError(f"--file: {path}: {error}") from None


def _caption(given: Given, trained: Trained) -> str:
    if given.label is None:
        return given.name
    return f"{given.name}: {class_caption(given.label, trained.second.class_names)}"


def _said(given: Given, completed: Completed, candidates: int) -> str:
    if completed.exact:
        return f"{given.name}: exact: what is known comes first in the prior's order"
    effective = completed.effective_candidates.mean()
    return (
        f"{given.name}: approximate: of {candidates} candidates {effective:.1f} counted; "
        "more --candidates come nearer"
    )


if __name__ == "__main__":
    sys.exit(main())
