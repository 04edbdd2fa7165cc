"""Registers phi3v's models with `llm`. Its entry point names this file; nothing of ours that takes time loads here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import llm

from phi3v.models.local import BUILTIN_NAME, PUBLISHED_NAMES, local_models

from .model import Phi3VModel

_PREFIX = "phi3v"


@llm.hookimpl
def register_models(register: Callable[..., None], model_aliases: Any) -> None:
    """`phi3v` is what `phi3v ask` takes, `phi3v/NAME` the built-in model, a published or a pulled one."""
    register(Phi3VModel(_PREFIX, None))
    for name in dict.fromkeys(_names()):
        register(Phi3VModel(f"{_PREFIX}/{name}", name), aliases=(name,) if name in PUBLISHED_NAMES else ())


def _names() -> Iterator[str]:
    yield BUILTIN_NAME
    yield from PUBLISHED_NAMES
    with contextlib.suppress(OSError):  # a cache that cannot be read must not end every `llm` command
        for model in local_models():
            yield model.name
            yield model.full_name
