"""A latent data set of random codes, written as `encode` writes it, and a plain file beside it."""

from pathlib import Path

import numpy as np

from stages.core.artifacts import new_artifact
from stages.stores.latent_format import FORMAT, VERSION, LatentHeader, Rows
from stages.stores.latent_shards import write_split

__all__ = ["NUM_CODES", "plain_file", "write_codes"]

NUM_CODES = 512
_SHARD = 65_536


def write_codes(folder: Path, rows: int, codes: int) -> None:
    """A training split of so many rows, a block at a time: memory does not grow with it."""
    header = LatentHeader(
        format=FORMAT,
        version=VERSION,
        kind="codes",
        grid_height=1,
        grid_width=codes,
        num_codes=NUM_CODES,
        channels=0,
        scale=1.0,
        deterministic=False,
        precision="float32",
        views=("identity",),
        num_classes=0,
        class_names=None,
        autoencoder="0" * 64,
        prepared="0" * 64,
        first_stage={},
    )

    def read(start: int, stop: int) -> Rows:
        return {
            "index": np.arange(start, stop),
            "view": np.zeros(stop - start, dtype=np.int8),
            "codes": some_codes(start, stop, codes),
        }

    about = {"header": header.model_dump(mode="json"), "splits": {}}
    with new_artifact(folder, "latents", about) as building:
        shards = write_split(building, "train", header, rows, _SHARD, read)
        about["splits"]["train"] = {"images": rows, "rows": rows, "shards": shards}


def some_codes(start: int, stop: int, codes: int) -> np.ndarray:
    """Those of rows start to stop - 1, whatever the block they are asked for in (Knuth's hash)."""
    cells = np.arange(start * codes, stop * codes, dtype=np.uint64) * np.uint64(2654435761)
    return ((cells >> np.uint64(16)) % np.uint64(NUM_CODES)).astype(np.uint16).reshape(-1, codes)


def plain_file(path: Path, rows: int, codes: int) -> np.memmap:
    """The codes and nothing else, mapped."""
    with path.open("wb") as file:
        for start in range(0, rows, _SHARD):
            file.write(some_codes(start, min(start + _SHARD, rows), codes).tobytes())
    return np.memmap(path, np.uint16, "r", shape=(rows, codes))
