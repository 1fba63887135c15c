"""The line itself, trained for the same time: the one member of a families comparison."""

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from benchmarks.equal_time.peers import Made
from stages.assembly.first_stage import load_first_stage
from stages.core.errors import ArtifactError, LatentlineError
from stages.core.intensities import from_pixels, to_pixels
from stages.core.store import opened_store, tracking_uri
from stages.stores.prepared import Prepared, open_prepared

if TYPE_CHECKING:
    from mlflow.tracking.client import MlflowClient

__all__ = ["Line", "train_line"]

MEMBER = "ours"
BATCH = 100


class Line:
    """A branch of the project in which the whole line was run.

    Args:
        data: Its folder `data`.
        seconds: What both trainings took.
    """

    def __init__(self, data: Path, seconds: dict[str, float]) -> None:
        self.data, self.seconds = data, seconds
        self.prepared: Prepared = open_prepared(self.data / "prepared")

    def made(self) -> Made:
        """Its reconstructions of the test images, and the samples it has drawn."""
        samples = np.load(self.data / "samples" / "images.npy")
        table = pd.read_parquet(self.data / "samples" / "samples.parquet")
        figures = json.loads((self.data / "metrics" / "metrics.json").read_text())
        return Made(
            "Latentline",
            self._reconstructions(),
            samples,
            table["label"].to_numpy() if "label" in table else None,
            self.seconds,
            figures.get("code_usage"),
        )

    @torch.no_grad()
    def _reconstructions(self) -> np.ndarray:
        stage = load_first_stage(self.data / "autoencoder", torch.device("cpu"))
        model, split = stage.autoencoder, self.prepared.split("test")
        rebuilt = []
        for start in range(0, len(split), BATCH):
            rows = slice(start, start + BATCH)
            images = from_pixels(torch.from_numpy(np.array(split.images[rows])))
            labels = None if split.labels is None else torch.from_numpy(split.labels[rows])
            stored = model.encode(images, labels)
            latents = stored if isinstance(stored, torch.Tensor) else stored.mean
            rebuilt.append(to_pixels(model.likelihood.mean(model.decode(latents, labels))))
        return torch.cat(rebuilt).numpy()


def train_line(root: Path, comparison: str) -> Line:
    """Run the comparison, or take what is left of an earlier run.

    Args:
        root: Of the project.
        comparison: Name of a file of `pipelines/families` with the one member `ours`.

    Raises:
        ArtifactError: If it was not recorded in MLflow, which knows what it took.
        LatentlineError: If it failed; what went wrong is on the screen.
    """
    command = [sys.executable, "-m", "pipelines", "families", comparison]
    if status := subprocess.run(command, cwd=root).returncode:
        raise LatentlineError(
            f"`python -m pipelines families {comparison}` must train the line first, and ended "
            f"with status {status}; mend what it says above, then run this again"
        )
    kept = root / ".work" / "families" / comparison / MEMBER / "outcome.json"
    data = Path(json.loads(kept.read_text())["outcome"]["folder"]) / "data"
    with opened_store(tracking_uri(root)) as client:
        seconds = {
            which: _seconds(client, data / "runs" / f"train_{stage}.json")
            for which, stage in (("first", "autoencoder"), ("second", "prior"))
        }
    return Line(data, seconds)


def _seconds(client: "MlflowClient", marker: Path) -> float:
    """Of the whole stage, its start and end included: more than its steps took, and never less.

    By the wall: with a core of its own that is its processor's time. What it was to take will not
    do, for a machine may be half as fast an hour after a step was timed.
    """
    run_id = json.loads(marker.read_text()).get("run_id")
    if not run_id:
        raise ArtifactError(
            f"{marker} must name the MLflow run that knows what the training took, and names none; "
            "turn LATENTLINE_TRACKING on, remove the folder of the member and run again"
        )
    info = client.get_run(run_id).info
    return (info.end_time - info.start_time) / 1000
