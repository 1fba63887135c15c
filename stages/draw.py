"""Pictures from the line as it stands, for a person: no stage, no record, nothing of DVC's.

    python -m stages.draw --classes 3,7 --count 64 --out sevens.png
    python -m stages.draw --classes sneaker,bag --guidance 2 --out pictures/

Uses data/prior and data/autoencoder (and data/judge for --rejection). `--out NAME.png` is one
picture, rows per class; any other name is a folder of single PNGs with samples.parquet, which
replace those of an earlier draw. Settings that are not given are those of params.yaml; image i of a
seed is that of the stage `sample`.
"""

import argparse
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

import stages.core.quiet  # noqa: F401
from stages.core.devices import resolve_device
from stages.core.errors import ParamsError
from stages.core.pictures import grid, labelled_rows, save_png
from stages.core.programs import exit_status
from stages.core.progress import progress
from stages.sampling.draw import GROUP, Drawn, Sampler, concatenated
from stages.sampling.options import SamplingOptions
from stages.sampling.picture import class_caption
from stages.sampling.request import (
    add_settings,
    label_of,
    png_or_folder,
    requested_params,
    require_trained,
)
from stages.sampling.trained import needed_paths, open_trained

__all__ = ["main"]

_COLUMNS = 16
_TABLE = "samples.parquet"
_FILE = re.compile(r"\d{6,}(-\w+)?\.png")
"""What `_file_name` gives: no path out of the folder, and nothing of the user's."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; its exit status."""
    options = _parser().parse_args(arguments)
    return exit_status(lambda: print(_draw(options)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines sample", description="Draw images from the trained line."
    )
    parser.add_argument("--classes", default="", metavar="A,B", help="names or numbers; none: all")
    parser.add_argument("--count", type=int, required=True, metavar="N", help="images in all")
    parser.add_argument("--out", required=True, help="FILE.png, or a folder")
    add_settings(parser)
    return parser


def _draw(options: argparse.Namespace) -> str:
    out = png_or_folder(options.out, folder=True)
    require_trained()
    params = requested_params(options, count=options.count, classes=[])
    trained = open_trained(needed_paths(params.sampling), resolve_device(params.device))
    names = trained.second.class_names
    labels = [
        label_of(name.strip(), names, trained.num_classes)
        for name in options.classes.split(",")
        if name.strip()
    ]
    sampling = params.sampling.model_copy(update={"classes": labels})
    sampler = trained.sampler(sampling)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix.lower() == ".png":
        save_png(_picture(concatenated(list(_drawn(sampler))), names), out)
        return f"{sampling.count} images: {out}"
    _write_folder(out, sampler, sampling, names)
    return f"{sampling.count} images and samples.parquet: {out}"


def _drawn(sampler: Sampler) -> Iterator[Drawn]:
    count = sampler.options.count
    with progress(count, 0, "images", "sample") as bar:
        for start in range(0, count, GROUP):
            drawn = sampler.draw(start, min(start + GROUP, count))
            yield drawn
            bar.advance(len(drawn.labels))


def _picture(drawn: Drawn, names: list[str] | None) -> Image.Image:
    if drawn.labels.max() < 0:
        return grid(drawn.images, columns=_COLUMNS)
    rows = []
    for label in dict.fromkeys(drawn.labels.tolist()):
        images = drawn.images[drawn.labels == label]
        for start in range(0, len(images), _COLUMNS):
            caption = class_caption(label, names) if start == 0 else ""
            rows.append((caption, images[start : start + _COLUMNS]))
    return labelled_rows(rows)


def _write_folder(
    folder: Path, sampler: Sampler, sampling: SamplingOptions, names: list[str] | None
) -> None:
    """Draw into a folder within, then put that in the place of an earlier draw.

    Raises:
        ParamsError: If the folder holds a table of something else.
    """
    earlier = _files_of_earlier_draw(folder)
    building = folder / ".drawing"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        _write_images(building, sampler, sampling, names)
        for path in earlier:
            path.unlink(missing_ok=True)
        # The table first: whenever this ends, the next draw knows what is of this one.
        (building / _TABLE).replace(folder / _TABLE)
        for path in building.iterdir():
            path.replace(folder / path.name)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _files_of_earlier_draw(folder: Path) -> list[Path]:
    table = folder / _TABLE
    if not table.exists():
        return []
    try:
        named = pd.read_parquet(table, columns=["file"])["file"].tolist()
    except (ValueError, LookupError, OSError):
        raise ParamsError(
            f"--out: {table} must be of an earlier draw, which is replaced, and is not; name "
            "another folder"
        ) from None
    return [folder / name for name in map(str, named) if _FILE.fullmatch(name)]


def _write_images(
    folder: Path, sampler: Sampler, sampling: SamplingOptions, names: list[str] | None
) -> None:
    tables, start = [], 0
    for drawn in _drawn(sampler):
        columns: dict[str, Any] = {
            "index": np.arange(start, start + len(drawn.labels)),
            "seed": sampling.seed,
        }
        if sampler.classes:
            captions = [class_caption(label, names) for label in drawn.labels.tolist()]
            columns |= {"label": drawn.labels, "class_name": captions}
        if sampling.rejects:
            columns |= {"candidate": drawn.candidate, "judge_probability": drawn.judged}
        table = pd.DataFrame({**columns, "log_probability": drawn.log_probability})
        table["file"] = [_file_name(row) for row in table.to_dict("records")]
        for image, name in zip(drawn.images, table["file"], strict=True):
            save_png(_single(image), folder / name)
        tables.append(table)
        start += len(table)
    pd.concat(tables).to_parquet(folder / _TABLE, index=False)


def _file_name(row: dict[str, Any]) -> str:
    of_class = re.sub(r"\W+", "_", str(row.get("class_name", ""))).strip("_")
    return f"{row['index']:06d}{'-' if of_class else ''}{of_class}.png"


def _single(image: np.ndarray) -> Image.Image:
    # As it is, not enlarged: for programs, and for people who enlarge themselves.
    return Image.fromarray(image[0] if len(image) != 3 else image.transpose(1, 2, 0))


if __name__ == "__main__":
    sys.exit(main())
