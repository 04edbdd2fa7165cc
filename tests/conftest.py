"""What tests of several folders need, and what becomes of tests whose packages are not installed."""

import re
import signal
from importlib.util import find_spec
from pathlib import Path

import pytest
from exports import Exports

TESTS = Path(__file__).parent
EXPORT_EXTRA = ("torch", "transformers", "safetensors", "onnx", "onnx_ir", "ml_dtypes")
MISSING = [name for name in EXPORT_EXTRA if find_spec(name) is None]
MODULE_MARK = re.compile(r"^pytestmark = (\[[^\]]*)?pytest\.mark\.torch\b", re.MULTILINE)


if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell starts what runs in its background so, and the processes whose Ctrl-C is tested would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def marked_torch(module: Path) -> bool:
    """Whether a module as a whole is marked `torch`; read from its text, since it may not import."""
    return MODULE_MARK.search(module.read_text(encoding="utf-8")) is not None


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out modules marked `torch` where the export extra is not installed."""
    if MISSING and collection_path.suffix == ".py" and marked_torch(collection_path):
        return True
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out single tests marked `torch` likewise."""
    if MISSING and (unable := [item for item in items if item.get_closest_marker("torch")]):
        config.hook.pytest_deselected(items=unable)
        items[:] = [item for item in items if item not in unable]


def pytest_report_header() -> list[str]:
    """Say what is left out, and what to install for it."""
    if not MISSING:
        return []
    modules = sum(map(marked_torch, TESTS.rglob("test_*.py")))
    return [
        f"{modules} test modules and single tests marked torch are left out ({', '.join(MISSING)} not installed); "
        "for them: pip install 'phi3v[cpu,export]'"
    ]


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """Tiny models, made once for all that ask for the same; modules that use it are marked `torch`."""
    return Exports(tmp_path_factory.mktemp("exports"))


@pytest.fixture(scope="session")
def fonts() -> None:
    """The two font families that nano's images are drawn with; a machine may lack them."""
    from phi3v.errors import MissingDependencyError
    from phi3v.export.nano.fonts import FACES, Font

    try:
        for face in FACES:
            Font(face, 20).width("a")
    except MissingDependencyError as exc:
        pytest.skip(str(exc))
