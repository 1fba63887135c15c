"""WHEN the line runs: Prefect flows over DVC stages. Nothing else calls dvc or imports prefect.

Calls go one way: flow -> subprocess `dvc repro --single-item STAGE` -> `python -m stages.STAGE`.
"""

__all__: list[str] = []
