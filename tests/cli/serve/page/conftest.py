"""Headless Chromium on the page of a real server. A page that asks a foreign host or logs an error fails its test."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from serve_process import ServeProcess

CHROMIUM = os.environ.get("PHI3V_CHROMIUM") or shutil.which("chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]
PATIENCE_MS = 60_000
"""The longest that anything on the page may take, on a machine that is busy with other work."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no chromium on the path, and $PHI3V_CHROMIUM names none")
    playwright.expect.set_options(timeout=PATIENCE_MS)
    with (
        playwright.sync_playwright() as started,
        closing(started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)) as browser,
    ):
        yield browser


@pytest.fixture
def visit(browser: Any, server: ServeProcess, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """A function that opens the page in a profile of its own; the arguments are those of playwright's contexts."""
    contexts, troubles = [], list[str]()

    def open_page(url: str = server.url, *, expected_errors: int = 0, **options: Any) -> Any:
        context = browser.new_context(**options)
        contexts.append((context, expected_errors))
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        host = url.split("#", maxsplit=1)[0].rstrip("/") + "/"
        page.on("request", lambda request: request.url.startswith((host, "data:", "blob:")) or note(request.url))
        page.on("console", lambda message: message.type in ("error", "warning") and note(message.text))
        page.on("pageerror", lambda error: note(str(error)))
        page.goto(host + ("#" + url.split("#", maxsplit=1)[1] if "#" in url else ""))
        return page

    def note(trouble: str) -> None:
        troubles.append(trouble)

    yield open_page
    for context, _ in contexts:
        context.close()
    expected = [trouble for trouble in troubles if re.search("status of 40[01]|net::ERR_", trouble)]
    assert len(expected) <= sum(errors for _, errors in contexts), troubles
    assert [trouble for trouble in troubles if trouble not in expected] == []
