"""No tool of the line reports home, and none chatters.

Importing this module sets what the user has not set; every process that starts DVC, Prefect or
MLflow imports it first. The one word all of them accept is `true` (MLflow reads no `1`).
"""

import os

__all__: list[str] = []

QUIET = {
    "DO_NOT_TRACK": "true",
    "DVC_NO_ANALYTICS": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}

for _name, _value in QUIET.items():
    os.environ.setdefault(_name, _value)
