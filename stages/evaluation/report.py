"""The report: one HTML file that needs nothing else, to be mailed, archived, printed and read.

Pictures are embedded, there is no script, no font and nothing to load; there is no date in it
either, so equal judgements give equal bytes. Which run made it, and from which commit, are no
inputs of the stage: they stand in the copy that is kept with the run (`this_run`).
"""

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.evaluation.headline import Headline, headlines
from stages.evaluation.judgement import Judgement
from stages.evaluation.line import Line
from stages.evaluation.page import ARROWS, SPOKEN, format_interval, format_value, render
from stages.metrics.figure import Figure

__all__ = ["Report", "line_params"]

SECTIONS = {
    "Samples and reconstructions": ("samples.png", "reconstructions.png"),
    "Nearest training images": ("neighbour_distances.png", "neighbours.png"),
    "Latents": ("latents.png", "interpolations.png", "traversals.png", "levels.png"),
    "Training": ("curves_autoencoder.png", "curves_prior.png"),
}
OTHERS = "More pictures"
KINDS = ("autoencoder", "bottleneck", "likelihood", "prior")


@dataclass(frozen=True)
class Report:
    """All that the page says."""

    judgement: Judgement
    pictures: dict[str, str]
    """Name of a PNG -> what it shows."""
    params: dict[str, Any]
    """Parameters of the parts, section -> values."""
    digests: dict[str, str]
    """Artifact -> sha256 of its manifest."""

    def write(self, path: Path, pictures: Path, run: dict[str, str] | None) -> None:
        """Write the page.

        Args:
            path: The HTML file.
            pictures: Folder of the pictures, which are embedded.
            run: What is known of the run that made it, name -> text; None where equal inputs have
                to give equal bytes.
        """
        found = self.judgement
        flats = {name: _protocol(figure) for name, figure in found.figures.items()}
        common = _common(list(flats.values()))
        lead, _, rest = found.memorisation.verdict.partition(":")
        shares = found.class_shares
        unlike = shares.verdict.partition(":") if shares is not None and shares.flagged else None
        text = render(
            "report.html",
            about=_about(self.params),
            headlines=[_headline(one) for one in headlines(found.figures)],
            memorisation={"lead": lead, "rest": rest, "flagged": found.memorisation.flagged},
            shares=None if unlike is None else {"lead": unlike[0], "rest": unlike[2]},
            sections=_sections(self.pictures, pictures),
            groups={
                title: [_row(figure, flats[figure.name], common) for figure in group]
                for title, group in found.groups.items()
            },
            common=list(common.items()),
            classes=_class_rows(found),
            factors=_factor_rows(found),
            params=[(section, _flat(values)) for section, values in self.params.items()],
            digests=self.digests,
            run=run,
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


def _about(params: dict[str, Any]) -> str:
    kinds = [f"{name} {params[name]['kind']}" for name in KINDS if name in params]
    return ", ".join(kinds)


def _headline(headline: Headline) -> dict[str, Any]:
    return {
        **_number(headline.figure),
        "title": headline.title,
        "beside": [(label, _with_unit(figure)) for label, figure in headline.beside],
    }


def _with_unit(figure: Figure) -> str:
    return f"{format_value(figure.value)} {figure.unit if figure.unit == 'dB' else ''}".strip()


def _number(figure: Figure) -> dict[str, Any]:
    return {
        "name": figure.name,
        "value": format_value(figure.value),
        "exact": repr(float(figure.value)),
        "interval": format_interval(figure.interval),
        "unit": "" if figure.unit == "1" else figure.unit,
        "arrow": ARROWS[figure.direction],
        "spoken": SPOKEN[figure.direction],
        "n": figure.n,
    }


def _row(figure: Figure, flat: dict[str, str], common: dict[str, str]) -> dict[str, Any]:
    own = [(name, value) for name, value in flat.items() if name not in common]
    return {**_number(figure), "protocol": own}


def _protocol(figure: Figure) -> dict[str, str]:
    """What a protocol says, as text; what it leaves open is left out."""
    return {
        name.removeprefix("details."): text
        for name, text in _flat(figure.protocol.to_json())
        if text not in ("null", "{}")
    }


def _common(protocols: list[dict[str, str]]) -> dict[str, str]:
    first, *others = protocols
    return {
        name: text
        for name, text in first.items()
        if all(other.get(name) == text for other in others)
    }


def _flat(values: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested values as (dotted name, text)."""
    if not isinstance(values, dict) or not values:
        return [(prefix, values if isinstance(values, str) else json.dumps(values))]
    return [
        pair
        for name, value in values.items()
        for pair in _flat(value, f"{prefix}.{name}" if prefix else str(name))
    ]


def _sections(pictures: dict[str, str], folder: Path) -> list[dict[str, Any]]:
    named = {name for names in SECTIONS.values() for name in names}
    wanted = {**SECTIONS, OTHERS: tuple(name for name in pictures if name not in named)}
    return [
        {"title": title, "shown": [_embedded(folder / name, pictures[name]) for name in there]}
        for title, names in wanted.items()
        if (there := [name for name in names if name in pictures])
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


def _factor_rows(judgement: Judgement) -> list[list[str]]:
    """A row of names, and one of values for each known factor."""
    table = judgement.per_factor
    if table is None:
        return []
    names = [str(name).replace("_", " ") for name in table]
    values = [
        [format_value(cell) if isinstance(cell, float) else str(cell) for cell in row]
        for row in table.itertuples(index=False)
    ]
    return [names, *values]
