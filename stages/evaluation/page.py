"""Pages that need nothing else: templates, and numbers as a person reads them."""

from typing import Any

import jinja2

__all__ = ["ARROWS", "SPOKEN", "format_interval", "format_value", "render"]

ARROWS = {"lower": "↓", "higher": "↑", "none": ""}
SPOKEN = {"lower": "lower is better", "higher": "higher is better", "none": ""}


def render(template: str, **values: Any) -> str:
    """Fill a template of `stages/evaluation/templates`; a value that is missing is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("stages.evaluation", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def format_value(value: float) -> str:
    """Four significant digits, without exponents where a person reads numbers without them."""
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value)}"
    return f"{value:.4g}" if 1e-3 <= abs(value) < 1e4 else f"{value:.3e}"


def format_interval(interval: tuple[float, float] | None) -> str:
    """Both ends as values are written; empty without an interval."""
    return "" if interval is None else " to ".join(format_value(end) for end in interval)
