"""Factors and latents of a split meet row by row, and give all figures or none."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages.evaluation.factors import judge_factors, represent_split
from stages.stores.latent_format import LatentHeader
from stages.stores.latents import LatentSplit
from stages.stores.prepared import PreparedSplit
from tests.metrics.examples import PROTOCOL

NAMES = ("mig", "factor_vae_score", "beta_vae_score", "dci_disentanglement")
NAMES += ("dci_completeness", "dci_informativeness", "sap")
SCALE = 0.25
CHANNELS, HEIGHT, WIDTH = 3, 1, 2
COUNT = 600


def factors() -> pd.DataFrame:
    """A shape without order, two factors with one, and one that never changes."""
    rows = np.random.default_rng(0).permutation(np.arange(COUNT) % 60)
    shape, scale, x = np.unravel_index(rows, (3, 4, 5))
    return pd.DataFrame(
        {"shape": shape, "scale": 0.5 + 0.1 * scale, "hue": np.zeros(COUNT), "x": x / 4}
    )


def images(known: pd.DataFrame | None) -> PreparedSplit:
    return PreparedSplit(np.zeros((COUNT, 1, 4, 5), dtype=np.uint8), None, known)


def own_means(known: pd.DataFrame) -> np.ndarray:
    """Shape in number 4, scale in 0, x in 3; the others are empty."""
    means = np.zeros((COUNT, CHANNELS, HEIGHT, WIDTH), dtype=np.float32)
    # Shapes out of order: the best latent holds them all, a line through it does not.
    means[:, 2, 0, 0] = np.array([1.0, 0.0, 2.0])[known["shape"]]
    means[:, 0, 0, 0] = known["scale"]
    means[:, 1, 0, 1] = known["x"]
    return means


def latents(means: np.ndarray, log_variance: float = -2.0, **changes: Any) -> LatentSplit:
    """Stored out of order: row r of the latents is image `index[r]`."""
    header = {
        "format": "latentline latents",
        "version": 1,
        "kind": "continuous",
        "grid_height": HEIGHT,
        "grid_width": WIDTH,
        "num_codes": 0,
        "channels": CHANNELS,
        "scale": SCALE,
        "deterministic": False,
        "precision": "float32",
        "views": ("identity",),
        "num_classes": 0,
        "class_names": None,
        "autoencoder": "a" * 64,
        "prepared": "b" * 64,
        "first_stage": {},
    }
    index = np.random.default_rng(1).permutation(COUNT)
    stored = (SCALE * means[index]).reshape(COUNT, -1)
    columns = {
        "index": index,
        "view": np.zeros(COUNT, dtype=np.int8),
        "mean": stored,
        "log_variance": np.full_like(stored, log_variance),
    }
    return LatentSplit(LatentHeader(**header | changes), columns)


def test_rows_of_latents_meet_their_images_in_own_units() -> None:
    known = factors()
    means = np.arange(COUNT, dtype=np.float32)[:, None, None, None] + np.arange(6).reshape(3, 1, 2)
    found = represent_split(images(known), latents(means), COUNT, seed=0)
    assert found is not None
    image = found.latents[:, 0].round().astype(int)
    assert sorted(image) == list(range(COUNT))
    np.testing.assert_allclose(found.latents, image[:, None] + np.arange(6))
    np.testing.assert_array_equal(found.factors[:, 0], known["shape"][image])
    np.testing.assert_array_equal(found.factors[:, 2], known["x"][image] * 4)


def test_a_split_with_one_latent_per_factor_has_all_figures() -> None:
    known = factors()
    split = latents(own_means(known))
    found = judge_factors(images(known), split, COUNT, 3, PROTOCOL)
    assert found is not None
    figures = {figure.name: figure for figure in found.figures}
    assert tuple(figures) == NAMES
    # An empty latent guesses one shape of three: the gap of the shape's own is 2/3, of others 1.
    expected = dict.fromkeys(NAMES, 1.0) | {"sap": (2 / 3 + 1 + 1) / 3}
    for figure in found.figures:
        assert figure.value == pytest.approx(expected[figure.name])
        assert (figure.direction, figure.n) == ("higher", COUNT)
        assert figure.protocol.reference_split == "test"
        assert figure.protocol.details["factors"] == {"shape": 3, "scale": 4, "x": 5}
        assert figure.protocol.seed == 3
    assert figures["mig"].protocol.details["bins"] == "20 of equal width per latent"
    table = found.table.set_index("factor")
    assert table["best_latent"].to_dict() == {"shape": 4, "scale": 0, "x": 3}
    assert table["ordered"].to_dict() == {"shape": False, "scale": True, "x": True}
    np.testing.assert_allclose(table["best_latent_nats"], table["entropy_nats"])
    np.testing.assert_allclose(table["sap"], [2 / 3, 1, 1])


def test_trap_samples_instead_of_means() -> None:
    known = factors()
    certain, vague = (
        judge_factors(images(known), latents(own_means(known), spread), COUNT, 0, PROTOCOL)
        for spread in (-20.0, 3.0)
    )
    assert certain is not None and vague is not None
    assert [f.value for f in certain.figures] == [f.value for f in vague.figures]


def test_trap_shape_left_out() -> None:
    known = factors()
    means = own_means(known)
    means[:, 2] = 0
    found = judge_factors(images(known), latents(means), COUNT, 0, PROTOCOL)
    assert found is not None
    assert found.figures[0].value == pytest.approx(2 / 3)
    assert list(found.table["factor"]) == ["shape", "scale", "x"]


def test_a_bounded_number_of_images_is_drawn_by_the_seed() -> None:
    known = factors()
    split = latents(own_means(known))
    one, again, other = (represent_split(images(known), split, 200, s) for s in (0, 0, 1))
    assert one is not None and again is not None and other is not None
    assert one.num_images == 200
    np.testing.assert_array_equal(one.factors, again.factors)
    assert not np.array_equal(one.factors, other.factors)


@pytest.mark.parametrize(
    ("known", "changes", "limit"),
    [
        (None, {}, COUNT),
        (factors(), {}, 0),
        (factors()[["shape", "hue"]], {}, COUNT),
        (factors(), {"kind": "codes", "num_codes": 5, "channels": 0}, COUNT),
    ],
    ids=["no factors", "off", "one factor that changes", "codes"],
)
def test_where_scores_have_no_meaning_there_are_none(known, changes, limit) -> None:
    split = latents(own_means(factors()), **changes)
    assert judge_factors(images(known), split, limit, 0, PROTOCOL) is None
