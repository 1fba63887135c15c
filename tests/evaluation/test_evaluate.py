"""The stage on whole miniature lines: all figures are there, and parts are what they claim."""

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from stages.core.artifacts import file_sha256, new_artifact, open_artifact
from stages.core.errors import ArtifactError
from stages.evaluate import INPUTS, Params, evaluate
from stages.evaluation.judgement import judge_line
from stages.evaluation.line import open_line
from stages.evaluation.options import EvaluateOptions
from stages.metrics.protocol import Protocol, SamplerRecord
from tests.evaluation.tiny_line import (
    CODES,
    CONTINUOUS,
    COUNTS,
    CPU,
    POINTS,
    POSITIVE,
    SAMPLING,
    make_line,
    make_prior,
    run_of,
)

NAMES = ["zero", "one", "two & more"]
OPTIONS = {
    "batch_size": 6,
    "max_images": 0,
    "num_reconstructions": 10,
    "samples_per_class": 3,
    "neighbour_queries": 9,
    "num_neighbours": 4,
    "factor_images": 0,
    "lpips_weights": "",
    "iwae_draws": 0,
    "iwae_prior_draws": 0,
    "iwae_images": 0,
    "iwae_batch_size": 4,
}


def params(**changes: int) -> Params:
    return Params(seed=3, device="cpu", evaluate=EvaluateOptions(**{**OPTIONS, **changes}))


def evaluated(folder: Path, **changes: int) -> dict[str, dict]:
    evaluate(params(**changes), run_of("evaluate", folder, *INPUTS))
    return json.loads((folder / "data/metrics/figures.json").read_text())


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three systems, made once; tests work on copies."""
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        for name, system, classes in (
            ("codes", CODES, NAMES),
            ("continuous", CONTINUOUS, None),
            ("points", POINTS, NAMES),
            ("positive", POSITIVE, None),
        ):
            folder = tmp_path_factory.mktemp(name)
            patch.chdir(folder)
            make_line(folder, system, classes)
            made[name] = folder
    return made


@pytest.fixture
def line(
    request: pytest.FixtureRequest,
    lines: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    folder = tmp_path / "line"
    shutil.copytree(lines[request.param], folder)
    monkeypatch.chdir(folder)
    return folder


every = pytest.mark.parametrize(
    "line", ["codes", "continuous", "points", "positive"], indirect=True
)
codes = pytest.mark.parametrize("line", ["codes"], indirect=True)
continuous = pytest.mark.parametrize("line", ["continuous"], indirect=True)


@every
def test_every_figure_is_finite_and_says_how_it_was_taken(line: Path) -> None:
    figures = evaluated(line)
    reference = file_sha256(line / "data/prepared/test/images.npy")
    assert {"mse", "psnr", "ssim", "prior_nats", "neighbour_distance_ratio"} <= figures.keys()
    for name, figure in figures.items():
        assert figure["name"] == name and math.isfinite(figure["value"])
        assert figure["direction"] in ("lower", "higher", "none") and figure["unit"]
        expected = {"samples": SAMPLING["count"], "training split": COUNTS["train"]}
        assert figure["n"] == expected.get(figure["protocol"]["images"], COUNTS["test"]) or (
            name in ("neighbour_distance_ratio", "near_copy_share")
            and figure["n"] == OPTIONS["neighbour_queries"]
        )
        assert Protocol.from_json(figure["protocol"]).to_json() == figure["protocol"]
        assert figure["protocol"]["reference_sha256"] == reference
    flat = json.loads((line / "data/metrics/metrics.json").read_text())
    assert flat == {name: figure["value"] for name, figure in figures.items()}


@codes
def test_codes_with_classes(line: Path) -> None:
    figures = evaluated(line)
    assert {
        "frechet_classifier",
        "reconstruction_frechet_classifier",
        "frechet_classifier_floor",
        "class_accuracy",
        "test_class_accuracy",
        "code_perplexity",
        "prior_bits_per_code",
        "total_bits_per_dim",
    } <= figures.keys()
    assert figures["prior_baseline_bits_per_code"]["value"] == pytest.approx(math.log2(7))
    protocol = figures["frechet_classifier"]["protocol"]
    assert protocol["sampler"] == SamplerRecord.of(SAMPLING).__dict__ | {"classes": []}
    assert protocol["extractor_sha256"] == open_artifact(line / "data/judge", "judge").digest
    assert protocol["found"]["extractor_test_accuracy"] == 0.5
    table = pd.read_csv(line / "data/metrics/per_class.csv")
    assert list(table["name"]) == NAMES
    assert table["samples_images"].sum() == SAMPLING["count"]


@continuous
def test_continuous_latents_without_classes(line: Path) -> None:
    figures = evaluated(line)
    assert "frechet_rotation" in figures and "class_accuracy" not in figures
    assert not (line / "data/metrics/per_class.csv").exists()
    assert {"kl", "active_units", "rate_nats", "total_bits_per_dim"} <= figures.keys()
    total = figures["distortion_nats"]["value"] + figures["rate_nats"]["value"]
    assert figures["total_bits_per_dim"]["value"] == pytest.approx(total / (96 * math.log(2)))
    # The prior is N(0, I) in the autoencoder's own units, so stored and unscaled it gains nothing.
    assert figures["latent_scale"]["value"] != pytest.approx(1, abs=0.1)
    assert figures["prior_gain_nats"]["value"] == pytest.approx(0, abs=1e-4)
    assert figures["rate_nats"]["value"] == pytest.approx(figures["rate_baseline_nats"]["value"])


@pytest.mark.parametrize("line", ["points"], indirect=True)
def test_points_under_a_density_get_no_bits(line: Path) -> None:
    figures = evaluated(line)
    assert not {"total_bits_per_dim", "rate_nats", "kl"} & figures.keys()


@pytest.mark.parametrize("line", ["positive"], indirect=True)
def test_latents_of_another_family_are_judged_by_theirs(line: Path) -> None:
    figures = evaluated(line, iwae_draws=1)
    assert figures["kl"]["protocol"]["details"]["against"] == "Gamma(2, rate 0.5)"
    assert figures["prior_gain_nats"]["value"] == pytest.approx(0, abs=1e-3)
    assert "total_bits_per_dim" not in figures and "iwae_bits_per_dim" not in figures
    protocol = figures["iwae_nats"]["protocol"]
    details = protocol["details"]
    assert details["likelihood"] == {"kind": "bernoulli", "binarise": "dynamic"}
    assert details["latent_prior"] == "the first stage's own, Gamma(2, rate 0.5)"
    assert "target" in details and details["draws"] == 1 and protocol["seed"] == 3


@continuous
def test_bounds_by_importance_weights(line: Path) -> None:
    figures = evaluated(line, iwae_draws=3, iwae_prior_draws=3, iwae_images=5)
    own, learned = figures["iwae_nats"], figures["two_stage_iwae_nats"]
    assert own["n"] == 5 and own["protocol"]["details"]["draws"] == 3
    # The prior is the first stage's own, and so are the draws.
    assert learned["value"] == pytest.approx(own["value"], rel=1e-5)
    assert learned["protocol"]["details"]["latent_prior"] == "the second stage's"
    assert own["value"] < figures["elbo_nats"]["value"]
    bits = figures["iwae_bits_per_dim"]["value"]
    assert bits == pytest.approx(own["value"] / (96 * math.log(2)))
    elbo = figures["elbo_nats"]["value"] / (96 * math.log(2))
    assert elbo == pytest.approx(figures["total_bits_per_dim"]["value"], rel=0.05)


@pytest.mark.parametrize("line", ["codes", "points"], indirect=True)
def test_codes_and_points_have_no_importance_weights(line: Path) -> None:
    assert not [name for name in evaluated(line, iwae_draws=2) if "iwae" in name]


@continuous
def test_batches_do_not_matter(line: Path) -> None:
    whole = {n: f["value"] for n, f in evaluated(line, batch_size=100).items()}
    parts = {n: f["value"] for n, f in evaluated(line, batch_size=4).items()}
    assert parts == pytest.approx(whole, rel=1e-4)


@codes
def test_equal_lines_give_equal_bytes_and_everything_is_logged(line: Path) -> None:
    run = run_of("evaluate", line, *INPUTS)
    evaluate(params(), run)
    first = open_artifact(line / "data/metrics", "metrics")
    evaluated(line)
    assert open_artifact(line / "data/metrics", "metrics").digest == first.digest
    assert run.tracker.metrics == json.loads((line / "data/metrics/metrics.json").read_text())
    pictures = {"reconstructions.png", "samples.png", "neighbours.png", "latents.png"}
    pictures |= {"neighbour_distances.png"}
    logged = {"report.html", "figures.json", "params.json"}
    assert pictures | logged == set(run.tracker.files)
    assert pictures < first.files.keys()
    headline = Protocol.from_json(json.loads(run.tracker.tags["protocol.frechet_classifier"]))
    assert headline.sampler == SamplerRecord.of(SAMPLING)
    assert run.tracker.tags["memorisation"] == "no sign"
    report = (line / "data/metrics/report.html").read_text()
    copy = (run.work / "report.html").read_text()
    assert "http://tracker.example/#/experiments/7/runs/a1" in copy and "http" not in report


@codes
def test_fewer_images_on_request(line: Path) -> None:
    figures = evaluated(line, max_images=4)
    assert figures["mse"]["n"] == 4
    assert figures["frechet_classifier"]["protocol"]["reference_n"] == 4


@codes
def test_a_sample_copied_from_training_is_found(line: Path) -> None:
    artifact = open_artifact(line / "data/samples", "samples")
    images = np.load(line / "data/samples/images.npy")
    images[2] = np.load(line / "data/prepared/train/images.npy")[19]
    table = pd.read_parquet(line / "data/samples/samples.parquet")
    with new_artifact(line / "data/samples", "samples", artifact.about) as building:
        np.save(building / "images.npy", images)
        table.to_parquet(building / "samples.parquet")
    run = run_of("evaluate", line, *INPUTS)
    judgement = judge_line(open_line(run, CPU), params().evaluate, 3, run, CPU)
    assert judgement.sample_neighbours[2, 0] == 19
    assert judgement.sample_distances[2, 0] == pytest.approx(0, abs=1e-5)
    assert (np.delete(judgement.sample_distances[:, 0], 2) > 1e-3).all()


@codes
def test_a_line_that_copies_is_accused_everywhere(
    line: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = open_artifact(line / "data/samples", "samples")
    train = np.load(line / "data/prepared/train/images.npy")
    table = pd.read_parquet(line / "data/samples/samples.parquet")
    with new_artifact(line / "data/samples", "samples", artifact.about) as building:
        np.save(building / "images.npy", train[: len(table)])
        table.to_parquet(building / "samples.parquet")
    run = run_of("evaluate", line, *INPUTS)
    evaluate(params(), run)
    assert run.tracker.tags["memorisation"] == "suspected"
    assert "Copies suspected: 9 of 9 samples" in capsys.readouterr().err
    report = (line / "data/metrics/report.html").read_text()
    assert 'class="verdict alarm"' in report and "Copies suspected" in report


@codes
def test_parts_that_do_not_belong_together_are_refused(line: Path) -> None:
    before = open_artifact(line / "data/prior", "prior").digest
    torch.manual_seed(99)
    make_prior(line, CODES, NAMES)
    after = open_artifact(line / "data/prior", "prior").digest
    assert before != after
    with pytest.raises(ArtifactError, match="samples") as refused:
        evaluated(line)
    assert before in str(refused.value) and after in str(refused.value)


@every
def test_the_report_holds_everything_and_loads_nothing(line: Path) -> None:
    figures = evaluated(line)
    report = (line / "data/metrics/report.html").read_text()
    for name, figure in figures.items():
        assert f'id="{name}"' in report and repr(float(figure["value"])) in report
    for source in re.findall(r'src="([^"]*)"', report):
        assert source.startswith("data:image/png;base64,")
    for target in re.findall(r'href="([^"]*)"', report):
        assert target.startswith("#") and f'id="{target[1:]}"' in report
    assert "http" not in report and "<script" not in report and "@import" not in report
    assert all(re.findall(r'<img [^>]*alt="[^"]+"', report))
    shown = {path.name for path in (line / "data/metrics").glob("*.png")}
    assert report.count("<img") == len(shown) and shown >= {"samples.png", "latents.png"}
    for name in INPUTS:
        assert open_artifact(line / "data" / name, name).digest in report
    assert "& more" not in report
    # Nothing is wider than a phone.
    assert all(int(w) <= 390 for w in re.findall(r"(?<!max-)width:\s*(\d+)px", report))
