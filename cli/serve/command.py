"""`phi3v serve`: the APIs of OpenAI and Ollama over one model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..notices import say
from ..options import device_option, duration, model_option, size, threads_option

if TYPE_CHECKING:
    from phi3v.machine.device_table import DeviceName


@click.command("serve")
@model_option
@device_option
@threads_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; 0.0.0.0 is every one.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any that is free.")
@click.option("--uds", type=click.Path(), help="Listen on this Unix socket instead.")
@click.option("--api-key", envvar="PHI3V_API_KEY", show_envvar=True, help="Clients must send this key.")
@click.option(
    "--keep-alive",
    "keep_alive_s",
    type=duration,
    default="forever",
    show_default=True,
    help="How long an idle model stays loaded: 90s, 10m, 2h, forever.",
)
@click.option(
    "--max-queue",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Requests that wait or run at a time.",
)
@click.option(
    "--max-memory",
    type=size,
    metavar="SIZE",
    help="Memory for answers and images that were read, beside the model's own: 6GB. Default: half of what is free.",
)
@click.option(
    "--allow-media-domain",
    "media_domains",
    multiple=True,
    metavar="DOMAIN",
    help="Fetch images of this domain by URL; may be repeated. '*' is every public one. Default: none.",
)
@click.option(
    "--allow-host", "hosts", multiple=True, metavar="NAME", help="A name this server is called by; may be repeated."
)
@click.option("--open", "open_page", is_flag=True, help="Open the page in a browser.")
@click.option(
    "--cors-origin",
    "cors_origins",
    multiple=True,
    metavar="ORIGIN",
    help="Web pages of this origin may ask, such as https://example.org; may be repeated.",
)
def serve_command(
    model: str | None,
    device: DeviceName | None,
    host: str,
    port: int,
    uds: str | None,
    api_key: str | None,
    keep_alive_s: float,
    max_queue: int,
    max_memory: int | None,
    media_domains: tuple[str, ...],
    hosts: tuple[str, ...],
    cors_origins: tuple[str, ...],
    open_page: bool,
) -> None:
    """Serve the model as a web page, and to programs that speak OpenAI's or Ollama's API.

    \b
    phi3v serve --model nano --open
    curl http://127.0.0.1:8000/v1/models
    """
    from phi3v.models.folder import ModelDir
    from phi3v.models.local import resolve_model

    from .server import run_server
    from .settings import Settings

    if api_key == "":
        raise click.UsageError("the API key is empty; leave out --api-key, and unset PHI3V_API_KEY, for none")
    folder = ModelDir.open(resolve_model(model, device or "auto"))
    settings = Settings(
        device=device,
        api_key=api_key,
        keep_alive_s=keep_alive_s,
        max_queue=max_queue,
        max_memory=max_memory,
        media_domains=media_domains,
        hosts=hosts,
        cors_origins=cors_origins,
    )
    if host not in ("127.0.0.1", "localhost", "::1") and api_key is None and uds is None:
        say(f"anybody who reaches {host} can ask; --api-key KEY keeps strangers out")
    if open_page and uds is not None:
        raise click.UsageError("--open needs a port, which --uds replaces; give one of them")
    run_server(settings, folder, host=host, port=port, uds=uds, open_page=open_page, say=say)
