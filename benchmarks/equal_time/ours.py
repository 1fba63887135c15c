"""The line itself, trained for the same time: the one member of a families comparison."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.equal_time.peers import Made
from pipelines.comparing.families import Outcome
from stages.assembly.first_stage import load_first_stage
from stages.core.intensities import from_pixels, to_pixels
from stages.stores.prepared import Prepared, open_prepared

__all__ = ["Line", "train_line"]

MEMBER = "ours"
BATCH = 100


class Line:
    """A branch of the project in which the whole line was run."""

    def __init__(self, outcome: Outcome) -> None:
        self.data = Path(outcome.folder) / "data"
        self.prepared: Prepared = open_prepared(self.data / "prepared")
        self._outcome = outcome

    def made(self, seconds: dict[str, float]) -> Made:
        """Its reconstructions of the test images, and the samples it has drawn."""
        samples = np.load(self.data / "samples" / "images.npy")
        table = pd.read_parquet(self.data / "samples" / "samples.parquet")
        figures = json.loads((self.data / "metrics" / "metrics.json").read_text())
        return Made(
            "Latentline",
            self._reconstructions(),
            samples,
            table["label"].to_numpy() if self.prepared.num_classes else None,
            seconds,
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
        subprocess.CalledProcessError: If it fails; what went wrong is on the screen.
    """
    subprocess.run(
        [sys.executable, "-m", "pipelines", "families", comparison], cwd=root, check=True
    )
    kept = root / ".work" / "families" / comparison / MEMBER / "outcome.json"
    return Line(Outcome(**json.loads(kept.read_text())["outcome"]))
