"""What the server does for its clients: loads, waits, drains, refuses, forgets, and gets over the loss of its model."""

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from processes import PATIENCE_S, PHI3V, started
from serve_process import ServeProcess, base64_of, serving

pytest.importorskip("uvicorn")

LONG: dict[str, Any] = {"response_format": {"type": "json_schema", "json_schema": {"name": "long", "schema": {
    "type": "string", "minLength": 3000}}}, "max_tokens": 3500}  # fmt: skip
"""An answer that goes on for as long as a test can take."""


def body(question: str = "hi", image: str | None = None, **options: Any) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"type": "text", "text": question}]
    if image is not None:
        parts.append({"type": "image_url", "image_url": base64_of(image)})
    return {"model": "nano", "messages": [{"role": "user", "content": parts}], **options}


def metric(server: ServeProcess, name: str) -> float:
    lines = server.get("/metrics")[1].splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.split("{")[0].split()[0] == name)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class OpenStream:
    """An answer that has begun to come, and the connection that it comes on."""

    def __init__(self, server: ServeProcess, content: dict[str, Any]) -> None:
        host, port = server.url.removeprefix("http://").split(":")
        data = json.dumps(content | {"stream": True}).encode()
        self.socket = socket.create_connection((host, int(port)), timeout=PATIENCE_S)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(data)}\r\n\r\n"
        self.socket.sendall(head.encode() + data)
        self.lines = self.socket.makefile("rb")
        assert b" 200 " in self.lines.readline()
        while not self.lines.readline().startswith(b'data: {"id"'):
            pass
        while b'"content":"",' not in (line := self.lines.readline()) and b'"content":"' not in line:
            pass

    def close(self) -> None:
        self.lines.close()
        self.socket.close()


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc")
def test_requests_survive_the_loss_of_the_model_or_say_so(server: ServeProcess) -> None:
    questions = [f"What is the title, number {number}?" for number in range(20)]
    wanted = {question: server.post("/v1/chat/completions", body(question, "cover.png")) for question in questions}
    before = metric(server, "phi3v_requests_total")
    with ThreadPoolExecutor(20) as pool:
        futures = {q: pool.submit(server.post, "/v1/chat/completions", body(q, "cover.png")) for q in questions}
        wait_for(lambda: metric(server, "phi3v_requests_total") > before)
        os.kill(server.worker, signal.SIGKILL)
        found = {question: future.result(timeout=PATIENCE_S) for question, future in futures.items()}
    for question, (status, answer) in found.items():
        assert status in (200, 503)
        if status == 200:
            assert answer["choices"] == wanted[question][1]["choices"]
    server.wait_until_healthy()
    assert server.post("/v1/chat/completions", body(questions[0], "cover.png"))[0] == 200


def test_an_answer_whose_client_has_gone_ends(server: ServeProcess) -> None:
    cancelled = 'phi3v_requests_total{outcome="cancelled"}'
    before = server.get("/metrics")[1].count(cancelled) and metric(server, "phi3v_requests_total")
    with closing(OpenStream(server, body(**LONG))):
        assert metric(server, "phi3v_running") == 1
    wait_for(lambda: metric(server, "phi3v_running") == 0)
    assert metric(server, "phi3v_requests_total") > before
    assert cancelled in server.get("/metrics")[1]


def test_more_requests_than_may_wait_are_told_to_come_back() -> None:
    with serving("--max-queue", "1") as server:
        with closing(OpenStream(server, body(**LONG))):
            status, answer = server.post("/v1/chat/completions", body())
            assert (status, answer["error"]["type"]) == (429, "rate_limit_error")  # type: ignore[index]
        wait_for(lambda: server.post("/v1/chat/completions", body(max_tokens=1))[0] == 200)


def test_a_key_guards_everything_but_health() -> None:
    with serving("--api-key", "secret") as server:
        assert server.get("/health")[0] == 200
        for path in ("/v1/models", "/metrics", "/api/tags", "/openapi.json"):
            assert server.get(path)[0] == 401
        assert server.post("/v1/chat/completions", body())[0] == 401
        assert server.post("/v1/chat/completions", body(), authorization="Bearer wrong")[0] == 401
        assert server.post("/v1/chat/completions", body(max_tokens=1), authorization="Bearer secret")[0] == 200


def test_an_idle_model_is_unloaded_and_loaded_again() -> None:
    with serving("--keep-alive", "1s") as server:
        wait_for(lambda: json.loads(server.get("/api/ps")[1])["models"] == [])
        assert server.get("/health")[0] == 200
        assert server.post("/v1/chat/completions", body(max_tokens=1))[0] == 200


@pytest.mark.skipif(not hasattr(signal, "SIGTERM"), reason="needs signals")
def test_a_server_that_is_told_to_end_finishes_its_answers() -> None:
    with serving() as server, closing(OpenStream(server, body("Explain this.", "chart.png", max_tokens=60))) as stream:
        server.process.send_signal(signal.SIGTERM)
        assert b"[DONE]" in stream.lines.read()
        assert server.process.wait(PATIENCE_S) == 0


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")
def test_it_serves_on_a_unix_socket(tmp_path: Path) -> None:
    place = tmp_path / "phi3v.sock"
    with started([*PHI3V, "serve", "--model", "nano", "--uds", str(place)], stderr=subprocess.DEVNULL) as process:

        def ask() -> bytes:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(PATIENCE_S)
                try:
                    connection.connect(str(place))
                except OSError:
                    assert process.poll() is None
                    return b""
                connection.sendall(b"GET /v1/models HTTP/1.0\r\n\r\n")
                return connection.makefile("rb").read()

        wait_for(lambda: b'"nano"' in ask())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "127.0.0.1"}, 200),
        ({"host": "localhost:1"}, 200),
        ({"host": "[::1]:8000"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "evil.example:8000"}, 403),
        ({"host": "127.0.0.1", "origin": "http://127.0.0.1"}, 200),
        ({"host": "127.0.0.1", "origin": "https://evil.example"}, 403),
        ({"host": "127.0.0.1", "origin": "null"}, 403),
    ],
)
def test_only_its_own_names_and_pages_are_answered(server: ServeProcess, headers: dict[str, str], status: int) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    connection.request("GET", "/v1/models", headers=headers)
    response = connection.getresponse()
    assert response.status == status
    assert response.headers["x-request-id"]
    assert "access-control-allow-origin" not in response.headers
    connection.close()


def test_an_origin_that_is_allowed_gets_cors_headers() -> None:
    with serving("--cors-origin", "https://good.example", "--allow-host", "my.server") as server:
        host, port = server.url.removeprefix("http://").split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        connection.request("GET", "/v1/models", headers={"host": "my.server", "origin": "https://good.example"})
        response = connection.getresponse()
        assert (response.status, response.headers["access-control-allow-origin"]) == (200, "https://good.example")
        connection.close()


def test_the_numbers_of_a_request_are_counted(server: ServeProcess) -> None:
    names = (
        "phi3v_prompt_tokens_total",
        "phi3v_generated_tokens_total",
        "phi3v_ttft_seconds_count",
        "phi3v_queue_seconds_count",
    )
    before = [metric(server, name) for name in names]
    assert server.post("/v1/chat/completions", body(max_tokens=2))[0] == 200
    assert all(metric(server, name) > old for name, old in zip(names, before, strict=True))


def test_the_server_needs_its_extra() -> None:
    code = (
        "import sys; sys.modules['uvicorn'] = None\nfrom phi3v.cli.main import main; main(['serve', '--model', 'nano'])"
    )
    done = subprocess.run([PHI3V[0], "-P", "-c", code], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 1
    assert "phi3v serve needs uvicorn; run: pip install" in done.stderr
