"""The shape of the package: what is public, which way imports point, who imports genai, what import costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import phi3v

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "runtime": set(),
    "export": {"runtime"},
    "bench": {"runtime", "export"},
    "cli": {"runtime", "export", "bench"},
}


def imported_folders(path: Path, folder: str) -> set[str]:
    """Our own folders that a file imports from."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            up = node.level - (1 if folder == "runtime" else 2)
            names = [f"phi3v.{node.module}"] if up == 0 and folder != "runtime" else [node.module or ""]
            if node.level and up != 0:
                continue  # its own folder
        for name in names:
            parts = name.split(".")
            if parts[0] == "phi3v":
                found.add(parts[1] if len(parts) > 1 and parts[1] in ALLOWED else "runtime")
    return found


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_point_one_way(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        assert imported_folders(path, folder) - {folder} <= ALLOWED[folder], path


def test_one_file_of_the_runtime_imports_genai() -> None:
    naming = [p.name for p in (ROOT / "runtime").glob("*.py") if 'import_module("onnxruntime_genai")' in p.read_text()]
    importing = [p for p in ROOT.glob("[rceb]*/*.py") if "import onnxruntime_genai\n" in p.read_text()]
    assert naming == ["genai.py"]
    assert importing == []


def test_the_public_names_are_these_ten() -> None:
    assert phi3v.__all__ == sorted(phi3v.__all__)
    assert len(phi3v.__all__) == 10
    assert all(getattr(phi3v, name) for name in phi3v.__all__)


def test_help_loads_neither_numpy_nor_an_engine() -> None:
    code = (
        "import sys; from phi3v.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'onnxruntime', 'onnxruntime_genai', 'torch', 'PIL', 'tokenizers'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr.strip() == "[]"
    assert "Ask Phi-3-vision" in run.stdout
