"""The report: one HTML file that needs nothing else, to be mailed, archived and read on a phone.

Pictures are embedded, there is no script, no font and no link to load; there is no date in it
either, so equal judgements give equal bytes.
"""

import base64
import json
from pathlib import Path
from typing import Any

import jinja2

from stages.evaluation.judgement import Judgement
from stages.evaluation.line import Line
from stages.metrics.base import Figure

__all__ = ["format_value", "line_params", "write_report"]

ARROWS = {"lower": "↓", "higher": "↑", "none": ""}
SPOKEN = {"lower": "lower is better", "higher": "higher is better", "none": ""}


def write_report(
    path: Path,
    judgement: Judgement,
    pictures: dict[str, str],
    params: dict[str, Any],
    digests: dict[str, str],
) -> None:
    """Write the report beside the pictures it embeds.

    Args:
        path: The HTML file; pictures stand in the same folder.
        judgement: What was found.
        pictures: Name of a PNG -> what it shows.
        params: Parameters of the parts, section -> values.
        digests: Artifact -> sha256 of its manifest.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("stages.evaluation", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("report.html").render(
        groups={title: [_row(f) for f in group] for title, group in judgement.groups.items()},
        pictures=[_embedded(path.parent / name, text) for name, text in pictures.items()],
        classes=_class_rows(judgement),
        params=[(section, _flat(values)) for section, values in params.items()],
        digests=digests,
    )
    path.write_text(text, encoding="utf-8")


def line_params(line: Line) -> dict[str, Any]:
    """Parameters of the parts as they were made, section -> values."""
    return {
        **line.first_stage.params.model_dump(mode="json"),
        **line.second_stage.params.model_dump(mode="json"),
        "judge": line.judge.config.judge.model_dump(mode="json"),
        "sampling": line.samples.artifact.about["sampling"],
    }


def format_value(value: float) -> str:
    """Four significant digits, without exponents where a person reads numbers without them."""
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value)}"
    return f"{value:.4g}" if 1e-3 <= abs(value) < 1e4 else f"{value:.3e}"


def _row(figure: Figure) -> dict[str, Any]:
    return {
        "name": figure.name,
        "value": format_value(figure.value),
        "exact": repr(float(figure.value)),
        "unit": "" if figure.unit == "1" else figure.unit,
        "arrow": ARROWS[figure.direction],
        "spoken": SPOKEN[figure.direction],
        "n": figure.n,
        "protocol": _flat(figure.protocol.to_json()),
    }


def _flat(values: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested values as (dotted name, text)."""
    if not isinstance(values, dict):
        return [(prefix, values if isinstance(values, str) else json.dumps(values))]
    return [
        pair
        for name, value in values.items()
        for pair in _flat(value, f"{prefix}.{name}" if prefix else str(name))
    ]


def _embedded(path: Path, text: str) -> dict[str, str]:
    data = base64.b64encode(path.read_bytes()).decode()
    return {"text": text, "uri": f"data:image/png;base64,{data}"}


def _class_rows(judgement: Judgement) -> list[dict[str, str]]:
    if judgement.per_class is None:
        return []
    return [
        {
            "name": str(row["name"]),
            **{
                of: f"{row[f'{of}_accuracy']:.1%}" if row[f"{of}_images"] else "-"
                for of in ("samples", "reconstructions", "test")
            },
            "n": f"{row['samples_images']}",
        }
        for row in judgement.per_class.to_dict("records")
    ]
