"""What is imported is declared: every third-party module belongs to a distribution that pyproject.toml names."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import ROOT

FOLDERS = ("runtime", "export", "cli", "bench", "tests")
ALWAYS_INSTALLED = ("runtime", "cli", "export/hub")
"""Folders that work without any extra."""

OPTIONAL_FILES = {
    file.relative_to(ROOT).as_posix()
    for folder in ("serve", "llm", "mcp")
    for file in (ROOT / "cli" / folder).rglob("*.py")
    if file.stem not in ("command", "settings", "server", "announce")
}
"""Files of those folders that may import at their top what only an extra brings, as nobody imports them without it."""

DISTRIBUTIONS = {"PIL": "pillow", "google": "protobuf"}
"""Where a module is called other than its distribution."""

OURS = {"phi3v", *(file.stem for file in (ROOT / "tests" / "support").glob("*.py"))}


def declared(requirements: list[str]) -> set[str]:
    """Names of the distributions in a list of requirements."""
    return {re.match(r"[\w.-]+", line)[0] for line in requirements}  # type: ignore[index]


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CORE = declared(PROJECT["dependencies"])
ALL = CORE.union(*(declared(extra) for extra in PROJECT["optional-dependencies"].values()))


def third_party(source: str, *, at_top: bool = False) -> set[str]:
    """Distributions whose modules a source imports, by a statement or by `import_module`; or only as it is loaded."""
    modules = {name.partition(".")[0] for node in _nodes(ast.parse(source), at_top) for name in _imported(node)}
    return {
        DISTRIBUTIONS.get(module, module.replace("_", "-"))
        for module in modules - OURS
        if module not in sys.stdlib_module_names
    }


def _nodes(node: ast.AST, at_top: bool) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _is_for_types_only(child)
        if not (at_top and later):
            yield from _nodes(child, at_top)


def _is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _imported(node: ast.AST) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=str(module), level=0):
            return [module]
        case ast.Call(
            func=ast.Name(id="import_module") | ast.Attribute(attr="import_module"),
            args=[ast.Constant(value=str(name))],
        ):
            return [name]
    return []


def sources(folder: str) -> Iterator[Path]:
    yield from (ROOT / folder).rglob("*.py")


@pytest.mark.parametrize(
    ("source", "everywhere", "at_top"),
    [
        ("import numpy.typing as npt", {"numpy"}, {"numpy"}),
        ("import json, httpx2", {"httpx2"}, {"httpx2"}),
        ("from PIL import Image", {"pillow"}, {"pillow"}),
        ("from . import numpy", set(), set()),
        ("from ..machine import torch", set(), set()),
        ("from phi3v.models import folder", set(), set()),
        ("def f():\n    import onnx_ir", {"onnx-ir"}, set()),
        ("class A:\n    import rich", {"rich"}, {"rich"}),
        ("try:\n    import rich\nexcept ImportError: pass", {"rich"}, {"rich"}),
        ("if TYPE_CHECKING:\n    import torch", {"torch"}, set()),
        ('def f():\n    return importlib.import_module("llguidance")', {"llguidance"}, set()),
        ('genai = import_module("onnxruntime_genai")', {"onnxruntime-genai"}, {"onnxruntime-genai"}),
    ],
)
def test_every_way_to_import_is_seen(source: str, everywhere: set[str], at_top: set[str]) -> None:
    assert third_party(source) == everywhere
    assert third_party(source, at_top=True) == at_top


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_is_imported_is_declared(folder: str) -> None:
    for path in sources(folder):
        assert third_party(path.read_text()) <= ALL, path


@pytest.mark.parametrize("folder", ALWAYS_INSTALLED)
def test_what_loads_without_an_extra_imports_core_dependencies_only(folder: str) -> None:
    for path in sources(folder):
        if str(path.relative_to(ROOT)) not in OPTIONAL_FILES:
            assert third_party(path.read_text(), at_top=True) <= CORE, path


def test_every_core_dependency_is_imported() -> None:
    imported = [third_party(path.read_text()) for folder in ALWAYS_INSTALLED for path in sources(folder)]
    assert set().union(*imported) >= CORE
