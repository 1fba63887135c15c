"""Stage `evaluate`: what came out, in figures and pictures.

    python -m stages.evaluate

Reads every artifact of the line and refuses parts that do not belong together. Writes
data/metrics: metrics.json (name -> number), figures.json (with unit, direction, N and protocol),
params.json (of all parts), latents.csv, per_class.csv and per_factor.csv where classes and factors
are known, pictures, and report.html, which holds all of it in one file.
"""

import json
import sys
from pathlib import Path

from stages.core.artifacts import new_artifact, write_json
from stages.core.devices import Device, resolve_device
from stages.core.sections import Section
from stages.core.seeds import Seed
from stages.core.stage import Run, run_stage
from stages.evaluation.headline import headlines
from stages.evaluation.judgement import Judgement, judge_line
from stages.evaluation.line import open_line
from stages.evaluation.options import EvaluateOptions
from stages.evaluation.pictures import draw_pictures
from stages.evaluation.report import Report, line_params
from stages.evaluation.this_run import this_run
from stages.metrics.figure import write_figures

__all__ = ["EvaluateOptions"]

OUTPUT = Path("data/metrics")
LONGEST_TAG = 5000
"""Characters every MLflow server takes; a balance of many classes is longer."""
INPUTS = ("prepared", "judge", "autoencoder", "latents", "prior", "samples")


class Params(Section):
    """The sections this stage reads."""

    seed: Seed
    device: Device
    evaluate: EvaluateOptions


def evaluate(params: Params, run: Run) -> None:
    """Judge the line and write down what was found."""
    device = resolve_device(params.device)
    line = open_line(run, device)
    judgement = judge_line(line, params.evaluate, params.seed, run, device)
    digests = {name: artifact.digest for name, artifact in line.artifacts.items()}
    with new_artifact(OUTPUT, "metrics", {"made_from": digests}) as folder:
        write_judgement(folder, judgement)
        pictures = draw_pictures(folder, line, judgement, params.evaluate, device)
        sections = {**line_params(line), "evaluate": params.evaluate.model_dump(mode="json")}
        write_json(folder / "params.json", sections)
        report = Report(judgement, pictures, sections, digests)
        report.write(folder / "report.html", folder, run=None)
    if judgement.memorisation.flagged:
        print(f"evaluate: warning: {judgement.memorisation.verdict}", file=sys.stderr)
    shares = judgement.class_shares
    if shares is not None and shares.flagged:
        print(f"evaluate: warning: {shares.verdict}", file=sys.stderr)
    log(run, judgement, report)


def log(run: Run, judgement: Judgement, report: Report) -> None:
    """Record what was found: figures with the protocols of the headlines, pictures, the report."""
    tracker = run.tracker
    tracker.log_metrics({name: f.value for name, f in judgement.figures.items()})
    tracker.log_tag("memorisation", "suspected" if judgement.memorisation.flagged else "no sign")
    for headline in headlines(judgement.figures):
        protocol = headline.figure.protocol.to_json()
        text = json.dumps(protocol, sort_keys=True, ensure_ascii=False)
        short = text if len(text) <= LONGEST_TAG else "see figures.json"
        tracker.log_tag(f"protocol.{headline.figure.name}", short)
    for name in report.pictures:
        tracker.log_image(OUTPUT / name, Path(name).stem)
    for name in ("figures.json", "params.json"):
        tracker.log_file(OUTPUT / name)
    # The copy of the run may name the run; the output may not.
    copy = run.work / "report.html"
    inputs = [artifact.path for artifact in run.inputs.values()]
    report.write(copy, OUTPUT, this_run(tracker.identity(), inputs))
    tracker.log_file(copy)


def write_judgement(folder: Path, judgement: Judgement) -> None:
    """Write the figures for programs: JSON and CSV."""
    figures = judgement.figures
    write_json(folder / "metrics.json", {name: f.value for name, f in figures.items()})
    write_figures(folder / "figures.json", figures)
    judgement.profile.to_csv(folder / "latents.csv", index=False)
    if judgement.per_class is not None:
        judgement.per_class.to_csv(folder / "per_class.csv", index=False)
    if judgement.per_factor is not None:
        judgement.per_factor.to_csv(folder / "per_factor.csv", index=False)


if __name__ == "__main__":
    run_stage("evaluate", Params, evaluate, inputs={name: Path("data") / name for name in INPUTS})
