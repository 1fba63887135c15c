"""What imports what, read from the source as text."""

import ast
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


@cache
def imported_names(path: Path) -> frozenset[str]:
    """Dotted names a file imports; `from a import b` gives both a and a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module or ""}
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def module_file(name: str) -> Path | None:
    """File of a module of ours; None for others, for packages and for names inside modules."""
    path = PROJECT / (name.replace(".", "/") + ".py")
    return path if name.startswith(("stages.", "pipelines.")) and path.is_file() else None


@cache
def imported_files(path: Path) -> frozenset[Path]:
    """Our files that a file imports directly."""
    return frozenset(file for name in imported_names(path) if (file := module_file(name)))


def closure(*starts: Path) -> set[Path]:
    """All our files reached from `starts` by imports, the starts included."""
    found: set[Path] = set()
    waiting = list(starts)
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += imported_files(path)
    return found


def sources(folder: str) -> list[Path]:
    """Our source files below a folder."""
    return sorted((PROJECT / folder).rglob("*.py"))
