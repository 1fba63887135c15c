"""Files of an LPIPS network drawn at random, in the shape and under the names of the real ones."""

from pathlib import Path

import pytest
import torch

from stages.core.artifacts import file_sha256
from stages.nn.lpips import LINEAR, LPIPS, LPIPS_FILES, SQUEEZENET


def random_lpips() -> LPIPS:
    torch.manual_seed(5)
    return LPIPS()


def tensors_of(network: LPIPS) -> dict[str, dict[str, torch.Tensor]]:
    body = {f"features.{n}": t for n, t in network.features.state_dict().items()}
    heads = {
        f"lin{i}.model.1.weight": w[None, :, None, None] for i, w in enumerate(network.weights)
    }
    return {SQUEEZENET: body | {"classifier.1.bias": torch.zeros(1000)}, LINEAR: heads}


def write_lpips(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, dict[str, torch.Tensor]] | None = None,
) -> dict[str, str]:
    """Write files and have them known; their checksums."""
    folder.mkdir(exist_ok=True)
    checksums = {}
    for name, tensors in (files or tensors_of(random_lpips())).items():
        torch.save({n: t.detach().clone() for n, t in tensors.items()}, folder / name)
        checksums[name] = file_sha256(folder / name)
        monkeypatch.setitem(LPIPS_FILES, name, (checksums[name],))
    return checksums
