"""SIGTERM with grace, two runs at once, and the locks that dead processes leave."""

import json
import os
import signal

import pytest

from pipelines.workspace.reproduce import reproduce, stage_environment
from tests.faults.conftest import Undisturbed
from tests.faults.place import Place
from tests.faults.table import case
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@case("SIGTERM to a training and its dvc", "a checkpoint, exit status 75, then goes on from it")
def test_sigterm(line: Place, undisturbed: Undisturbed, result) -> None:
    stage = "train_autoencoder"
    # Most changes are checkpoints, by the clock: of a faster run there are fewer, and later ones
    # are those of its end.
    within = int(0.4 * undisturbed.took[f"stages.{stage}"]["events"])
    line.forget(stage)
    order = {"victim": f"stages.{stage}", "event": within, "signal": signal.SIGTERM, "group": True}
    assert line.call("dvc", "repro", "--single-item", stage, fault=order) != 0
    wait_until(lambda: not line.living(), 60)
    assert "run again to go on" in line.said
    assert list((line.path / ".work" / stage).glob("*/checkpoint.pt"))
    assert line.call("dvc", "repro") == 0, line.said
    line.require_whole(undisturbed.hashes)
    result("equal bytes")


@case("two `dvc repro` at once, the same stage wanted by both", "one is told who is busy")
def test_two_dvc(trivial: Place, undisturbed_trivial: Undisturbed, result) -> None:
    second = trivial.__class__(trivial.path, **trivial.environment)
    second.aside = trivial.aside / "second"
    second.aside.mkdir()
    both = [place.start("dvc", "--wait-for-lock", "repro") for place in (trivial, second)]
    statuses = [process.wait(timeout=3000) for process in both]
    for place, status in zip((trivial, second), statuses, strict=True):
        assert status == 0 or "is busy, it is being blocked by" in place.said, place.said
    assert trivial.call("dvc", "repro") == 0, trivial.said
    trivial.require_whole(undisturbed_trivial.hashes)
    assert not second.living()
    result(f"exit statuses {statuses}, equal bytes")


@case("two `python -m pipelines run` at once", "the second waits and says for whom")
def test_two_flows(trivial: Place, undisturbed_trivial: Undisturbed, api_url: str, result) -> None:
    trivial.environment["PREFECT_API_URL"] = api_url
    second = trivial.__class__(trivial.path, **trivial.environment)
    second.aside = trivial.aside / "second"
    second.aside.mkdir()
    both = [place.start("pipelines", "run") for place in (trivial, second)]
    statuses = [process.wait(timeout=3000) for process in both]
    assert statuses == [0, 0], trivial.said + second.said
    trivial.require_whole(undisturbed_trivial.hashes)
    assert not second.living()
    result("both done, equal bytes")


def flow_step(place: Place) -> str:
    """The first stage as a flow runs it; what was said."""
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for name, value in place.environment.items():
            patch.setenv(name, value)
        environment = stage_environment({}, [])
    reproduce(
        "first",
        place.path,
        said.append,
        environment=environment,
        timeout_minutes=10,
        force=False,
    )
    return "\n".join(said)


@case("DVC's lock file names a living process that is no DVC (a reused number)", "entry removed")
def test_a_stale_lock(trivial: Place, undisturbed_trivial: Undisturbed, result) -> None:
    info = {"pid": os.getpid(), "cmd": "dvc repro"}
    held = {"write": {str(trivial.path / "data/first"): info}, "read": {}}
    (trivial.path / ".dvc/tmp").mkdir(exist_ok=True)
    (trivial.path / ".dvc/tmp/rwlock").write_text(json.dumps(held))
    assert "entries of processes that are no DVC removed" in flow_step(trivial)
    assert trivial.call("dvc", "repro") == 0, trivial.said
    trivial.require_whole(undisturbed_trivial.hashes)
    result("equal bytes")


@case("DVC's lock file, half-written by a DVC that was killed", "removed by the flow")
def test_a_torn_lock(trivial: Place, undisturbed_trivial: Undisturbed, result) -> None:
    (trivial.path / ".dvc/tmp").mkdir(exist_ok=True)
    (trivial.path / ".dvc/tmp/rwlock").write_text('{"write": {"/da')
    assert "half-written" in flow_step(trivial)
    assert trivial.call("dvc", "repro") == 0, trivial.said
    trivial.require_whole(undisturbed_trivial.hashes)
    result("equal bytes")


@pytest.mark.parametrize("share", [0.0, 0.37, 0.8])
@case("dvc.lock cut off by a kill or a crash", "kept aside; DVC's run cache has the results")
def test_a_torn_dvc_lock(
    trivial: Place, undisturbed_trivial: Undisturbed, share: float, result
) -> None:
    assert trivial.call("dvc", "repro") == 0, trivial.said
    path = trivial.path / "dvc.lock"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    flow_step(trivial)
    assert trivial.call("dvc", "repro") == 0, trivial.said
    trivial.require_whole(undisturbed_trivial.hashes)
    result(f"cut at {share:.0%}: equal bytes")


@case("the clock jumps 400 days ahead and back between runs", "nothing runs again for it")
def test_clock(trivial: Place, undisturbed_trivial: Undisturbed, result) -> None:
    ahead = {"shift": 400 * 86400.0}
    assert trivial.call("dvc", "repro", "--single-item", "first", fault=ahead) == 0, trivial.said
    assert trivial.call("dvc", "repro") == 0, trivial.said
    assert "Running stage 'first'" not in trivial.said
    trivial.require_whole(undisturbed_trivial.hashes)
    result("equal bytes")
