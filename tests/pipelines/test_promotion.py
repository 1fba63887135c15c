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
from pipelines.promotion import Decision, Judged, decide, promote_newest, unlike
from stages.core.errors import ArtifactError
from stages.core.store import open_experiment, opened_store, tracking_uri
from tests.pipelines.test_two_stage import page

PROTOCOL = {
    "images": "samples",
    "reference_sha256": "abc",
    "sampler": {"count": 60, "settings": {"top_k": 0}},
    "details": {"interval": "95 % bootstrap"},
    "parts": {"prior": "p1"},
    "found": {"clipped": 3},
}


def judged(
    low: float, high: float, *, direction: str = "lower", protocol: Any = None, **changes: Any
) -> Judged:
    entry = {"value": (low + high) / 2, "unit": "1", "direction": direction, "n": 60}
    rest = {"interval": (low, high), "protocol": protocol or PROTOCOL}
    return Judged.model_validate(entry | rest | changes)


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
    for direction, wanted in (("lower", lower), ("higher", higher)):
        of_new = judged(*newest, direction=direction)
        assert decide("m", of_new, judged(*champion, direction=direction))[0] is wanted


def test_no_two_lines_beat_each_other_and_the_order_has_no_circles() -> None:
    draw = random.Random(3)
    lines = [judged(low := draw.random(), low + 0.3 * draw.random()) for _ in range(14)]
    beats = {
        (i, j) for i, a in enumerate(lines) for j, b in enumerate(lines) if decide("m", a, b)[0]
    }
    assert beats
    assert not any((j, i) in beats for i, j in beats)
    assert all((i, k) in beats for i, j in beats for j2, k in beats if j == j2)


def test_unlike_protocols_are_named() -> None:
    same = {**PROTOCOL, "parts": {"prior": "p2"}, "found": {}}
    assert unlike(judged(1, 2), judged(3, 4, protocol=same)) == []
    other = {
        **PROTOCOL,
        "reference_sha256": "abd",
        "sampler": {"count": 60, "settings": {"top_k": 5}},
    }
    assert unlike(judged(1, 2), judged(3, 4, protocol=other, n=50)) == [
        "n: 60 and 50",
        "reference_sha256: abc and abd",
        "sampler.settings.top_k: 0 and 5",
    ]
    with pytest.raises(ArtifactError, match=r"differ in .*reference_sha256: abc and abd"):
        decide("m", judged(1, 2), judged(3, 4, protocol=other))


def test_without_interval_or_direction_nothing_is_decided() -> None:
    without = judged(1, 2, interval=None)
    assert decide("m", without, None)[0]
    for pair in ((without, judged(3, 4)), (judged(1, 2), without)):
        with pytest.raises(ArtifactError, match="must have a confidence interval"):
            decide("m", *pair)
    with pytest.raises(ArtifactError, match="direction is 'none'"):
        decide("m", judged(1, 2, direction="none"), None)


class Registry:
    """A project's store, and lines in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = tracking_uri(root)
        with opened_store(self.uri) as client:
            self.client: MlflowClient = client
            self.experiment = open_experiment(client, self.uri, "latentline", root)
        self._count = 0

    def line(self, figure: Judged | None, **tags: str) -> str:
        self._count += 1
        own = {"mlflow.source.name": "pipelines", "stage.evaluate": "executed", "dvc.rev": "c1"}
        # Later lines start later, also within one millisecond.
        run = self.client.create_run(
            self.experiment, start_time=1_000 * self._count, tags={**own, **tags}
        )
        if figure is not None:
            text = json.dumps({"frechet": figure.model_dump(mode="json")})
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
    first = registry.line(judged(0.5, 0.7))
    assert registry.promote(dry_run=True).promoted
    assert registry.client.search_registered_models() == []
    assert registry.promote().why.endswith("the first champion")
    assert registry.champion() == first
    assert registry.promote().why == "the newest line is the champion"

    near = registry.line(judged(0.45, 0.55))
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

    better = registry.line(judged(0.2, 0.4))
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
    assert version.source == f"runs:/{better}"
    assert version.tags["dvc.rev"] == "c1"
    assert "the intervals do not meet" in version.tags["latentline.promotion"]
    assert json.loads(told.read_text())["event"] == "promoted"
    with pytest.raises(ArtifactError, match="has no figure 'fid'; there are: frechet"):
        promote_newest(tmp_path, "fid", alias="other", model="m", dry_run=True, log=print)
