"""Serves the tools over streamable HTTP, behind the same guard as `phi3v serve`."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

from ..serve.guard import Guard


def run_http(
    server: MCPServer[Any],
    *,
    host: str,
    port: int,
    api_key: str | None,
    hosts: Sequence[str],
    say: Callable[[str], None],
) -> None:
    """Serve until SIGINT or SIGTERM."""
    # Our guard takes the place of the package's, which knows no names but those of this machine.
    unguarded = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    app = Guard(server.streamable_http_app(host=host, transport_security=unguarded), api_key, hosts, ())

    class Server(uvicorn.Server):
        """Says where it listens."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                address, number = self.servers[0].sockets[0].getsockname()[:2]
                name = f"[{address}]" if ":" in address else address
                say(f"tools at http://{name}:{number}/mcp")

    Server(uvicorn.Config(app, host=host, port=port, access_log=False, log_level="warning", server_header=False)).run()
