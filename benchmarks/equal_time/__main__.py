"""Train the line and others for the same time on the same images, and judge both in one judge.

    python -m benchmarks.equal_time equal_time_fashion

The name is that of a families comparison with one member, `ours`, which says preset and seconds.
Needs pythae (`pip install latentline[bench]`). One thread. Ours is trained first; peers then get
the seconds it took, of processor time. A core of its own is enough. Writes table.md, table.csv,
run.json and sheet.png into benchmarks/results/NAME.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from benchmarks.equal_time.judged import Verdict, judge
from benchmarks.equal_time.ours import train_line
from benchmarks.equal_time.peers import PEERS, Made, Task
from benchmarks.side_by_side.machine import describe_run
from benchmarks.side_by_side.program import RESULTS
from benchmarks.side_by_side.results import write_table
from stages.core.pictures import labelled_rows, save_png
from stages.core.stage import exit_statuses, work_root
from stages.evaluation.feature_store import FeatureStore
from stages.evaluation.image_sets import ImageSet
from stages.extractors.classifier import Classifier, ClassifierOptions

__all__ = ["main"]

SHOWN = 16
"""Images of each kind on the sheet."""
CPU = torch.device("cpu")


def main(arguments: list[str] | None = None) -> None:
    """Run every pair of stages and write what came out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.equal_time", description=__doc__)
    parser.add_argument("comparison", help="file of pipelines/families with the member `ours`")
    parser.add_argument("--seed", type=int, default=0, help="of the peers and of the bootstrap")
    parser.add_argument("--output", type=Path, default=RESULTS, help="a folder NAME is made in it")
    options = parser.parse_args(arguments)
    with exit_statuses("equal_time"):
        _compare(options)


def _compare(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    line = train_line(Path.cwd(), options.comparison)
    test = line.prepared.split("test").images
    own = line.made()
    settings = {
        "seconds": line.seconds,
        "seed": options.seed,
        "test_images": len(test),
        "samples": len(own.samples),
        "judge": "classifier of the line, taught the training split",
    }
    run = describe_run(f"python -m benchmarks.equal_time {options.comparison}", settings)
    task = Task(
        line.prepared.split("train").images,
        test,
        line.seconds["first"],
        line.seconds["second"],
        len(own.samples),
        options.seed,
    )
    network = Classifier.open(
        ClassifierOptions(kind="classifier", weights=str(line.data / "judge")),
        line.prepared.image_shape,
        CPU,
    )
    store = FeatureStore(work_root() / "features", CPU, lambda: None)
    real = ImageSet("test", test, np.arange(len(test)), None, "test split")
    made, verdicts = [], []
    for pair in (lambda _: own, *PEERS):
        made.append(pair(task))
        verdicts.append(judge(made[-1], real, network, store, options.seed))
        print(verdicts[-1], flush=True)
        # After every pair: a run cut short keeps those it has.
        _write(options.output / options.comparison, verdicts, made, test, run)


def _write(
    folder: Path,
    verdicts: list[Verdict],
    made: list[Made],
    test: np.ndarray,
    run: dict[str, object],
) -> None:
    table = pd.DataFrame([asdict(one) for one in verdicts])
    write_table(folder, table, _markdown(verdicts), run)
    save_png(_sheet(made, test), folder / "sheet.png")


def _markdown(verdicts: list[Verdict]) -> str:
    lines = [
        "| pair of stages | MSE | rFrechet | Frechet | 95 % | score | confidence | class accuracy "
        "| codes used | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in verdicts:
        low, high = one.interval or (float("nan"), float("nan"))
        lines.append(
            f"| {one.name} | {one.mse:.4f} | {one.rfrechet:.3g} | {one.frechet:.3g} "
            f"| {low:.3g} to {high:.3g} | {one.score:.2f} | {one.confidence:.2f} "
            f"| {'cannot be asked' if one.accuracy is None else f'{one.accuracy:.2f}'} "
            f"| {'' if one.usage is None else f'{one.usage:.0%}'} "
            f"| {one.first_seconds:.0f} + {one.second_seconds:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _sheet(made: list[Made], test: np.ndarray) -> Image.Image:
    rows = [("test images", test[:SHOWN])]
    for one in made:
        rows.append((f"{one.name}: rebuilt", one.reconstructions[:SHOWN]))
        rows.append((f"{one.name}: samples", one.samples[:SHOWN]))
    return labelled_rows(rows)


if __name__ == "__main__":
    main()
