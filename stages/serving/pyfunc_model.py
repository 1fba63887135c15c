"""The trained line as an MLflow model: MLflow runs this file to load one ("models from code").

    artifacts      the folders autoencoder, prior, and judge where the line rejects: safetensors
    model_config   `sampling`, the line's section, and `device`
    input          a table of requests (stages/serving/tables.py)
    params         settings of the sampler for all of them; not given: those of the line
    output         the same table with a column `png`, bytes (base64 in JSON)

Nothing is pickled: a class instance would be, a file of code is not.
"""

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel, PythonModelContext

from stages.core.devices import resolve_device
from stages.core.errors import LatentlineError
from stages.core.sections import validate
from stages.sampling.options import SamplingOptions
from stages.sampling.trained import Trained, open_trained
from stages.serving.requested import ImageServer
from stages.serving.tables import answered

__all__ = ["LatentlineModel"]


class LatentlineModel(PythonModel):  # type: ignore[misc]
    """Draws the pictures that a table asks for."""

    _trained: Trained
    _sampling: dict[str, Any]

    def load_context(self, context: PythonModelContext) -> None:
        """Open the parts.

        Args:
            context: MLflow's: where the artifacts lie, and the configuration.

        Raises:
            ArtifactError: If a part is damaged or does not belong to the others.
        """
        config = context.model_config
        parts = {name: Path(path) for name, path in context.artifacts.items()}
        self._trained = open_trained(parts, resolve_device(config["device"]))
        self._sampling = config["sampling"]

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """The pictures.

        Args:
            context: MLflow's.
            model_input: See `stages.serving.tables`.
            params: Settings of the sampler that are not the line's.

        Raises:
            MlflowException: With our message, if the table or a setting is wrong: a server then
                answers with status 400.
        """
        try:
            asked = self._sampling | (params or {})
            if asked["guidance"] == 1:
                asked |= {"guidance_schedule": "constant", "guidance_power": 1.0}
                asked |= {"guidance_interval": [0.0, 1.0]}
            options = validate(SamplingOptions, asked, source="params")
            return answered(model_input, ImageServer(self._trained, options))
        except LatentlineError as error:
            raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from None


set_model(LatentlineModel())
