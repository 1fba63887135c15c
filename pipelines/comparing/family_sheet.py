"""What a comparison of families shows: one table, one sheet of pictures.

The table stands as CSV for programs and as Markdown for people; the sheet holds a row per member:
reconstructions (each below its original), samples of the prior that learns nothing, samples of the
learned one.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from pipelines.comparing.families import Outcome
from stages.core.pictures import grid

__all__ = ["write_results"]

COLUMNS = {
    "mse": "mse",
    "rfrechet": "reconstruction_frechet_classifier",
    "frechet": "frechet_classifier",
    "accuracy": "class_accuracy",
    "prior_nats": "prior_nats",
    "prior_bits": "prior_bits_per_code",
    "rate": "rate_nats",
    "usage": "code_usage",
    "perplexity": "code_perplexity",
    "active": "active_units_share",
    "collapsed": "collapsed_units_share",
    "mig": "mig",
    "factor_vae": "factor_vae_score",
    "beta_vae": "beta_vae_score",
    "disentanglement": "dci_disentanglement",
    "sap": "sap",
}
"""Column -> figure of evaluate; a table has those that some member has."""
# What depends on the prior is told twice.
TWICE = ("frechet", "accuracy")
HEADINGS = ("original above rebuilt", "samples, nothing learned", "samples, learned prior")
SHOWN, SHOWN_COLUMNS = 30, 10
_CAPTION, _GAP, _FONT = 34, 12, 18


def write_results(folder: Path, outcomes: list[Outcome]) -> pd.DataFrame:
    """Write `table.csv`, `table.md` and `sheet.png`; returns the table."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame([_row(outcome) for outcome in outcomes])
    table.to_csv(folder / "table.csv", index=False)
    (folder / "table.md").write_text(_markdown(table), encoding="utf-8")
    _sheet(outcomes).save(folder / "sheet.png", optimize=True)
    return table


def _row(outcome: Outcome) -> dict[str, str | float | int | None]:
    last = outcome.learned or outcome.own
    row: dict[str, str | float | int | None] = {
        "member": outcome.member,
        "about": outcome.about,
        "steps": outcome.steps,
        "images_per_second": round(outcome.images_per_second),
        "prior_steps": outcome.prior_steps,
    }
    for column, figure in COLUMNS.items():
        if column in TWICE:
            row[f"{column}_own"] = outcome.own.get(figure)
            row[f"{column}_learned"] = (outcome.learned or {}).get(figure)
        else:
            row[column] = last.get(figure)
    return row


def _markdown(table: pd.DataFrame) -> str:
    shown = table.drop(columns="about").dropna(axis="columns", how="all")
    cells = [[_cell(value) for value in row] for row in shown.itertuples(index=False)]
    lines = [list(shown.columns), ["---"] * len(shown.columns), *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _sheet(outcomes: list[Outcome]) -> Image.Image:
    rows = [_pictures(outcome) for outcome in outcomes]
    heights = [max(picture.height for picture in row.values()) for row in rows]
    lefts, width = {}, _GAP
    for heading in HEADINGS:
        widths = [row[heading].width for row in rows if heading in row]
        if widths:
            lefts[heading], width = width, width + max(widths) + _GAP
    height = _CAPTION + sum(height + _CAPTION + _GAP for height in heights)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_FONT)
    for heading, left in lefts.items():
        draw.text((left, 8), heading, fill="black", font=font)
    top = _CAPTION
    for outcome, row, tall in zip(outcomes, rows, heights, strict=True):
        caption = f"{outcome.member}: {outcome.about}"
        draw.text((_GAP, top + 8), caption, fill="black", font=font)
        for heading, picture in row.items():
            sheet.paste(picture, (lefts[heading], top + _CAPTION))
        top += tall + _CAPTION + _GAP
    return sheet


def _pictures(outcome: Outcome) -> dict[str, Image.Image]:
    """Under their headings; a member has those that it made."""
    folder = Path(outcome.folder)
    rebuilt, *drawn = HEADINGS
    with Image.open(folder / "data" / "metrics" / "reconstructions.png") as picture:
        pictures = {rebuilt: picture.convert("RGB")}
    for heading, name in zip(drawn, ("own", "learned"), strict=True):
        path = folder / ".work" / "shown" / f"{name}.npy"
        if path.is_file():
            images = np.load(path, mmap_mode="r")[:SHOWN]
            pictures[heading] = grid(np.array(images), SHOWN_COLUMNS)
    return pictures
