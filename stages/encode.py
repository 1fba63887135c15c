"""Stage `encode`: the images of every split as latents, once, as an open data set.

    python -m stages.encode

Reads data/prepared and data/autoencoder, writes data/latents. Priors then train without images and
without the autoencoder.
"""

from pathlib import Path

from stages.assembly.first_stage import load_first_stage
from stages.core.devices import Device, resolve_device
from stages.core.ranks import ComputeOptions
from stages.core.sections import Section
from stages.core.stage import Run, run_stage
from stages.encoding.dataset import encode_dataset
from stages.encoding.options import EncodeOptions
from stages.stores.prepared import open_prepared

OUTPUT = Path("data/latents")


class Params(Section):
    """What this stage reads of params.yaml."""

    device: Device
    compute: ComputeOptions
    encode: EncodeOptions


def encode(params: Params, run: Run) -> None:
    """Encode the prepared images with the trained autoencoder."""
    prepared = open_prepared(run.inputs["prepared"].path)
    device = resolve_device(params.device)
    first_stage = load_first_stage(run.inputs["autoencoder"].path, device)
    encode_dataset(prepared, first_stage, params.encode, run, device, OUTPUT)


if __name__ == "__main__":
    run_stage(
        "encode",
        Params,
        encode,
        inputs={"prepared": Path("data/prepared"), "autoencoder": Path("data/autoencoder")},
        # The bytes are the same in any number of processes, so that DVC need not watch `compute`.
        divided=lambda params: True,
    )
