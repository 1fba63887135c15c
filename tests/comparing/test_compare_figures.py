import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from stages.compare_figures import main
from stages.metrics.figure import Figure, write_figures
from tests.metrics.examples import PROTOCOL


def figures(mse: float) -> dict[str, Figure]:
    how = PROTOCOL.also(parts={"autoencoder": "cd" * 32})
    found = [
        Figure("mse", mse, "squared intensity", "lower", 17, how, (mse - 0.1, mse + 0.1)),
        Figure("code_usage", 0.5, "share", "higher", 17, how),
    ]
    return {figure.name: figure for figure in found}


def run(folder: Path, found: dict[str, Figure], width: int | None = None) -> str:
    folder.mkdir()
    write_figures(folder / "figures.json", found)
    if width is not None:
        (folder / "params.json").write_text(
            json.dumps({"backbone": {"width": width, "depth": 2}, "evaluate": {"images": 0}})
        )
        Image.fromarray(np.full((4, 6), width, np.uint8)).save(folder / "samples.png")
    return str(folder)


def test_alike_runs_are_compared_without_a_warning(tmp_path, capsys) -> None:
    first, second = run(tmp_path / "a", figures(1.0)), run(tmp_path / "b", figures(2.0))
    assert main([f"old={first}", f"new={second}/figures.json", "--strict"]) == 0
    shown = capsys.readouterr().out
    assert "warning" not in shown
    [row] = [line for line in shown.splitlines() if " mse " in line]
    assert "* 1 [0.9, 1.1]  N 17" in row and " 2 [1.9, 2.1]  N 17" in row
    assert shown.count("* ") == 2, "one best figure, and what the star means"


def test_an_unlike_protocol_is_named_and_strict_refuses_it(tmp_path, capsys) -> None:
    other = figures(2.0)
    other["mse"] = replace(other["mse"], n=9, protocol=other["mse"].protocol.also(resize="area"))
    other["code_usage"] = replace(
        other["code_usage"],
        protocol=other["code_usage"].protocol.also(parts={"autoencoder": "ef" * 32}),
    )
    first, second = run(tmp_path / "a", figures(1.0)), run(tmp_path / "b", other)
    assert main([f"old={first}", f"new={second}"]) == 0
    shown = capsys.readouterr().out
    [warning] = [line for line in shown.splitlines() if line.startswith("warning")]
    assert warning == "warning: mse: old | new not comparable: n: 17 | 9; resize: none | area"
    assert "compared: old | new: parts.autoencoder: cdcdcdcdcdcd | efefefefefef" in shown
    assert "* 1 [" not in shown
    assert main([f"old={first}", f"new={second}", "--strict"]) == 1


def test_a_figure_of_one_run_only_is_shown(tmp_path, capsys) -> None:
    found = figures(1.0)
    del found["code_usage"]
    first, second = run(tmp_path / "a", found), run(tmp_path / "b", figures(1.0))
    assert main([f"old={first}", f"new={second}"]) == 0
    assert re.search(r"code_usage\s*│\s*-\s*│", capsys.readouterr().out)


def many_runs(folder: Path) -> tuple[list[str], list[str]]:
    """Figures whose names differ at their ends, of more runs than fit on a screen; the names."""
    one = figures(1.0)["mse"]
    names = [f"frechet_classifier{end}" for end in ("", "_floor", "_infinity", "_infinity_floor")]
    found = {name: replace(one, name=name) for name in names}
    return [f"run{i}={run(folder / f'run{i}', found)}" for i in range(6)], names


def cells(shown: str, column: int) -> list[str]:
    rows = [line.split("│") for line in shown.splitlines() if line.count("│") > column + 1]
    return [row[column + 1].strip() for row in rows]


def test_in_a_pipe_nothing_is_cut_or_folded(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    runs, names = many_runs(tmp_path)
    assert main(runs) == 0
    shown = capsys.readouterr().out
    assert cells(shown, 0) == names
    assert cells(shown, 6) == ["1 [0.9, 1.1]  N 17"] * len(names)


def test_on_a_narrow_terminal_names_are_folded_and_not_cut(tmp_path, capsys, monkeypatch) -> None:
    runs, names = many_runs(tmp_path)
    # A dumb one has 80 columns and no colours.
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert main(runs) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert "".join(cells(shown, 0)) == "".join(names)
    assert "".join(cells(shown, 1)).replace(" ", "") == "1[0.9,1.1]N17" * len(names)


def test_names_are_shown_as_they_are(tmp_path, capsys) -> None:
    found = figures(1.0)
    found["mse"] = replace(found["mse"], unit="intensity [bold]")
    first = run(tmp_path / "a", found)
    assert main([f"x[/red]={first}", f"[red]y={first}"]) == 0
    shown = capsys.readouterr().out
    assert " x[/red] " in shown and " [red]y " in shown and " intensity [bold] " in shown


def test_what_is_no_run_is_told_in_one_message(tmp_path, capsys) -> None:
    first = run(tmp_path / "a", figures(1.0))
    assert main([first, str(tmp_path / "b")]) == 1
    assert "no such file" in capsys.readouterr().err
    assert main([first, first]) == 1
    assert "NAME=PATH" in capsys.readouterr().err
    assert main([first, "--html", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert told.err.endswith(f"--html: must be a file to write; got the folder {tmp_path}\n")
    assert not told.out
    assert main([first, "--html", str(tmp_path / "nowhere/page.html")]) == 1
    assert "No such file" in capsys.readouterr().err


def test_the_page_shows_runs_side_by_side_and_loads_nothing(tmp_path) -> None:
    other = figures(2.0)
    other["code_usage"] = replace(other["code_usage"], n=9)
    first = run(tmp_path / "a", figures(1.0), width=64)
    second = run(tmp_path / "b", other, width=96)
    pages = []
    for name in ("one.html", "two.html"):
        command = [f"old={first}", f"new & bold={second}", "--html", str(tmp_path / name)]
        assert main(command) == 0
        pages.append((tmp_path / name).read_text())
    page = pages[0]
    assert pages[1] == page
    assert page.count('class="best"') == 1 and "(!)" in page
    assert "code_usage: old | new &amp; bold not comparable: n: 17 | 9" in page
    assert page.count("<img") == 2 and "new & bold" not in page
    assert all(s.startswith("data:image/png") for s in re.findall(r'src="([^"]*)"', page))
    # Only what differs.
    assert "<td>backbone.width</td><td>64</td><td>96</td>" in page
    assert "backbone.depth" not in page
