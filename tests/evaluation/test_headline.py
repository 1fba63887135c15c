from dataclasses import replace

from stages.evaluation.headline import headlines
from stages.metrics.figure import Figure
from tests.metrics.examples import PROTOCOL


def figures(*names: str) -> dict[str, Figure]:
    return {name: Figure(name, 1.0, "1", "lower", 17, PROTOCOL) for name in names}


def test_the_first_that_exists_stands_for_its_kind() -> None:
    found = headlines(
        figures("mse", "psnr", "prior_nats", "prior_baseline_nats", "near_copy_share")
    )
    assert [one.figure.name for one in found] == ["psnr", "prior_nats", "near_copy_share"]
    assert [figure.name for _, figure in found[0].beside] == ["mse"]
    assert [figure.name for _, figure in found[1].beside] == ["prior_baseline_nats"]
    better = headlines(figures("lpips_squeeze", "psnr", "total_bits_per_dim", "prior_nats"))
    assert [one.figure.name for one in better] == ["lpips_squeeze", "total_bits_per_dim"]


def test_the_lowest_of_several_bounds_is_the_tightest() -> None:
    found = figures("total_bits_per_dim", "iwae_bits_per_dim", "iwae_nats", "prior_nats")
    found["iwae_bits_per_dim"] = replace(found["iwae_bits_per_dim"], value=0.5)
    [only] = headlines(found)
    assert only.figure.name == "iwae_bits_per_dim"


def test_every_frechet_distance_stands_beside_its_reconstructions_and_floor() -> None:
    names = [
        prefix + name + suffix
        for name in ("frechet_classifier", "frechet_inception")
        for prefix, suffix in (("", ""), ("reconstruction_", ""), ("", "_floor"))
    ]
    found = headlines(figures(*names))
    assert [one.figure.name for one in found] == ["frechet_classifier", "frechet_inception"]
    beside = [figure.name for _, figure in found[1].beside]
    assert beside == ["reconstruction_frechet_inception", "frechet_inception_floor"]


def test_nothing_is_made_up() -> None:
    assert headlines({}) == []
