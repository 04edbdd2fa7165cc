"""`phi3v serve` as people run it: a process of its own, at a port of its own."""

import base64
import json
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from places import ROOT
from processes import PATIENCE_S, PHI3V, children, started

EXAMPLES = {
    "Explain this chart.": ("chart.png",),
    "Help me get the title and author information of this book?": ("cover.png",),
    "What is difference in this two images?": ("before.png", "after.webp"),
}
"""README's questions, and the images they are about."""


class ServeProcess:
    """A running server."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url

    @property
    def worker(self) -> int:
        """The process that holds its model."""
        [worker] = children(self.process.pid)
        return worker

    def get(self, path: str) -> tuple[int, str]:
        """Status and body."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=30) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as exc:
            return exc.code, exc.read().decode()

    def post(self, path: str, body: object, **headers: str) -> tuple[int, dict[str, object]]:
        """Status and JSON."""
        data = json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"content-type": "application/json", **headers})
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as exc:
            return exc.code, json.load(exc)

    def wait_until_healthy(self) -> None:
        """Wait until the model is loaded."""
        deadline = time.monotonic() + PATIENCE_S
        while self.get("/health")[0] != 200:
            assert time.monotonic() < deadline
            assert self.process.poll() is None
            time.sleep(0.02)


@contextmanager
def serving(*options: str, model: str = "nano") -> Iterator[ServeProcess]:
    """A server that has loaded its model."""
    command: Sequence[str] = [*PHI3V, "serve", "--model", model, "--device", "cpu", "--port", "0", *options]
    with started(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"http://[0-9.]+:[0-9]+", line):
                server = ServeProcess(process, found[0])
                server.wait_until_healthy()
                yield server
                return
        raise AssertionError("the server ended before it said where it is")


def base64_of(name: str) -> str:
    """An example image as clients send it."""
    return base64.b64encode((ROOT / "examples" / name).read_bytes()).decode()


def data_url(name: str) -> str:
    """An example image as OpenAI's clients send it."""
    return f"data:image/{name.rpartition('.')[2]};base64,{base64_of(name)}"
