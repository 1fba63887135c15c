"""Only a real improvement is promoted, only like is compared with like, and why is written down."""

import json
import random
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking.client import MlflowClient
from prefect.settings import PREFECT_API_URL, temporary_settings

from pipelines.promote import PromoteConfig, promote
from pipelines.promoting.promotion import Decision, decide, promote_newest
from stages.core.errors import ArtifactError
from stages.core.store import open_experiment, opened_store, tracking_uri
from stages.metrics.figure import Direction, Figure
from stages.metrics.protocol import SamplerRecord
from tests.metrics.examples import PROTOCOL
from tests.pipelines.test_two_stage import page

SAMPLED = PROTOCOL.also(
    sampler=SamplerRecord(12, 0, (), 1.0, 1.0, "mean", {"top_k": 0}),
    parts={"prior": "ab" * 32},
    interval="95 % bootstrap",
)


def figure(low: float, high: float, *, direction: Direction = "lower", **changes: Any) -> Figure:
    n = changes.pop("n", 60)
    interval = changes.pop("interval", (low, high))
    protocol = SAMPLED.also(**changes)
    return Figure("frechet", (low + high) / 2, "1", direction, n, protocol, interval)


@pytest.mark.parametrize(
    ("newest", "champion", "lower", "higher"),
    [
        ((1, 2), (2.1, 3), True, False),
        ((1, 2), (2, 3), False, False),
        ((1, 2.5), (2, 3), False, False),
        ((4, 5), (2, 3), False, True),
        ((2, 3), (2, 3), False, False),
    ],
)
def test_intervals_must_not_meet(
    newest: tuple[float, float], champion: tuple[float, float], lower: bool, higher: bool
) -> None:
    wanted: dict[Direction, bool] = {"lower": lower, "higher": higher}
    for direction, better in wanted.items():
        of_new = figure(*newest, direction=direction)
        assert decide(of_new, figure(*champion, direction=direction))[0] is better


def test_no_two_lines_beat_each_other_and_the_order_has_no_circles() -> None:
    draw = random.Random(3)
    lines = [figure(low := draw.random(), low + 0.3 * draw.random()) for _ in range(14)]
    beats = {(i, j) for i, a in enumerate(lines) for j, b in enumerate(lines) if decide(a, b)[0]}
    assert beats
    assert not any((j, i) in beats for i, j in beats)
    assert all((i, k) in beats for i, j in beats for j2, k in beats if j == j2)


def test_unlike_protocols_are_refused_by_name() -> None:
    assert decide(figure(1, 2), figure(3, 4, parts={"prior": "cd" * 32}, found={"a": 1}))[0]
    with pytest.raises(
        ArtifactError, match=r"differ in n: 60 \| 50; reference_n: 17 \| 16\. Judge"
    ):
        decide(figure(1, 2), figure(3, 4, n=50, reference_n=16))
    cooler = SamplerRecord(12, 0, (), 0.5, 1.0, "mean", {"top_k": 0})
    better, why = decide(figure(1, 2), figure(3, 4, sampler=cooler))
    assert better
    assert "drawn otherwise: sampler.temperature: 1.0 | 0.5" in why


def test_without_interval_or_direction_nothing_is_decided() -> None:
    without = figure(1, 2, interval=None)
    assert decide(without, None)[0]
    for pair in ((without, figure(3, 4)), (figure(1, 2), without)):
        with pytest.raises(ArtifactError, match="must have a confidence interval"):
            decide(*pair)
    with pytest.raises(ArtifactError, match="direction is 'none'"):
        decide(figure(1, 2, direction="none"), None)


class Registry:
    """A project's store, and lines in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = tracking_uri(root)
        with opened_store(self.uri) as client:
            self.client: MlflowClient = client
            self.experiment = open_experiment(client, self.uri, "latentline", root)
        self._count = 0

    def line(self, figure: Figure | None, **tags: str) -> str:
        self._count += 1
        own = {"mlflow.source.name": "pipelines", "stage.evaluate": "executed", "dvc.rev": "c1"}
        # Later lines start later, also within one millisecond.
        run = self.client.create_run(
            self.experiment, start_time=1_000 * self._count, tags={**own, **tags}
        )
        if figure is not None:
            text = json.dumps({"frechet": figure.to_json()})
            self.client.log_text(run.info.run_id, text, "figures.json")
        self.client.set_terminated(run.info.run_id)
        return str(run.info.run_id)

    def promote(self, *, dry_run: bool = False) -> Decision:
        return promote_newest(
            self.root, "frechet", alias="champion", model="m", dry_run=dry_run, log=print
        )

    def champion(self) -> str:
        return str(self.client.get_model_version_by_alias("m", "champion").run_id)

    def tag(self, run_id: str) -> str:
        return str(self.client.get_run(run_id).data.tags.get("latentline.promotion"))


def test_the_registry_follows_improvements_only(
    tmp_path: Path, api_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(tmp_path)
    with pytest.raises(ArtifactError, match="must hold a finished line with figures"):
        registry.promote()
    first = registry.line(figure(0.5, 0.7))
    assert registry.promote(dry_run=True).promoted
    assert registry.client.search_registered_models() == []
    assert registry.promote().why.endswith("the first champion")
    assert registry.champion() == first
    assert registry.promote().why == "the newest line is the champion"
    with pytest.raises(ArtifactError, match="has no figure 'fid'; there are, .*: frechet"):
        promote_newest(tmp_path, "fid", alias="champion", model="m", dry_run=True, log=print)

    near = registry.line(figure(0.45, 0.55))
    registry.client.set_terminated(
        registry.client.create_run(
            registry.experiment, tags={"mlflow.source.name": "pipelines"}
        ).info.run_id
    )  # newer, but a line of a few stages: its figures are not its own
    decision = registry.promote()
    assert (decision.promoted, decision.newest, decision.champion) == (False, near, first)
    assert registry.champion() == first
    assert registry.tag(near).startswith("not promoted: frechet 0.5 [0.45, 0.55] against")
    assert near in registry.tag(first)

    better = registry.line(figure(0.2, 0.4))
    told = tmp_path / "told.json"
    code = "import sys; open(sys.argv[1], 'w').write(sys.stdin.read())"
    command = shlex.join([sys.executable, "-c", code, str(told)])
    monkeypatch.setenv("LATENTLINE_NOTIFY", command)
    config = PromoteConfig(metric="frechet", model="m", workspace=str(tmp_path))
    with temporary_settings({PREFECT_API_URL: api_url}):
        state = promote(config, return_state=True)
        assert str(state.message).startswith("promoted: frechet 0.3 [0.2, 0.4] against")
        assert str(state.message) in page(state.state_details.flow_run_id)["promotion"]
    assert registry.champion() == better
    version = registry.client.get_model_version_by_alias("m", "champion")
    assert version.source == f"runs:/{better}"  # nobody has the bytes of these lines
    assert "Cannot be served: run" in version.description
    assert version.tags["dvc.rev"] == "c1"
    assert "the intervals do not meet" in version.tags["latentline.promotion"]
    assert json.loads(told.read_text())["event"] == "promoted"
    with pytest.raises(ArtifactError, match="has no figure 'fid'; there are, .*: frechet"):
        promote_newest(tmp_path, "fid", alias="other", model="m", dry_run=True, log=print)
