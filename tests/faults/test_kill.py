"""kill -9 at seeded moments: of a stage, of its whole group, of dvc, of the flow.

Moments are drawn uniformly over what the undisturbed process did: every second one over its changes
of files, where a half-written state could be left, the others over its processor time. Several
befall the same work before it is allowed to end. 28 + 16 + 6 = 50 moments.
"""

import random
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pipelines.workspace.dvc_locks import mend_dvc
from tests.faults.conftest import Undisturbed
from tests.faults.place import Place
from tests.faults.table import case
from tests.line.repository import STAGES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SEED = 20261125
OF_A_STAGE, OF_DVC, OF_A_FLOW = 4, 16, 6
ANEW = 4


def moments(victim: str, took: dict[str, float], count: int) -> Iterator[dict[str, Any]]:
    """Orders for the injected code."""
    drawn = random.Random(f"{SEED} {victim}")
    for number in range(count):
        share = drawn.random()
        if number % 2:
            yield {"victim": victim, "cpu": 0.05 + 0.9 * share * took["cpu"]}
        else:
            yield {"victim": victim, "event": 1 + int(share * took["events"])}


def kill_at(
    place: Place,
    order: dict[str, Any],
    command: list[str],
    mended: Callable[[str], None] = pytest.fail,
) -> None:
    """Run a command that dies at a moment; where it ends before it, all begins anew.

    Args:
        place: Where.
        order: When.
        command: What, after `python -m`.
        mended: Told what had to be mended before it could run, as the flow mends it.
    """
    for _ in range(ANEW):
        status = place.call(*command, fault=order)
        if place.fired.exists():
            return
        if status:
            assert mend_dvc(place.path, mended), place.said
            continue
        place.begin_anew()
    raise AssertionError(f"{order}: never reached")


@pytest.mark.parametrize("stage", STAGES)
@case("kill -9 of a stage (3 moments) and of its whole group (1), in each stage", "goes on")
def test_a_stage_is_killed(line: Place, undisturbed: Undisturbed, stage: str, result) -> None:
    took = undisturbed.took[f"stages.{stage}"]
    line.forget(stage)
    for number, order in enumerate(moments(f"stages.{stage}", took, OF_A_STAGE)):
        command = ["dvc", "repro", "--single-item", stage]
        for _ in range(ANEW):
            status = line.call(*command, fault={**order, "group": number == OF_A_STAGE - 1})
            if line.fired.exists():
                break
            assert status == 0, line.said
            # What earlier kills had left made it shorter; now it has all of its moments again.
            line.forget(stage)
            shutil.rmtree(line.path / ".work")
        else:
            raise AssertionError(f"{order}: never reached")
        assert status != 0
    assert line.call("dvc", "repro") == 0, line.said
    line.require_whole(undisturbed.hashes)
    result(f"{stage}: {OF_A_STAGE} kills, equal bytes")


@case("kill -9 of dvc, its stage goes on alone", "the next dvc takes over")
def test_dvc_is_killed(trivial: Place, undisturbed_trivial: Undisturbed, result) -> None:
    mended: list[str] = []
    for order in moments("dvc", undisturbed_trivial.took["dvc"], OF_DVC):
        kill_at(trivial, order, ["dvc", "repro"], mended.append)
    if trivial.call("dvc", "repro"):
        assert mend_dvc(trivial.path, mended.append), trivial.said
        assert trivial.call("dvc", "repro") == 0, trivial.said
    trivial.require_whole(undisturbed_trivial.hashes)
    result(f"{OF_DVC} kills, equal bytes; {len(mended)} torn files of DVC's own were mended")


@case("kill -9 of the flow, its dvc goes on alone", "the next run waits for that dvc")
def test_a_flow_is_killed(
    trivial: Place, undisturbed_trivial: Undisturbed, api_url: str, result
) -> None:
    record = {"LATENTLINE_TRACKING": "on", "PREFECT_API_URL": api_url}
    trivial.environment |= record
    took = trivial.count("pipelines", "run")["pipelines"]
    trivial.begin_anew()
    for order in moments("pipelines", took, OF_A_FLOW):
        kill_at(trivial, order, ["pipelines", "run"])
    assert trivial.call("pipelines", "run") == 0, trivial.said
    trivial.require_whole(undisturbed_trivial.hashes)
    states = {status for _, status in trivial.run_states()}
    assert "RUNNING" not in states and "FINISHED" in states
    result(f"{OF_A_FLOW} kills, equal bytes")
