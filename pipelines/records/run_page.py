"""What Prefect's page of a run shows: what each stage did, figures, samples, the way to MLflow.

These are Prefect artifacts under fixed keys, so that the page of a key shows its history over runs.
"""

import base64
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.utilities.urls import url_for
from pydantic import BaseModel

from pipelines.records.figures import Figure

__all__ = [
    "StageOutcome",
    "address_of_run",
    "figures_table",
    "publish",
    "publish_sweep",
    "stages_table",
]

LARGEST_PICTURE = 700_000
"""Bytes; in base64 a third more, and Prefect's server is asked to keep it in its database."""


class StageOutcome(BaseModel):
    """What a stage did in this run."""

    stage: str
    outcome: str
    """`executed`, `cached` or `failed`."""
    seconds: float
    run_id: str | None = None
    """The MLflow run that made the outputs: an earlier one if the stage was cached."""
    url: str | None = None


def address_of_run(flow_run_id: object) -> str | None:
    """Where a browser finds a run: on the page that is shown to people, else the server's own.

    Differs: from `prefect.runtime.flow_run.ui_url`, whose path is that of Prefect's older page.
    """
    page = os.environ.get("LATENTLINE_PREFECT_PAGE")
    if page:
        return f"{page}/runs/flow-run/{flow_run_id}"
    return url_for("flow-run", str(flow_run_id))


def publish(
    outcomes: Sequence[StageOutcome],
    figures: Sequence[Figure],
    picture: Path | None,
    record_url: str | None,
    warn: Callable[[str], None],
) -> None:
    """Attach to the present flow run what there is to show; a page never fails a run."""
    try:
        _link(record_url)
        create_markdown_artifact(stages_table(outcomes), key="stages", description="What ran")
        if figures:
            create_markdown_artifact(figures_table(figures), key="figures", description="Figures")
        if picture is not None:
            _show("samples", picture)
    except Exception as error:
        warn(f"the run's page is incomplete: {type(error).__name__}: {error}")


def publish_sweep(
    table: str, picture: Path | None, record_url: str | None, warn: Callable[[str], None]
) -> None:
    """The same for a sweep: its table in Markdown, its picture, the way to MLflow."""
    try:
        _link(record_url)
        create_markdown_artifact(table, key="branches", description="Branches of the sweep")
        if picture is not None:
            _show("sweep", picture)
    except Exception as error:
        warn(f"the run's page is incomplete: {type(error).__name__}: {error}")


def _link(record_url: str | None) -> None:
    if record_url:
        create_link_artifact(
            link=record_url,
            link_text="MLflow run",
            key="mlflow-run",
            description="Curves, pictures and parameters of this run",
        )


def _show(key: str, picture: Path) -> None:
    # Not an image artifact: the page would show the whole data URI beneath it.
    shown = f"![{key}]({_data_uri(picture)})"
    create_markdown_artifact(shown, key=key, description=key.capitalize())


def stages_table(outcomes: Sequence[StageOutcome]) -> str:
    """Markdown: stage, executed or cached, seconds, MLflow run."""
    rows = [f"| {o.stage} | {o.outcome} | {o.seconds:.1f} | {_run_link(o)} |" for o in outcomes]
    return "\n".join(["| stage | outcome | seconds | MLflow run |", "|---|---|---:|---|", *rows])


def _run_link(outcome: StageOutcome) -> str:
    if not outcome.run_id:
        return ""
    short = outcome.run_id[:8]
    return f"[{short}]({outcome.url})" if outcome.url else short


def figures_table(figures: Sequence[Figure]) -> str:
    """Markdown: name, value, unit, which direction is better, N."""
    rows = [f"| {f.name} | {f.value:.5g} | {f.unit} | {f.better} | {f.n} |" for f in figures]
    heading = ["| figure | value | unit | better | N |", "|---|---:|---|---|---:|"]
    return "\n".join([*heading, *rows])


def _data_uri(path: Path) -> str:
    """The picture itself as a link: a server elsewhere cannot read this machine's files."""
    data = path.read_bytes()
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    while len(data) > LARGEST_PICTURE:
        # Halving keeps the squares of an enlarged grid square.
        picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX)
        written = io.BytesIO()
        picture.save(written, "PNG", optimize=True)
        data = written.getvalue()
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"
