"""Execution providers in packages of their own: where their libraries are, and what ONNX Runtime sees in them."""

from __future__ import annotations

import ctypes
import importlib
import sys
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import DeviceError, MissingDependencyError
from .cuda import install_command, installed
from .device_table import TABLE, DeviceKind, Plugin
from .install import install_line


def find_missing(row: DeviceKind) -> str | None:
    """What of a plugin's needs is not on this machine, and the command that brings it; None if all is there."""
    for package in row.packages:
        if not installed(package):
            return f"the package {package} is not installed; run: {install_command(row)}"
    library = row.library.get(sys.platform)
    if library is not None and not _loads(library):
        return f"the library {library} cannot be loaded; run: {row.install_library}"
    return None


def plugin_library(plugin: Plugin) -> Path:
    """The library that a plugin's package brings. Raises MissingDependencyError."""
    try:
        return Path(importlib.import_module(plugin.module).get_library_path())
    except (ImportError, OSError, RuntimeError) as exc:
        row = next(row for row in TABLE.values() if row.plugin == plugin)
        raise MissingDependencyError(
            f"{plugin.distribution} cannot be imported ({exc}); run: {install_command(row)}"
        ) from exc


@cache
def plugin_devices(plugin: Plugin) -> tuple[Any, ...]:
    """The devices that ONNX Runtime may use through a plugin, which is registered with it for good.

    genai has an ONNX Runtime environment of its own, so this changes nothing for it. Raises DeviceError or
    MissingDependencyError.
    """
    library = plugin_library(plugin)
    try:
        import onnxruntime
    except ImportError as exc:
        raise MissingDependencyError(f"onnxruntime cannot be imported ({exc}); run: {install_line('cpu')}") from exc
    try:
        onnxruntime.register_execution_provider_library(plugin.name, str(library))
    except Exception as exc:  # ONNX Runtime's errors have no class of their own to name
        if "already registered" not in str(exc):  # by somebody else in this process
            raise DeviceError(f"{plugin.distribution} does not load: {str(exc).splitlines()[0]}") from exc
    return tuple(device for device in onnxruntime.get_ep_devices() if device.ep_name == plugin.name)


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
