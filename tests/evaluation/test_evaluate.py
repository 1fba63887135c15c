"""The stage on whole miniature lines: all figures are there, and parts are what they claim."""

import json
import math
import re
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from stages.core.artifacts import file_sha256, new_artifact, open_artifact
from stages.core.errors import ArtifactError, Interrupted, ParamsError
from stages.core.sections import parse_params
from stages.evaluate import INPUTS, Params, evaluate
from stages.evaluation import pictures
from stages.evaluation.judgement import judge_line
from stages.evaluation.line import open_line, open_samples
from stages.evaluation.options import EvaluateOptions
from stages.extractors.resnet56_cifar10 import (
    ResNet56,
    ResNet56Cifar10,
    ResNet56Cifar10Options,
)
from stages.metrics.importance import ImportanceBound
from stages.metrics.pair import DistanceOptions
from stages.metrics.protocol import Protocol, SamplerRecord
from stages.sample import Params as SampleParams
from stages.sample import sample
from tests.evaluation.tiny_line import (
    CODES,
    CONTINUOUS,
    COUNTS,
    CPU,
    POINTS,
    POSITIVE,
    SAMPLING,
    make_judge,
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
    "networks": (),
    "distances": DistanceOptions(
        resamples=20,
        level=0.9,
        infinity_points=4,
        kernel_block=0,
        precision_neighbours=2,
        density_neighbours=3,
        score_splits=3,
    ),
    "coded_images": 0,
}


def params(**changes: Any) -> Params:
    return Params(seed=3, device="cpu", evaluate=EvaluateOptions(**{**OPTIONS, **changes}))


def evaluated(folder: Path, **changes: Any) -> dict[str, dict]:
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
        expected = {"samples": SAMPLING["count"], "training split": SAMPLING["count"]}
        n = expected.get(figure["protocol"]["images"], COUNTS["test"])
        if name in ("neighbour_distance_ratio", "near_copy_share"):
            n = OPTIONS["neighbour_queries"]
        if name.startswith(("recall", "coverage")):
            n = COUNTS["test"]
        assert figure["n"] == n
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
    for bound in ("iwae", "elbo"):
        gain = figures[f"{bound}_prior_gain_nats"]
        assert gain["value"] == pytest.approx(0, abs=1e-3) and gain["n"] == 5
    bits = figures["iwae_bits_per_dim"]["value"]
    assert bits == pytest.approx(own["value"] / (96 * math.log(2)))
    elbo = figures["elbo_nats"]["value"] / (96 * math.log(2))
    assert elbo == pytest.approx(figures["total_bits_per_dim"]["value"], rel=0.05)


@continuous
def test_weighed_images_outlive_a_kill(
    line: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"iwae_draws": 2, "iwae_images": 8}  # two batches
    whole = evaluated(line, **asked)
    run = run_of("evaluate", line, *INPUTS)
    kept = run.work / "weights"
    assert len(list(kept.iterdir())) == 2
    _, second = sorted(kept.iterdir())
    second.write_bytes(second.read_bytes()[:-9])
    weighed = []

    def counted(self: ImportanceBound, images: Any, *rest: Any) -> Any:
        weighed.append(len(images))
        return weigh(self, images, *rest)

    weigh = ImportanceBound.weighed
    monkeypatch.setattr(ImportanceBound, "weighed", counted)
    again = evaluated(line, **asked)
    assert weighed == [4], "only what was damaged"
    assert f"{second}: damaged piece" in capsys.readouterr().err
    assert again["iwae_nats"] == whole["iwae_nats"] and again["elbo_nats"] == whole["elbo_nats"]


@every
def test_the_bounds_under_both_priors_differ_by_the_prior_hole(line: Path) -> None:
    values = {name: figure["value"] for name, figure in evaluated(line).items()}
    if "total_nats" not in values:
        assert line_kind(line) == "points"
        return
    assert values["total_baseline_nats"] - values["total_nats"] == pytest.approx(
        values["prior_gain_nats"], abs=1e-6
    )
    carried = values.get("rate_nats", values["prior_nats"])
    assert values["total_nats"] == pytest.approx(values["distortion_nats"] + carried)
    for name in ("total", "total_baseline"):
        if f"{name}_bits_per_dim" in values:
            bits = values[f"{name}_nats"] / (96 * math.log(2))
            assert values[f"{name}_bits_per_dim"] == pytest.approx(bits)


def line_kind(line: Path) -> str:
    config = json.loads((line / "data/autoencoder/config.json").read_text())
    return "points" if config["params"]["bottleneck"]["kind"] == "identity" else "others"


@codes
def test_bits_are_real(line: Path) -> None:
    figures = evaluated(line, coded_images=9)
    measured, computed = figures["coded_bits_per_dim"], figures["coded_computed_bits_per_dim"]
    assert measured["n"] == computed["n"] == 9
    found = measured["protocol"]["found"]
    assert measured["value"] == pytest.approx(8 * found["file_bytes"] / (9 * 96))
    ratio = measured["value"] / computed["value"]
    assert figures["coded_ratio"]["value"] == pytest.approx(ratio)
    # Nine tiny images: the header and the classes are known, what is left is the rate.
    given = 8 * found["header_bytes"] + 9 * math.log2(len(NAMES))
    rate = measured["value"] - given / (9 * 96)
    assert rate == pytest.approx(computed["value"], rel=0.01)
    assert figures["coded_png_bits_per_dim"]["value"] > 8
    assert evaluated(line, coded_images=0).keys().isdisjoint({"coded_bits_per_dim"})


@continuous
def test_only_codes_are_coded(line: Path) -> None:
    with pytest.raises(ParamsError, match="only codes are coded"):
        evaluated(line, coded_images=3)


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
def test_a_sample_copied_from_training_is_found_and_shown(
    line: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = open_artifact(line / "data/samples", "samples")
    images = np.load(line / "data/samples/images.npy")
    # The last of the nine that are asked for, which are not the first nine of twelve.
    copied = 10
    images[copied] = np.load(line / "data/prepared/train/images.npy")[19]
    table = pd.read_parquet(line / "data/samples/samples.parquet")
    with new_artifact(line / "data/samples", "samples", artifact.about) as building:
        np.save(building / "images.npy", images)
        table.to_parquet(building / "samples.parquet")
    run = run_of("evaluate", line, *INPUTS)
    opened = open_line(run, CPU)
    judgement = judge_line(opened, params().evaluate, 3, run, CPU)
    assert judgement.queried_samples[8] == copied and len(judgement.queried_samples) == 9
    assert judgement.sample_neighbours[8, 0] == 19
    assert judgement.sample_distances[8, 0] == pytest.approx(0, abs=1e-5)
    assert (np.delete(judgement.sample_distances[:, 0], 8) > 1e-3).all()
    share = judgement.figures["near_copy_share"].protocol
    assert "at random" in share.details["queries"] and share.seed == 3
    drawn: list[list[tuple[str, np.ndarray]]] = []
    monkeypatch.setattr(pictures, "labelled_rows", drawn.append)
    monkeypatch.setattr(pictures, "save_png", lambda *_: None)
    pictures.draw_pictures(line, opened, judgement, params().evaluate, CPU)
    [_, _, neighbours] = drawn
    sample, nearest, *_ = neighbours[0][1]
    assert (sample == images[copied]).all() and (nearest == sample).all()


@codes
@pytest.mark.parametrize("name", ["images.npy", "samples.parquet"])
def test_samples_that_cannot_be_read_are_told(line: Path, name: str) -> None:
    whole = line / "data/samples"
    with new_artifact(line / "broken", "samples", {}) as building:
        for file in ("images.npy", "samples.parquet"):
            shutil.copy(whole / file, building)
        (building / name).write_bytes(b"garbage")
    with pytest.raises(ArtifactError, match=rf"{name}: cannot be read \(.*dvc"):
        open_samples(open_artifact(line / "broken", "samples"))


@codes
def test_another_network_has_figures_of_its_own_name(
    line: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(2)
    network = ResNet56Cifar10(ResNet56(), "a checksum")
    monkeypatch.setattr(ResNet56Cifar10, "open", classmethod(lambda *_: network))
    named = ResNet56Cifar10Options(kind="resnet56_cifar10", weights="somewhere")
    figures = evaluated(line, networks=(named,))
    for name in (
        "frechet_resnet56_cifar10",
        "reconstruction_frechet_resnet56_cifar10",
        "frechet_resnet56_cifar10_floor",
    ):
        protocol = figures[name]["protocol"]
        assert protocol["extractor_sha256"] == "a checksum"
        assert protocol["resize"] == "bilinear, 8x12 to 32x32, on float32, not rounded"
        assert protocol["antialias"] is True
        assert protocol["details"]["grey"] == "repeated to three channels"
    assert figures["frechet_classifier"]["protocol"]["resize"] == "none"
    # Its classes are not those of these images.
    assert not [name for name in figures if "class_accuracy_resnet56" in name]


@codes
def test_a_missing_network_ends_it_before_anything_is_looked_at(line: Path) -> None:
    named = ResNet56Cifar10Options(kind="resnet56_cifar10", weights="no/such.th")
    with pytest.raises(ParamsError, match="no/such.th: no such file"):
        evaluated(line, networks=(named,))
    assert not list((line / ".work").rglob("*.npy"))


@codes
def test_an_interrupted_judgement_goes_on_and_ends_alike(line: Path) -> None:
    evaluated(line)
    whole = open_artifact(line / "data/metrics", "metrics").digest
    shutil.rmtree(line / ".work")
    run = run_of("evaluate", line, *INPUTS)
    pieces = iter(range(1000))

    class Stop(threading.Event):
        def is_set(self) -> bool:
            return next(pieces) == 4

    run.stop = Stop()
    with pytest.raises(Interrupted):
        evaluate(params(), run)
    assert list((line / ".work/features").glob("*/features.npy"))
    evaluated(line)
    assert open_artifact(line / "data/metrics", "metrics").digest == whole


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
@pytest.mark.parametrize("classes", [[0, 0, 0, 0, 0, 1], [0, 1, 2]])
def test_unlike_shares_of_classes_are_told(
    line: Path, classes: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    sampling = {"device": "cpu", "sampling": SAMPLING | {"classes": classes}}
    params_of_samples = parse_params(SampleParams, sampling, source="test", strict=True)
    shutil.rmtree(line / ".work/sample")
    sample(params_of_samples, run_of("sample", line, "prior", "autoencoder"))
    capsys.readouterr()
    evaluated(line)
    told = [line for line in capsys.readouterr().err.splitlines() if "Class shares" in line]
    report = (line / "data/metrics/report.html").read_text()
    if classes == [0, 1, 2]:
        assert not told and "Class shares differ" not in report
    else:
        [warning] = told
        assert warning.startswith("evaluate: warning: Class shares differ: ")
        assert "zero has 83% of the samples and 35% of the test images" in warning
        assert report.index("Class shares differ") < report.index("<h2>")


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


@codes
def test_a_judge_that_chose_the_samples_is_not_independent_and_the_figures_say_so(
    line: Path,
) -> None:
    sampling = {**SAMPLING, "rejection_tries": 3}
    chosen = parse_params(
        SampleParams, {"device": "cpu", "sampling": sampling}, source="test", strict=True
    )
    sample(chosen, run_of("sample", line, "prior", "autoencoder", "judge"))
    judge = open_artifact(line / "data/judge", "judge").digest
    assert open_artifact(line / "data/samples", "samples").about["judge"] == judge
    figures = evaluated(line)
    for name in ("class_accuracy", "frechet_classifier"):
        protocol = figures[name]["protocol"]
        assert "chosen by the judge among up to 3 candidates" in protocol["images"]
        assert protocol["details"]["independence"].startswith("none of this judge")
        assert protocol["parts"]["judge"] == judge
        assert protocol["sampler"]["settings"]["rejection_tries"] == 3
    assert "independence" not in figures["test_class_accuracy"]["protocol"]["details"]
    make_judge(line, width=16)
    with pytest.raises(ArtifactError, match="data/samples was made from judge"):
        evaluated(line)
