"""Runs the application in uvicorn until a signal ends it."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import urllib.parse
import webbrowser
from collections.abc import Callable

from phi3v.errors import MissingDependencyError, WarmEngineError
from phi3v.machine.install import install_line
from phi3v.models.folder import ModelDir

from .announce import announced
from .settings import Settings

DRAIN_S = 60
"""The longest that answers may take that run when the server is told to end."""

_MOST_CONNECTIONS = 1024


def run_server(
    settings: Settings,
    folder: ModelDir,
    *,
    host: str,
    port: int,
    uds: str | None,
    open_page: bool,
    say: Callable[[str], None],
) -> None:
    """Serve a model folder until SIGINT or SIGTERM, which let running answers end first. Raises Phi3VError.

    With `open_page` a browser opens the page, the key in the part of its address that browsers send to no server.
    """
    try:
        import uvicorn

        from .app import make_app
        from .listening import ListeningServer
    except ImportError as exc:
        raise MissingDependencyError(f"phi3v serve needs {exc.name}; run: {install_line('serve')}") from exc

    def tell(url: str | None) -> None:
        if url is None:
            say(f"{folder.name} at {uds}")
            return
        say(f"{folder.name} at {url} (web page, Ollama) and {url}/v1 (OpenAI)")
        here = url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
        try:
            announcement.enter_context(announced(here, folder))
        except (WarmEngineError, OSError) as exc:
            say(f"other programs of yours do not find this server by themselves: {exc}")
        if open_page:
            _open_page(f"{here}/", settings.api_key, say)

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
    with contextlib.ExitStack() as announcement:
        ListeningServer(config, tell).run()


def _open_page(url: str, key: str | None, say: Callable[[str], None]) -> None:
    fragment = "" if key is None else f"#key={urllib.parse.quote(key, safe='')}"
    # A thread: some browsers hold the caller until they end.
    threading.Thread(target=_open_in_browser, args=(url, fragment, say), daemon=True).start()


def _open_in_browser(url: str, fragment: str, say: Callable[[str], None]) -> None:
    if not webbrowser.open(url + fragment):
        say(f"no browser can be opened here; open {url} yourself")
