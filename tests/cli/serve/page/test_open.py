"""`phi3v serve --open`."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import PATIENCE_S, PHI3V, started

pytest.importorskip("uvicorn")


@pytest.mark.skipif(sys.platform == "win32", reason="the browser here is a shell script")
def test_open_hands_the_key_over_in_the_fragment(tmp_path: Path) -> None:
    opened, browser = tmp_path / "opened", tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}.part\nmv {opened}.part {opened}\n')
    browser.chmod(0o755)
    command = [*PHI3V, "serve", "--model", "nano", "--port", "0", "--api-key", "a b&c", "--open"]
    with started(command, env=os.environ | {"BROWSER": str(browser)}, stderr=subprocess.DEVNULL):
        deadline = time.monotonic() + PATIENCE_S
        while not opened.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
    url, _, fragment = opened.read_text().strip().partition("#")
    assert url.startswith("http://127.0.0.1:")
    assert fragment == "key=a%20b%26c"


def test_open_and_a_socket_exclude_each_other(tmp_path: Path) -> None:
    command = [*PHI3V, "serve", "--model", "nano", "--uds", str(tmp_path / "s"), "--open"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 2
    assert "--open" in done.stderr
