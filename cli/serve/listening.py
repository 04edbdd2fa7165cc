"""A uvicorn server that tells where it listens."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn


class ListeningServer(uvicorn.Server):
    """Calls `tell` once it listens: with its address, such as "http://127.0.0.1:8000", or None for a Unix socket."""

    def __init__(self, config: uvicorn.Config, tell: Callable[[str | None], None]) -> None:
        super().__init__(config)
        self._tell = tell

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn does, then tell."""
        await super().startup(sockets)
        if not self.started:
            return
        if self.config.uds is not None:
            self._tell(None)
            return
        address, port = self.servers[0].sockets[0].getsockname()[:2]
        self._tell(f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}")
