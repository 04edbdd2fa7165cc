"""Serves the tools over streamable HTTP, behind the same guard as `phi3v serve`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

from ..serve.guard import Guard
from ..serve.listening import ListeningServer


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

    config = uvicorn.Config(app, host=host, port=port, access_log=False, log_level="warning", server_header=False)
    ListeningServer(config, lambda url: say(f"tools at {url}/mcp")).run()
