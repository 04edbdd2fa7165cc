"""What the tests on the fake CUDA (tests/gpu/fake/README.md) and their fixtures share."""

from collections.abc import Callable
from typing import Any

SWITCH = 512
"""Where LongRoPE's factors change in their models."""

Probe = Callable[..., Any]
"""`run_probe(FUNCTION, folder=..., ..., env={...})` returns what the function of probe.py returns."""
