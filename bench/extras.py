"""Whether the heavy packages are here that a measurement needs, asked before it begins."""

from __future__ import annotations

from importlib.util import find_spec

from ..errors import MissingDependencyError


def require_extra(extra: str, *modules: str) -> None:
    """Raise MissingDependencyError that names the extra when one of its modules cannot be imported."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise MissingDependencyError(f"this needs {' and '.join(missing)}; run: pip install 'phi3v[{extra}]'")
