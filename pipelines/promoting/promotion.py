"""Is the newest line better than the champion? Then it becomes that, and why is written down.

The champion is an alias in MLflow's registry; a model version there names the run of a line and
holds what serves it (`pipelines.promoting.champion_model`) as long as DVC has the bytes. Compared
is one figure of the two lines, taken under the same protocol:

    promoted  <=>  the whole confidence interval of the newest line lies on the better side of the
                   whole interval of the champion

Two 95 % intervals that do not meet are a stricter test than a difference at 95 %: chance alone
passes it rarely, and a nightly comparison has many chances. Figures taken under unlike protocols
(`stages.comparing.differences`: other images, another number or extractor) say nothing about each
other and are refused, as are figures without an interval. A first champion needs none: there is
nothing to beat. Another way of sampling is part of what is compared, and is told.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.promoting.champion_model import served_model
from pipelines.records.needed_store import needed_store
from pipelines.records.recorded_files import recorded_text
from pipelines.records.workspace_tags import CODE_CHANGED
from pipelines.workspace.lock import hold
from stages.core.errors import ArtifactError, LatentlineError
from stages.core.store import experiment_name, run_url, tracking_uri

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking.client import MlflowClient

    from stages.metrics.figure import Figure

__all__ = ["Decision", "decide", "promote_newest"]

FIGURES = "figures.json"
JUDGED = "stage.evaluate"
"""Tag of a line whose figures are its own: a line of a few stages has those of another."""
TAG = "latentline.promotion"


@dataclass(frozen=True)
class Decision:
    """What came of it."""

    promoted: bool
    """On a dry run: whether it would be."""
    why: str
    newest: str
    """Run of the line that was looked at."""
    champion: str | None
    """Run of the champion before."""
    url: str


def decide(newest: "Figure", champion: "Figure | None") -> tuple[bool, str]:
    """Whether a line is really better, and why.

    Args:
        newest: The line's figure.
        champion: The champion's; None if there is none.

    Raises:
        ArtifactError: If no direction is better, protocols are unlike, or an interval is missing.
    """
    metric = newest.name
    if newest.direction not in ("lower", "higher"):
        raise ArtifactError(
            f"promote: {metric} must be a figure of which lower or higher is better; its "
            f"direction is {newest.direction!r}"
        )
    if champion is None:
        return True, f"{metric} {_shown(newest)}: the first champion"
    # Here, because with it comes torch, which takes seconds that no other flow needs.
    from stages.comparing.differences import differences

    found = differences(newest, champion)
    if found.unlike:
        raise ArtifactError(
            f"promote: {metric} of the newest line and of the champion must be taken under the "
            f"same protocol; they differ in {'; '.join(map(str, found.unlike))}. Judge both alike, "
            "or name another alias"
        )
    if newest.interval is None or champion.interval is None:
        raise ArtifactError(
            f"promote: {metric} must have a confidence interval, or chance decides; name a figure "
            "that has one"
        )
    against = (
        f"{metric} {_shown(newest)} against the champion's {_shown(champion)}, "
        f"{newest.direction} is better"
    )
    if sampled := [str(each) for each in found.compared if each.name.startswith("sampler")]:
        against += f" (drawn otherwise: {'; '.join(sampled)})"
    sign = 1 if newest.direction == "higher" else -1
    worst, best = (
        min(sign * end for end in newest.interval),
        max(sign * end for end in champion.interval),
    )
    if worst > best:
        return True, f"{against}: the intervals do not meet"
    better = sign * newest.value > sign * champion.value
    return False, f"{against}: {'the intervals meet' if better else 'no better'}"


def _shown(figure: "Figure") -> str:
    if figure.interval is None:
        return f"{figure.value:.5g}"
    return f"{figure.value:.5g} [{figure.interval[0]:.5g}, {figure.interval[1]:.5g}]"


def promote_newest(
    root: Path,
    metric: str,
    *,
    alias: str,
    model: str,
    dry_run: bool,
    log: Callable[[str], None],
) -> Decision:
    """Compare the newest line that was judged with the champion, and promote it if it is better.

    Args:
        root: Of the project.
        metric: Name of the figure in figures.json.
        alias: Of the champion in MLflow's registry.
        model: Name of the registered model.
        dry_run: Whether to write nothing.
        log: Told who holds the registry when there is a wait, and why a champion cannot be served.

    Raises:
        ArtifactError: If there is no line, no such figure, or `decide` refuses.
        LatentlineError: If the store cannot be opened.
    """
    uri = tracking_uri(root)
    with hold(root / ".work" / "promote.lock", "python -m pipelines promote", log):
        with needed_store(uri) as client:
            pass
        run, figures = _newest(client)
        run_id = run.info.run_id
        url = run_url(uri, run.info.experiment_id, run_id)
        # Before anything else is said: a name nobody has is a mistake whoever is champion.
        figure = _figure(figures, metric, run_id)
        current = _champion(client, model, alias)
        if current == run_id:
            return Decision(False, "the newest line is the champion", run_id, current, url)
        theirs = None if current is None else _figure(_figures(client, current), metric, current)
        better, why = decide(figure, theirs)
        if not dry_run:
            if better:
                source = _source(root, client, run, model, log)
                _register(client, run, model, alias, why, source)
            verdict = "promoted" if better else "not promoted"
            for each, role in ((run_id, verdict), (current, f"challenged by {run_id}, {verdict}")):
                if each:
                    client.set_tag(each, TAG, f"{role}: {why}")
    return Decision(better, why, run_id, current, url)


def _newest(client: "MlflowClient") -> tuple["Run", dict[str, "Figure"]]:
    found = client.get_experiment_by_name(experiment_name())
    wanted = "attributes.status = 'FINISHED' and tags.`mlflow.source.name` = 'pipelines'"
    lines = (
        client.search_runs(
            [found.experiment_id], filter_string=wanted, order_by=["attributes.start_time DESC"]
        )
        if found
        else []
    )
    for run in lines:
        if JUDGED in run.data.tags:
            return run, _figures(client, run.info.run_id)
    raise ArtifactError(
        f"promote: experiment {experiment_name()!r} must hold a finished line with figures; run "
        "one first (`python -m pipelines run`)"
    )


def _figures(client: "MlflowClient", run_id: str) -> dict[str, "Figure"]:
    from stages.metrics.figure import Figure

    found = json.loads(recorded_text(client, run_id, FIGURES))
    return {name: Figure.from_json(value) for name, value in found.items()}


def _figure(figures: Mapping[str, "Figure"], metric: str, run_id: str) -> "Figure":
    if metric not in figures:
        there = ", ".join(sorted(figures, key=lambda name: figures[name].interval is None))
        raise ArtifactError(
            f"promote: run {run_id} has no figure {metric!r}; there are, those with an interval "
            f"first: {there}"
        )
    return figures[metric]


def _champion(client: "MlflowClient", model: str, alias: str) -> str | None:
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_model_version_by_alias(model, alias).run_id)
    except MlflowException as error:
        # No such model, or no such alias of it.
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


@dataclass(frozen=True)
class _Source:
    """What a version of the registered model points at."""

    uri: str
    model_id: str | None
    about: str


def _source(
    root: Path, client: "MlflowClient", run: "Run", model: str, log: Callable[[str], None]
) -> _Source:
    """A model to serve; where none can be packed any more, the run.

    It is the champion all the same; the version's description says why it cannot be served.
    """
    again = "`python -m pipelines reproduce` with this run makes its bytes again."
    try:
        packed = served_model(root, client, run, model, log)
    except LatentlineError as error:
        log(f"the champion cannot be served: {error}")
        return _Source(f"runs:/{run.info.run_id}", None, f"Cannot be served: {error}\n\n{again}")
    return _Source(f"models:/{packed}", packed, again)


def _register(
    client: "MlflowClient", run: "Run", model: str, alias: str, why: str, source: _Source
) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    kept = ("dvc.rev", "params.sha256", CODE_CHANGED)
    tags = {name: run.data.tags[name] for name in kept if name in run.data.tags}
    with _store_of_the_process(client.tracking_uri):
        version = client.create_model_version(
            model,
            source.uri,
            run_id=run.info.run_id,
            tags={**tags, TAG: why},
            description=source.about,
            model_id=source.model_id,
        )
    client.set_registered_model_alias(model, alias, version.version)


@contextmanager
def _store_of_the_process(uri: str) -> Iterator[None]:
    """MLflow's registry looks a model up in the store of the process, whatever the client's is."""
    from mlflow import set_tracking_uri

    before = os.environ.get("MLFLOW_TRACKING_URI")
    set_tracking_uri(uri)
    try:
        yield
    finally:
        set_tracking_uri(None)
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before
