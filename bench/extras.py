"""Checks, before a measurement begins, that the heavy packages it needs are installed."""

from __future__ import annotations

from importlib.util import find_spec

from ..errors import MissingDependencyError
from ..machine.install import install_line


def require_extra(extra: str, *modules: str) -> None:
    """Raise MissingDependencyError, which names the extra, if one of its modules is not installed."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise MissingDependencyError(f"this needs {' and '.join(missing)}; run: {install_line(extra)}")
