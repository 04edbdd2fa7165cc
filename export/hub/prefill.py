"""int8 prefill for a pulled int4 build: a second model beside it, which shares its bytes."""

from __future__ import annotations

from dataclasses import replace

from ...errors import MissingDependencyError, OptionError
from ...machine.install import install_line
from ...models.local import INT8_PREFILL, LocalModel, find_local
from ...models.manifest import Manifest
from ..progress import Progress
from .pull import is_intact

_FOLDER = "int8-prefill"
"""Inside the pulled build's folder."""


def can_have_prefill(model: LocalModel) -> bool:
    """Whether int8 prefill is for this build: int4, for the CPU, and without it so far."""
    return model.variant == "cpu-int4"


def add_prefill(model: LocalModel, progress: Progress | None = None) -> LocalModel:
    """Make the model beside a pulled one, unless it is there and complete.

    Raises OptionError for another build, MissingDependencyError without onnx, and what `add_int8_prefill` raises.
    """
    if not can_have_prefill(model):
        raise OptionError(f"int8 prefill is for cpu-int4 builds, and this is {model.full_name}; leave --prefill out")
    name, folder = f"{model.name}:{model.variant}-{INT8_PREFILL}", model.path / _FOLDER
    for there in find_local(name):
        if there.path == folder and there.commit == model.commit and is_intact(there):
            return there
    try:
        from ..from_model import add_int8_prefill
    except ImportError as exc:
        raise MissingDependencyError(
            f"int8 prefill needs {exc.name}, which is not installed; run `{install_line('cpu', 'export')}`"
        ) from exc
    add_int8_prefill(model.path, folder, overwrite=True, progress=progress)
    origin, made = Manifest.read(model.path).origin, Manifest.read(folder)
    assert origin is not None
    more = made.nbytes - model.nbytes
    theirs = replace(origin, variant=f"{model.variant}-{INT8_PREFILL}", memory_bytes=origin.memory_bytes + more)
    replace(made, name=model.name, origin=theirs).write(folder)
    return next(there for there in find_local(name) if there.path == folder)
