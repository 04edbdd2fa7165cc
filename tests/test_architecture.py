"""The shape of the package: what is public, which way imports point, who imports genai, what import costs."""

import ast
import subprocess
import sys
from importlib.util import resolve_name

import pytest
from places import ROOT

import phi3v

ALLOWED = {
    "runtime": set(),
    "export": {"runtime"},
    "bench": {"runtime", "export"},
    "cli": {"runtime", "export", "bench"},
}


def imported_folders(source: str, package: str) -> set[str]:
    """Our own folders that a module of `package` imports from, by whatever spelling."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            names += [f"{module}.{alias.name}" for alias in node.names]  # what is imported may be a module itself
    ours = [parts[1:] for name in names if (parts := name.split("."))[0] == "phi3v"]
    return {parts[0] if parts and parts[0] in ALLOWED else "runtime" for parts in ours}


@pytest.mark.parametrize(
    ("package", "source", "folder"),
    [
        ("phi3v", "from .export.build import export_model", "export"),
        ("phi3v", "from .cli import main", "cli"),
        ("phi3v", "from . import export", "export"),
        ("phi3v", "import phi3v.export.build", "export"),
        ("phi3v", "from phi3v import export", "export"),
        ("phi3v", "from .errors import Phi3VError", "runtime"),
        ("phi3v.export", "from .. import cli", "cli"),
        ("phi3v.export", "from ..bench import reference", "bench"),
        ("phi3v.export", "from phi3v import cli", "cli"),
        ("phi3v.export", "from . import dims", "export"),
        ("phi3v.export", "from ..errors import Phi3VError", "runtime"),
        ("phi3v.export.nano", "from ...cli import main", "cli"),
    ],
)
def test_every_spelling_of_an_import_is_seen(package: str, source: str, folder: str) -> None:
    assert imported_folders(source, package) == {folder}


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_point_one_way(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        package = ".".join(["phi3v", *path.parent.relative_to(ROOT / "runtime" if folder == "runtime" else ROOT).parts])
        assert imported_folders(path.read_text(), package) - {folder} <= ALLOWED[folder], path


def test_one_file_of_the_runtime_imports_genai() -> None:
    ours = [path for folder in ALLOWED for path in (ROOT / folder).rglob("*.py")]
    naming = [p for p in ours if 'import_module("onnxruntime_genai")' in p.read_text()]
    importing = [p for p in ours if "import onnxruntime_genai\n" in p.read_text()]
    assert naming == [ROOT / "runtime" / "genai" / "backend.py"]
    assert importing == []


def test_the_public_names_are_these_eleven() -> None:
    assert phi3v.__all__ == sorted(phi3v.__all__)
    assert len(phi3v.__all__) == 11
    assert all(getattr(phi3v, name) for name in phi3v.__all__)
    assert set(phi3v.__all__) <= set(dir(phi3v))


def test_help_loads_neither_numpy_nor_an_engine() -> None:
    code = (
        "import sys; from phi3v.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'onnxruntime', 'onnxruntime_genai', 'torch', 'PIL', 'tokenizers', 'llguidance'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr.strip() == "[]"
    assert "Ask Phi-3-vision" in run.stdout
