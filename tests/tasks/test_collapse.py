"""The alarm rings when units are lost, once, and not before; nothing seen is forgotten."""

import pytest
import torch

from stages.core.errors import CollapseError, ParamsError
from stages.core.sections import validate
from stages.tasks.collapse import CollapseMonitor
from stages.tasks.collapse_options import CollapseOptions

OPTIONS = {
    "dimension_below": 0.1,
    "warn_above": 0.1,
    "alarm_above": 0.2,
    "after_steps": 5,
    "stop": False,
}


def monitor(tags=None, **changes):
    options = validate(CollapseOptions, OPTIONS | changes, source="test")
    return CollapseMonitor(options, lambda *tag: tags.append(tag) if tags is not None else None)


def kl(lost, of=20):
    return torch.cat([torch.full((lost,), 0.05), torch.full((of - lost,), 2.0)])


def test_shares_are_those_of_known_units():
    assert monitor().observe_kl(1, kl(5)) == {"collapsed_share": 0.25}
    assert monitor().observe_codes(1, torch.tensor([[7, 0, 1, 90]])) == {"dead_code_share": 0.25}


def test_a_small_split_cannot_use_every_code():
    counts = torch.tensor([[1, 1, 0, 0, 0, 0, 0, 1]])
    assert monitor().observe_codes(1, counts) == {"dead_code_share": 0.0}
    assert monitor().observe_codes(1, counts.clamp(max=0) + torch.tensor([3] + [0] * 7)) == {
        "dead_code_share": pytest.approx(2 / 3)
    }


def test_a_dead_codebook_is_not_hidden_by_another(capsys):
    halves = torch.tensor([[9, 9, 0, 0], [0, 1, 9, 9]])
    watch = monitor(after_steps=0)
    assert watch.observe_codes(1, halves) == {"dead_code_share": 0.5}
    assert "2 of 4 codes are dead in codebook 1 of 2, above 20%" in capsys.readouterr().err
    watch.observe_codes(2, halves.flip(0))
    assert [len(seen) for seen in watch.state()["collapse_seen"]] == [8, 8]


def test_warning_and_alarm_are_said_once_with_the_settings_to_change(capsys):
    tags = []
    watch = monitor(tags)
    for step, lost in ((1, 9), (6, 1), (7, 3), (8, 3), (9, 5), (10, 6)):
        watch.observe_kl(step, kl(lost))
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "collapse warning at step 7",
        "collapse alarm at step 9",
    ]
    assert "3 of 20 latent dimensions are collapsed, above 10%" in lines[0]
    assert "objective.kl_weight" in lines[1] and "objective.free_bits" in lines[1]
    assert tags[-1] == ("collapse", "alarm: 5 of 20 latent dimensions are collapsed at step 9")


def test_the_alarm_stops_the_stage_where_the_parameters_ask_for_it():
    watch = monitor(stop=True)
    watch.observe_kl(6, kl(3))
    with pytest.raises(CollapseError, match=r"collapse.stop is true"):
        watch.observe_kl(7, kl(19))
    with pytest.raises(CollapseError, match=r"dead.*bottleneck.revive_below"):
        monitor(stop=True).observe_codes(7, torch.tensor([[99, 0, 0, 0]]))


def test_what_was_seen_survives_a_kill(tmp_path, capsys):
    whole, first, second = monitor(), monitor(), monitor()
    for step in (2, 4, 6):
        whole.observe_kl(step, kl(step))
    for step in (2, 4):
        first.observe_kl(step, kl(step))
    second.load_state(first.state())
    second.observe_kl(6, kl(6))
    whole.draw(tmp_path / "whole.png", "continuous")
    second.draw(tmp_path / "second.png", "continuous")
    assert (tmp_path / "whole.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    assert all(torch.equal(whole.state()[name], value) for name, value in second.state().items())


def test_an_empty_monitor_draws_too(tmp_path):
    monitor().draw(tmp_path / "empty.png", "codes")
    assert (tmp_path / "empty.png").stat().st_size > 1000


def test_thresholds_the_wrong_way_round_are_refused():
    with pytest.raises(
        ParamsError, match="warn_above must not exceed alarm_above; got 0.5 and 0.2"
    ):
        monitor(warn_above=0.5)
