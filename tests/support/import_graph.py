"""Which of our modules imports which, read off the source: at any level, in functions and for types too."""

import ast
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

from places import ROOT

FOLDERS = ("runtime", "export", "cli", "bench")


def module_name(path: Path) -> str:
    """A file's name as it is imported: "runtime/genai/model.py" is "phi3v.genai.model"."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[1:] if parts[0] == "runtime" else parts
    return ".".join(["phi3v", *(parts[:-1] if parts[-1] == "__init__" else parts)])


def modules() -> dict[str, Path]:
    """Every module of ours by its name."""
    return {module_name(path): path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}


def imported_names(source: str, package: str) -> Iterator[str]:
    """Every dotted name that a module of `package` imports, with `from a import b` as "a.b"."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{module}.{alias.name}" for alias in node.names)  # what is imported may be a module itself


def import_graph() -> dict[str, set[str]]:
    """Each module of ours with those of ours that it imports, itself left out."""
    known = modules()
    graph = {}
    for name, path in known.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        found = {_module_of(imported, known) for imported in imported_names(path.read_text(encoding="utf-8"), package)}
        graph[name] = {module for module in found if module is not None} - {name}
    return graph


def _module_of(imported: str, known: dict[str, Path]) -> str | None:
    """The module that a dotted name lies in."""
    parts = imported.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((name for name in names if name in known), None)


def find_circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle; empty when there is none."""
    done: set[str] = set()

    def visit(module: str, trail: list[str]) -> list[str]:
        if module in trail:
            return [*trail[trail.index(module) :], module]
        if module in done:
            return []
        for imported in sorted(graph.get(module, ())):
            if circle := visit(imported, [*trail, module]):
                return circle
        done.add(module)
        return []

    return next((circle for module in sorted(graph) if (circle := visit(module, []))), [])
