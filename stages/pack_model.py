"""The line as it stands as a folder that MLflow serves: no stage, no record.

    python -m stages.pack_model --out model
    mlflow models serve -m model --env-manager local --port 5001
    python -m stages.pack_model --data FOLDER --params FILE --out model     of another workspace

Takes data/prior and data/autoencoder (and data/judge where `sampling` of params.yaml rejects).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

import stages.core.quiet  # noqa: F401
from stages.core.programs import exit_status
from stages.core.sections import PARAMS_PATH, parse_params, read_yaml
from stages.sampling.request import Params
from stages.sampling.trained import needed_paths, open_trained
from stages.serving.packing import pack
from stages.serving.requested import ImageServer, Wanted

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; its exit status."""
    options = _parser().parse_args(arguments)
    return exit_status(lambda: _pack(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines pack", description="Pack the trained line as an MLflow model."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write, not there yet")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the parts")
    parser.add_argument("--params", type=Path, default=PARAMS_PATH, help="whose `sampling` holds")
    return parser


def _pack(options: argparse.Namespace) -> None:
    params = parse_params(
        Params, read_yaml(options.params), source=str(options.params), strict=False
    )
    sampling = params.sampling
    parts = {type: options.data / path.name for type, path in needed_paths(sampling).items()}
    # What cannot draw an image here is not packed: a server would only find out when asked.
    server = ImageServer(open_trained(parts, torch.device("cpu")), sampling)
    label = server.classes[0] if server.classes else -1
    server.images([Wanted(label, sampling.seed, 0, sampling.temperature)])
    pack(options.out, parts, sampling)
    print(f"packed: {options.out}")
    print(f"serve it: mlflow models serve -m {options.out} --env-manager local --port 5001")


if __name__ == "__main__":
    sys.exit(main())
