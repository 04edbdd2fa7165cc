"""One finding of `phi3v doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "note", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `remedy` is what to do about it; empty if there is nothing to do."""

    name: str
    status: Status
    detail: str
    remedy: str = ""
