"""The shape of the package: what is public, which way imports point, who imports genai, what import costs."""

import subprocess
import sys
import tomllib

import pytest
from import_graph import find_circle, import_graph, imported_names, modules
from pages import DOCS, code_blocks, defines, named_definitions, named_paths, section, table_rows, tree_paths
from places import ROOT
from processes import PHI3V

import phi3v

ALLOWED = {
    "runtime": set(),
    "export": {"runtime"},
    "bench": {"runtime", "export"},
    "cli": {"runtime", "export", "bench"},
}
MAIN_MODULE = ROOT / "runtime" / "__main__.py"
"""`python -m phi3v`: the one file of runtime/ that imports cli/, because Python looks for it in the package itself."""


LAYERS = (
    ("errors", "closing"),
    ("answer_format", "machine"),
    ("images",),
    ("types",),
    ("options", "hd", "tokenizer", "sampling"),
    ("prompt", "structured"),
    ("models",),
    ("backend",),
    ("conversation",),
    ("prepare",),
    ("answer", "genai"),
    ("stream", "batch"),
    ("session",),
    ("process",),
    ("engine",),
    ("async_engine", "ray_data"),
)
"""The files and folders of runtime/, lowest first: each imports from lower layers only."""


def imported_folders(source: str, package: str) -> set[str]:
    """Our own folders that a module of `package` imports from, by whatever spelling."""
    ours = [parts[1:] for name in imported_names(source, package) if (parts := name.split("."))[0] == "phi3v"]
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
        allowed = ALLOWED[folder] | ({"cli"} if path == MAIN_MODULE else set())
        assert imported_folders(path.read_text(), package) - {folder} <= allowed, path


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module: imported - {"phi3v"} for module, imported in import_graph().items()}
    assert find_circle(graph) == []


def test_a_circle_of_imports_is_found() -> None:
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": set()}) == ["a", "b", "c", "a"]
    assert find_circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_the_layers_of_the_runtime_import_downwards_only() -> None:
    height = {room: layer for layer, rooms in enumerate(LAYERS) for room in rooms}
    upwards = []
    for module, imported in import_graph().items():
        room = module.split(".")[1] if "." in module else ""
        if room not in height:
            assert room in ("", "__main__", *ALLOWED), f"{module} has no layer; give it one here"
            continue
        rooms = {name.split(".")[1] for name in imported if "." in name} - {room}
        upwards += [(module, other) for other in rooms if height.get(other, len(LAYERS)) >= height[room]]
    assert upwards == []


def test_at_most_twenty_files_lie_directly_in_the_runtime() -> None:
    assert len(list((ROOT / "runtime").glob("*.py"))) <= 20


def test_every_folder_of_ours_is_a_package_that_is_shipped() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    ours = {name for name, path in modules().items() if path.name == "__init__.py"}
    assert set(listed) == ours | {"phi3v.examples"}  # images, which the web page shows


def test_one_file_of_the_runtime_imports_genai() -> None:
    importing = set()
    for module, path in modules().items():
        source = path.read_text(encoding="utf-8")
        package = module if path.stem == "__init__" else module.rpartition(".")[0]
        named = any(name.split(".")[0] == "onnxruntime_genai" for name in imported_names(source, package))
        if named or 'import_module("onnxruntime_genai' in source:
            importing.add(path.relative_to(ROOT).as_posix())
    assert importing == {
        "runtime/genai/model.py",
        "export/decoder_builder.py",
    }  # the exporter takes genai's model builder


def test_the_public_names_are_these_eighteen() -> None:
    assert phi3v.__all__ == sorted(phi3v.__all__)
    assert len(phi3v.__all__) == 18
    assert all(getattr(phi3v, name) for name in phi3v.__all__)
    assert dir(phi3v) == phi3v.__all__


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


def test_warm_engines_know_no_click() -> None:
    modules = [f"phi3v.cli.warm.{path.stem}" for path in (ROOT / "cli" / "warm").glob("[a-z]*.py")]
    code = f"import sys, {', '.join(modules)}\nprint('click' in sys.modules)"
    run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


def test_python_runs_the_package_as_the_command_line() -> None:
    run = subprocess.run([*PHI3V, "--version"], capture_output=True, text=True, check=True)
    assert run.stdout == f"phi3v, version {phi3v.__version__}\n"


MAP = (DOCS / "architecture.md").read_text(encoding="utf-8")
TREE = tree_paths(code_blocks(section(MAP, "The tree"), "text")[0])


def test_one_file_of_the_runtime_imports_llguidance() -> None:
    ours = [path for folder in ALLOWED for path in (ROOT / folder).rglob("*.py")]
    importing = [path for path in ours if 'import_module("llguidance")' in path.read_text(encoding="utf-8")]
    assert importing == [ROOT / "runtime" / "structured" / "constraint.py"]


def test_every_path_that_the_map_names_exists() -> None:
    assert sorted(path for path in TREE | named_paths(MAP) if not (ROOT / path).exists()) == []


def test_the_map_names_every_module() -> None:
    ours = {path.relative_to(ROOT).as_posix() for path in modules().values() if path.name != "__init__.py"}
    assert sorted(path for path in ours - TREE if not path.startswith("export/nano/")) == []


def test_every_name_that_the_map_gives_with_its_file_is_defined_there() -> None:
    named = list(named_definitions(MAP))
    assert len(named) > 50
    assert [(name, file) for name, file in named if not defines(ROOT / file, name)] == []


def test_the_map_draws_the_layers_that_are_checked() -> None:
    rooms = [tuple(cell.replace("`", "").split(", ")) for _, cell, _ in table_rows(section(MAP, "Layers"))]
    assert tuple(rooms) == LAYERS


def test_every_change_that_the_map_places_names_files_and_tests() -> None:
    rows = table_rows(section(MAP, "To change X, touch Y"))
    assert len(rows) >= 15
    assert [change for change, touched, _ in rows if not named_paths(touched)] == []
    assert [change for change, _, tests in rows if "`tests/" not in tests and "`.ci/run`" not in tests] == []


def test_the_command_line_page_is_what_help_says() -> None:
    run = subprocess.run([sys.executable, ROOT / "scripts" / "docs", "--check"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
