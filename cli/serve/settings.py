"""What a server is told when it starts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from phi3v.machine.device_table import DeviceName

MAX_BODY_BYTES = 64 << 20
"""The most bytes of a request: a 48 MiB image file in base64."""

BODY_TIMEOUT_S = 60.0
"""The longest that a client may take to send a request."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`max_queue`: requests that may wait or run at a time. `keep_alive_s`: how long an idle model stays loaded."""

    model: str | None = None
    device: DeviceName | None = None
    api_key: str | None = None
    keep_alive_s: float = math.inf
    max_queue: int = 64
    max_memory: int | None = None
    media_domains: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    """Names beside `localhost` and addresses that a Host header may have."""
    cors_origins: tuple[str, ...] = ()
    body_timeout_s: float = BODY_TIMEOUT_S
