"""The proof that bits per dim are bits: test images coded into a file, and decoded from it again.

    coded_bits_per_dim = 8 * bytes of the file / (images * D)        header, classes and all

beside `total_bits_per_dim` of the very same images, which is computed from densities in a single
pass and knows nothing of the coder. For scale, the same images as PNG files.
"""

import io
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from stages.coding.coded_file import open_coded, write_coded
from stages.coding.line_coder import GROUP, CodedGroup, LineCoder
from stages.core.errors import DataError
from stages.core.stage import Run
from stages.evaluation.line import Line
from stages.evaluation.observe import chunks, evenly_spaced, observe_test
from stages.evaluation.options import EvaluateOptions
from stages.evaluation.protocols import protocol_of_test, told_to_prior
from stages.metrics.figure import Figure
from stages.metrics.likelihood import TwoStageLikelihood

__all__ = ["code_test", "png_bytes"]

UNIT = "bits per dim"


def code_test(
    line: Line, options: EvaluateOptions, seed: int, run: Run, device: torch.device
) -> list[Figure]:
    """Code and decode test images, where that is asked for.

    Args:
        line: What is judged.
        options: How many images.
        seed: Of the computed figure's protocol.
        run: Its stop event is obeyed; the file lies in its work folder for a while.
        device: Where the line computes.

    Raises:
        ArtifactError: If prior and autoencoder do not belong together.
        DataError: If the decoded images are not those that were coded.
        Interrupted: If the stage was asked to stop.
        ParamsError: If latents are no codes, or the line gives no bits.
    """
    if options.coded_images == 0:
        return []
    coder = LineCoder(line.first_stage, line.second_stage, device)
    rows = evenly_spaced(len(line.latents.split("test")), options.coded_images)
    path = run.work / "test_images.coded"
    write_coded(path, coder, _groups(line, rows, run))
    file = open_coded(path)
    for found, given in zip(file.groups(coder), _groups(line, rows, run, "decode"), strict=True):
        if not torch.equal(found.pixels, given.pixels):
            raise DataError(f"{path}: decodes to other images than were coded")
    metric = TwoStageLikelihood(line.latents.spec, line.first_stage.image, discretized=True)
    for seen, _ in observe_test(line, rows, options.batch_size, seed, device):
        metric.update(seen)
    protocol = told_to_prior(line, protocol_of_test(line, rows, seed))
    [computed] = [f for f in metric.figures(protocol) if f.name == "total_bits_per_dim"]
    dims = len(rows) * line.first_stage.image.dims
    how = protocol.also(
        of="bytes of a file of all these images, header and classes included",
        found={**protocol.found, "file_bytes": file.size, "header_bytes": file.header_bytes},
    )
    rate = 8 * file.size / dims
    figures = [
        Figure("coded_bits_per_dim", rate, UNIT, "lower", len(rows), how),
        replace(computed, name="coded_computed_bits_per_dim", direction="none"),
        Figure("coded_ratio", rate / computed.value, "measured / computed", "none", len(rows), how),
    ]
    size = sum(png_bytes(image) for image in _images(line, rows))
    if size:
        png = protocol.also(of="mean size of a PNG file of each image, optimised")
        bits = 8 * size / dims
        figures.append(Figure("coded_png_bits_per_dim", bits, UNIT, "none", len(rows), png))
    path.unlink()
    return figures


def png_bytes(image: np.ndarray) -> int:
    """Size of an image as an optimised PNG file; 0 of one that is neither grey nor RGB.

    Args:
        image: uint8 (channels, height, width).
    """
    if image.shape[0] not in (1, 3):
        return 0
    plain = image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(plain).save(file, format="PNG", optimize=True)
    return len(file.getvalue())


def _images(line: Line, rows: np.ndarray) -> Iterator[np.ndarray]:
    yield from line.prepared.split("test").images[line.latents.split("test").index[rows]]


def _groups(line: Line, rows: np.ndarray, run: Run, label: str = "code") -> Iterator[CodedGroup]:
    split, latents = line.prepared.split("test"), line.latents.split("test")
    for piece in chunks(rows, GROUP, label):
        run.raise_if_stopped()
        at = latents.index[piece]
        labels = None if split.labels is None else torch.from_numpy(split.labels[at])
        yield CodedGroup(torch.from_numpy(np.array(split.images[at])), labels)
