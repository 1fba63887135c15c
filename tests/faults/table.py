"""The table of cases in the documentation, written by the run that made it."""

import argparse
import datetime
import os
import platform
from pathlib import Path

__all__ = ["case", "page_for_table", "write_table"]

BEGIN, END = "<!-- table: written by make faults -->", "<!-- end of table -->"


def case(what: str, expected: str):
    """Decorator of a test: the row it gives in the table.

    Args:
        what: Is done to the line.
        expected: What is to be seen meanwhile; afterwards the same holds for all.
    """

    def mark(test):
        test.case = (what, expected)
        return test

    return mark


def page_for_table(name: str) -> str:
    """The name of a page that a table can be written to; for argparse.

    A name, for pytest-xdist cannot hand a `Path` to its workers.

    Raises:
        argparse.ArgumentTypeError: If it is not there or has no place for one: said at once, not
            after the cases have run.
    """
    page = Path(name)
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    if BEGIN not in text or END not in text.partition(BEGIN)[2]:
        raise argparse.ArgumentTypeError(f"must be a page with '{BEGIN} {END}' in it; got {name}")
    return name


def write_table(page: Path, rows: list[list[str]]) -> None:
    """Put the table of results between its marks on a page.

    Args:
        page: Holds both marks.
        rows: Case, what was expected, result, time taken.
    """
    head, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    tail = rest.partition(END)[2]
    passed = sum(row[2] not in ("failed", "skipped") for row in rows)
    today = datetime.date.today().isoformat()
    where = f"Python {platform.python_version()}, {platform.system()}, {os.cpu_count()} cores"
    lines = [
        f"{len(rows)} cases, {passed} passed; {today}, {where}.",
        "",
        "| what happens | what is to be seen | result | time |",
        "|---|---|---|---|",
        *(f"| {' | '.join(cell.replace('|', ' ') for cell in row)} |" for row in rows),
    ]
    page.write_text("\n".join([f"{head}{BEGIN}", *lines, f"{END}{tail}"]), encoding="utf-8")
