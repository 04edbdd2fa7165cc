"""What a forked child may do with genai's objects: nothing, not even free them.

A fork copies the memory and none of the threads. genai's pools then wait for threads that are not there, also when an
object is freed, at the latest as Python ends. So a child keeps every object for ever, and is told so when it uses one.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import Any, TypeVar

from ..errors import InferenceError

T = TypeVar("T")

_made: weakref.WeakSet[Any] = weakref.WeakSet()


def track(native: T) -> T:
    """Remember an object of genai's, and return it."""
    _made.add(native)
    return native


def check_process(owner: int) -> None:
    """Raise InferenceError unless this process, and not its parent, is the `owner` of what is to be used."""
    if os.getpid() != owner:
        raise InferenceError(
            "this engine was loaded before a fork, and cannot be used or closed in the child; load the model in the "
            'child, or start processes with multiprocessing.get_context("spawn")'
        )


def _keep_all() -> None:
    for native in list(_made):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(native))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_all)
