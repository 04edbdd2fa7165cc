"""`phi3v mcp`: tools that look at images, over standard input and output or over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..notices import say
from ..options import device_option, model_option

if TYPE_CHECKING:
    from phi3v.machine.device_table import DeviceName


@click.command("mcp")
@model_option
@device_option
@click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="The folder whose images the tools may read; no other file is opened.",
)
@click.option("--http", "over_http", is_flag=True, help="Serve streamable HTTP instead of standard input and output.")
@click.option("--host", default="127.0.0.1", show_default=True, help="With --http: the address to listen at.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8001, show_default=True, help="With --http: 0 is any that is free."
)
@click.option("--api-key", envvar="PHI3V_API_KEY", show_envvar=True, help="With --http: clients must send this key.")
@click.option(
    "--allow-host", "hosts", multiple=True, metavar="NAME", help="With --http: a name this server is called by."
)
def mcp_command(
    model: str | None,
    device: DeviceName | None,
    root: Path,
    over_http: bool,
    host: str,
    port: int,
    api_key: str | None,
    hosts: tuple[str, ...],
) -> None:
    """Offer the model to agents, as tools of the Model Context Protocol: look, extract and compare.

    An agent starts this command itself; its settings name the command and the folder:

    \b
    phi3v mcp --model nano --root ~/Pictures
    phi3v mcp --root ~/Pictures --http
    """
    from phi3v.errors import MissingDependencyError
    from phi3v.machine.install import install_line
    from phi3v.models.folder import ModelDir
    from phi3v.models.local import resolve_model

    try:
        from .http import run_http
        from .tools import make_server
    except ImportError as exc:
        raise MissingDependencyError(f"phi3v mcp needs {exc.name}; run: {install_line('mcp')}") from exc
    if api_key == "":
        raise click.UsageError("the API key is empty; leave out --api-key, and unset PHI3V_API_KEY, for none")
    folder = ModelDir.open(resolve_model(model, device or "auto"))
    server = make_server(folder, device, root)
    if not over_http:
        server.run()
        return
    if host not in ("127.0.0.1", "localhost", "::1") and api_key is None:
        say(f"anybody who reaches {host} can read the images in {root}; --api-key KEY keeps strangers out")
    run_http(server, host=host, port=port, api_key=api_key, hosts=hosts, say=say)
