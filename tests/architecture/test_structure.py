"""The house: imports point down, the registry is complete, families stay families."""

import ast
import importlib

import pytest

from stages.core.sections import MemberOptions, load_member
from stages.registry import FAMILIES
from tests.architecture.imports import PROJECT, imported_files, imported_names, sources

# Floors of stages/: a file may import from its own floor and from those below.
FLOORS = {
    "core": 0,
    "nn": 1,
    "files": 1,
    "datasets": 2,
    "backbones": 2,
    "bottlenecks": 2,
    "likelihoods": 2,
    "heads": 2,
    "objectives": 2,
    "autoencoders": 3,
    "priors": 3,
    "stores": 3,
    "metrics": 4,
    "training": 4,
    "tasks": 4,
    "assembly": 4,
    "extractors": 4,
    "coding": 5,
    "completion": 5,
    "encoding": 5,
    "sampling": 5,
    "evaluation": 5,
    "comparing": 5,
    "serving": 6,
    "page": 7,
}
PROGRAMS = 8
# And those of pipelines/, above all of stages/.
FLOORS_OF_FLOWS = {
    "settings": 9,
    "workspace": 10,
    "records": 11,
    "machine": 12,
    "comparing": 13,
    "promoting": 13,
    "sweeping": 13,
}
FLOWS = 14


def floor(path):
    house, *parts = path.relative_to(PROJECT).parts
    floors, roof = (FLOORS, PROGRAMS) if house == "stages" else (FLOORS_OF_FLOWS, FLOWS)
    return floors[parts[0]] if len(parts) > 1 else roof


@pytest.mark.parametrize(
    "path", sources("stages") + sources("pipelines"), ids=lambda p: str(p.relative_to(PROJECT))
)
def test_imports_point_down(path):
    for imported in imported_files(path):
        name = imported.relative_to(PROJECT)
        assert floor(imported) <= floor(path), f"{path} imports {name} from a floor above"


def test_members_do_not_import_their_siblings():
    for family, kinds in FAMILIES.items():
        for kind in kinds:
            path = PROJECT / "stages" / family / f"{kind}.py"
            for other in set(kinds) - {kind}:
                assert f"stages.{family}.{other}" not in imported_names(path), (path, other)


def test_layers_keep_to_their_tools():
    for path in sources("stages"):
        names = {name.partition(".")[0] for name in imported_names(path)}
        assert not names & {"prefect", "dvc"}, f"{path}: stages know neither Prefect nor DVC"
        if "mlflow" in names:
            known = path.parent.name in ("core", "serving")
            assert known or path.name == "upload_history.py", path
    for path in sources("pipelines"):
        assert "torch" not in imported_names(path), f"{path}: flows run stages as processes"


@pytest.mark.parametrize("family", FAMILIES)
def test_registry_lists_every_file_and_no_other(family):
    folder = PROJECT / "stages" / family
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "base"}
    assert set(FAMILIES[family]) == files


@pytest.mark.parametrize("path", sources("stages"), ids=lambda p: str(p.relative_to(PROJECT)))
def test_every_file_says_what_it_is_and_packages_hold_nothing_else(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{path}: a module opens with its idea"
    # stages/__init__.py says how threads wait, before torch is imported; it changes no number.
    if path.name == "__init__.py" and path.parent.name != "stages":
        assert len(tree.body) == 1, f"{path}: DVC does not watch packages; keep them empty"


def members():
    return [(family, kind) for family, kinds in FAMILIES.items() for kind in kinds]


@pytest.mark.parametrize(("family", "kind"), members())
def test_a_member_is_one_class_and_its_documented_options(family, kind):
    base = importlib.import_module(f"stages.{family}.base")
    [options_base] = [
        v
        for v in vars(base).values()
        if isinstance(v, type) and issubclass(v, MemberOptions) and v.__module__ == base.__name__
    ]
    options = options_base.of_kind(kind)
    assert options.model_fields["kind"].annotation.__args__ == (kind,)
    assert all(field.is_required() for field in options.model_fields.values()), "no hidden defaults"
    names = {"datasets": "ImageSource", "autoencoders": "Autoencoder"}
    abstract = getattr(base, names.get(family, family.removesuffix("s").capitalize()))
    assert load_member(abstract, kind).__doc__


def test_sizes_stay_readable():
    for path in sources("stages") + sources("pipelines"):
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 350, f"{path}: one idea per file"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{path}: {node.name} is too long"


def _calls(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {word.arg: word.value for word in node.keywords}


@pytest.mark.parametrize("folder", ["stages", "pipelines", "benchmarks"])
def test_no_shell_no_pickled_code_no_eval(folder):
    """What a file of somebody else could run; see docs/security.md."""
    forbidden = {"eval", "exec", "os.system", "os.popen", "subprocess.getoutput", "input"}
    for path in sources(folder):
        assert "marshal" not in imported_names(path) and "shelve" not in imported_names(path), path
        for name, keywords in _calls(path):
            assert name not in forbidden, f"{path}: {name}"
            assert not name.startswith("pickle.load"), f"{path}: {name}"
            assert "shell" not in keywords, f"{path}: a command is a list of words"
            if name == "torch.load":
                assert ast.unparse(keywords["weights_only"]) == "True", path
            if name == "np.load" and "allow_pickle" in keywords:
                assert ast.unparse(keywords["allow_pickle"]) == "False", path
