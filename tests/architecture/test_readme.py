"""What the README promises exists."""

import re

from stages.core.sections import read_yaml
from stages.registry import FAMILIES
from tests.architecture.imports import PROJECT

README = (PROJECT / "README.md").read_text(encoding="utf-8")
PAGES = [
    PROJECT / "README.md",
    PROJECT / "CONTRIBUTING.md",
    *sorted((PROJECT / "docs").glob("*.md")),
]


def test_files_it_names_exist():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        named = set(re.findall(r"`((?:stages|pipelines|tests|docs|benchmarks)/[\w./-]+)`", text))
        named |= set(re.findall(r"\]\(((?!http)[\w./-]+)\)", text))
        for name in named:
            there = (PROJECT / name, page.parent / name)
            assert name.isupper() or any(path.exists() for path in there) or "NAME" in name, (
                page.name,
                name,
            )


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for target in re.findall(r"`make ([a-z-]+)`", page.read_text(encoding="utf-8")):
            assert target in targets, (page.name, target)


def test_the_stage_table_is_dvc_yaml():
    stages = read_yaml(PROJECT / "dvc.yaml")["stages"]
    table = re.findall(r"^\| `(\w+)` \| [^|]+ \| `data/(\w+)` \|", README, re.MULTILINE)
    assert table == [(name, entry["outs"][0].split("/")[1]) for name, entry in stages.items()]


def test_the_family_table_is_the_registry():
    rows = re.findall(r"^\| `\w+` \| `stages/(\w+)` \| (.+) \|$", README, re.MULTILINE)
    assert {name: set(re.findall(r"`(\w+)`", members)) for name, members in rows} == {
        name: set(members) for name, members in FAMILIES.items()
    }


def test_every_preset_opens_with_what_it_is_and_how_to_run_it():
    for path in (PROJECT / "pipelines/presets").glob("*.yaml"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith("# ")
        assert lines[1] == f"# python -m pipelines run --preset {path.stem}"
        assert f"`{path.stem}`" in README or f"--preset {path.stem}" in README


def test_the_preset_of_the_demo_is_params_yaml_as_checked_out():
    """Families and sweeps of digits stand on it, whatever params.yaml has become."""
    defaults = read_yaml(PROJECT / "params.yaml")
    preset = read_yaml(PROJECT / "pipelines/presets/digits_vq.yaml")
    assert {**preset, **defaults} == defaults


def test_every_preset_says_all_that_its_figures_hang_on():
    """A section it left out would stay what somebody has made of it before."""
    sections = read_yaml(PROJECT / "params.yaml").keys() - {"seed", "device", "compute"}
    for path in (PROJECT / "pipelines/presets").glob("*.yaml"):
        assert read_yaml(path).keys() == sections, path.stem
