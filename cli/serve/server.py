"""Runs the application in uvicorn until a signal ends it."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Callable

from phi3v.errors import MissingDependencyError
from phi3v.machine.install import install_line
from phi3v.models.folder import ModelDir

from .settings import Settings

DRAIN_S = 60
"""The longest that answers may take that run when the server is told to end."""

_MOST_CONNECTIONS = 1024


def run_server(
    settings: Settings, folder: ModelDir, *, host: str, port: int, uds: str | None, say: Callable[[str], None]
) -> None:
    """Serve a model folder until SIGINT or SIGTERM, which let running answers end first. Raises Phi3VError."""
    try:
        import uvicorn

        from .app import make_app
    except ImportError as exc:
        raise MissingDependencyError(f"phi3v serve needs {exc.name}; run: {install_line('serve')}") from exc

    class Server(uvicorn.Server):
        """Says where it listens."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started and uds is None:
                at = self.servers[0].sockets[0].getsockname()[:2]
                name = f"[{at[0]}]" if ":" in at[0] else at[0]
                say(f"{folder.name} at http://{name}:{at[1]}/v1 (OpenAI) and http://{name}:{at[1]} (Ollama)")
            elif self.started:
                say(f"{folder.name} at {uds}")

    logging.getLogger("phi3v.serve").setLevel(logging.INFO)
    config = uvicorn.Config(
        make_app(settings, folder),
        host=host,
        port=port,
        uds=uds,
        http="h11",  # bounds request lines and headers
        access_log=False,
        log_level="warning",
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=DRAIN_S,
        server_header=False,
    )
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # uvicorn's own handler drains, then raises the signal once more
    Server(config).run()
