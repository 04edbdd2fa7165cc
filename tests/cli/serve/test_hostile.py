"""What no client should send: each is refused with a status of its own, and the next good request is answered."""

import base64
import io
import json
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from serve_process import ServeProcess, base64_of, serving

pytest.importorskip("uvicorn")

CHAT, RESPONSES, OLLAMA_CHAT, OLLAMA_GENERATE = (
    "/v1/chat/completions",
    "/v1/responses",
    "/api/chat",
    "/api/generate",
)
GOOD = {"model": "nano", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}


@pytest.fixture(scope="module")
def server() -> Iterator[ServeProcess]:
    """One of its own: its memory is watched."""
    with serving("--allow-media-domain", "127.0.0.1", "--allow-media-domain", "localhost") as server:
        yield server


def said(content: Any, **options: Any) -> dict[str, Any]:
    return {**GOOD, "messages": [{"role": "user", "content": content}], **options}


def shown(url: Any, **more: Any) -> dict[str, Any]:
    return said([{"type": "image_url", "image_url": {"url": url, **more}}, {"type": "text", "text": "What is this?"}])


def png_claiming(width: int, height: int) -> str:
    """A small file that says it is a huge image, as zip bombs do."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(100_000), 9)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return base64.b64encode(png).decode()


def truncated_jpeg() -> str:
    buffer = io.BytesIO()
    Image.effect_noise((200, 200), 50).convert("RGB").save(buffer, "JPEG")
    return base64.b64encode(buffer.getvalue()[:600]).decode()


DEEP = "[" * 100_000
MANY = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}] * 5000 + GOOD["messages"]  # type: ignore[operator]
NESTED: dict[str, Any] = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}

URLS = [
    "http://127.0.0.1:1/x.png",
    "http://localhost:22/x.png",
    "http://[::1]/x.png",
    "http://0.0.0.0/x.png",
    "http://169.254.169.254/latest/meta-data",
    "http://10.0.0.1/x.png",
    "http://192.168.1.1/x.png",
    "http://[::ffff:127.0.0.1]/x.png",
    "http://2130706433/x.png",
    "http://0x7f.1/x.png",
    "http://127.0.0.1@evil.example/x.png",
    "http://evil.example/x.png",
    "https://evil.example:99999/x.png",
    "http://",
    "http:///x.png",
    "http://[/x.png",
    "file:///etc/passwd",
    "ftp://127.0.0.1/x.png",
    "gopher://127.0.0.1/x",
    "/etc/passwd",
    "../cover.png",
    "C:\\x.png",
    "javascript:alert(1)",
    "\x00",
    "",
    " ",
]

BAD_IMAGES = [
    "data:,",
    "data:image/png;base64",
    "data:image/png;base64,",
    "data:image/png;base64,!!!!",
    "data:image/png;base64,AAAA",
    "data:text/html;base64,PGh0bWw+",
    "AAAA",
    "A",
    "=" * 50,
    base64.b64encode(b"%PDF-1.7 and so on").decode(),
    base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg'/>").decode(),
    base64.b64encode(b"\x89PNG\r\n\x1a\n").decode(),
    base64.b64encode(b"GIF89a" + bytes(20)).decode(),
    png_claiming(100_000, 100_000),
    png_claiming(0, 0),
    png_claiming(2**31 - 1, 2**31 - 1),
    png_claiming(2000, 2000),
    truncated_jpeg(),
]

BAD_CHATS: list[tuple[dict[str, Any], int]] = [
    *((shown(url), 400) for url in URLS),
    *((shown(image), 400) for image in BAD_IMAGES),
    ({}, 400),
    ({"model": "nano"}, 400),
    ({"model": 1, "messages": GOOD["messages"]}, 400),
    ({**GOOD, "model": "x" * 10_000}, 404),
    ({**GOOD, "model": "../../etc"}, 404),
    ({**GOOD, "messages": []}, 400),
    ({**GOOD, "messages": "hi"}, 400),
    ({**GOOD, "messages": [None]}, 400),
    ({**GOOD, "messages": [{"role": "user"}]}, 400),
    ({**GOOD, "messages": [{"role": "robot", "content": "hi"}]}, 400),
    ({**GOOD, "messages": [{"role": "tool", "content": "hi", "tool_call_id": "1"}]}, 400),
    ({**GOOD, "messages": [{"role": "assistant", "content": "hi"}]}, 400),
    ({**GOOD, "messages": [*GOOD["messages"], {"role": "assistant", "content": "hi"}]}, 400),  # type: ignore[misc]
    ({**GOOD, "messages": [*GOOD["messages"], {"role": "system", "content": "late"}]}, 400),  # type: ignore[misc]
    ({**GOOD, "messages": [{"role": "system", "content": "alone"}]}, 400),
    ({**GOOD, "messages": MANY}, 400),
    (said(""), 400),
    (said("   \n"), 400),
    (said([]), 400),
    (said(None), 400),
    (said([{"type": "input_audio", "input_audio": {}}]), 400),
    (said([{"type": "file", "file": {}}]), 400),
    (said([{"type": "image_url"}]), 400),
    (said([{"type": "image_url", "image_url": {"url": 5}}]), 400),
    (said("<|image_1|> what?"), 400),
    (said("<|image_9999|>"), 400),
    (said("\ud800"), 400),
    (shown(base64_of("cover.png"), detail="ultra"), 400),
    (shown(base64_of("cover.png"), num_crops=0), 400),
    (shown(base64_of("cover.png"), num_crops=17), 400),
    (shown(base64_of("cover.png"), num_crops="all"), 400),
    (said("hi", max_tokens=0), 400),
    (said("hi", max_tokens=-1), 400),
    (said("hi", max_tokens=10**9), 400),
    (said("hi", max_tokens=10**30), 400),
    (said("hi", max_tokens="9"), 400),
    (said("hi", max_tokens=1.5), 400),
    (said("hi", max_tokens=3, max_completion_tokens=4), 400),
    (said("hi", temperature=-1), 400),
    (said("hi", temperature="hot"), 400),
    (said("hi", temperature=1e308), 400),
    (said("hi", top_p=0), 400),
    (said("hi", top_p=2), 400),
    (said("hi", n=0), 400),
    (said("hi", n=1000), 400),
    (said("hi", seed="x"), 400),
    (said("hi", seed=10**40), 400),
    (said("hi", stop=["a"] * 5), 400),
    (said("hi", stop=[""]), 400),
    (said("hi", stop=[1]), 400),
    (said("hi", logprobs=True, top_logprobs=21), 400),
    (said("hi", top_logprobs=2), 400),
    (said("hi", tools=[{"type": "function"}]), 400),
    (said("hi", tool_choice="required"), 400),
    (said("hi", functions=[{}]), 400),
    (said("hi", logit_bias={"1": 100}), 400),
    (said("hi", presence_penalty=0.5), 400),
    (said("hi", modalities=["audio"]), 400),
    (said("hi", audio={"voice": "x"}), 400),
    (said("hi", unknown=1), 400),
    (said("hi", stream="yes"), 400),
    (said("hi", response_format={}), 400),
    (said("hi", response_format={"type": "json_schema"}), 400),
    (said("hi", response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": []}}), 400),
    (said("hi", response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "x"}}}), 400),
    (said("hi", response_format={"type": "json_object"}, stop=["x"]), 400),
]

BAD_OTHERS: list[tuple[str, dict[str, Any], int]] = [
    (RESPONSES, {"model": "nano"}, 400),
    (RESPONSES, {"model": "nano", "input": ""}, 400),
    (RESPONSES, {"model": "nano", "input": []}, 400),
    (RESPONSES, {"model": "nano", "input": "hi", "previous_response_id": "resp_1"}, 400),
    (RESPONSES, {"model": "nano", "input": "hi", "background": True}, 400),
    (RESPONSES, {"model": "nano", "input": "hi", "tools": [{"type": "web_search"}]}, 400),
    (RESPONSES, {"model": "nano", "input": "hi", "messages": []}, 400),
    (RESPONSES, {"model": "none", "input": "hi"}, 404),
    (RESPONSES, {"model": "nano", "input": [{"role": "user", "content": [{"type": "input_image"}]}]}, 400),
    (RESPONSES, {"model": "nano", "input": [{"type": "function_call", "name": "f"}]}, 400),
    (OLLAMA_CHAT, {"model": "none", "messages": []}, 404),
    (OLLAMA_CHAT, {"model": "nano", "messages": [{"role": "user", "content": ""}]}, 400),
    (OLLAMA_CHAT, {"model": "nano", "messages": [{"role": "user", "content": "hi", "images": ["x!"]}]}, 400),
    (OLLAMA_CHAT, {"model": "nano", "messages": [{"role": "user", "content": "hi", "images": ["AAAA"]}]}, 400),
    (OLLAMA_CHAT, {"model": "nano", "messages": [], "tools": [{}]}, 400),
    (OLLAMA_GENERATE, {"model": "nano", "prompt": 5}, 400),
    (OLLAMA_GENERATE, {"model": "nano", "prompt": "hi", "raw": True}, 400),
    (OLLAMA_GENERATE, {"model": "nano", "prompt": "hi", "format": "yaml"}, 400),
    (OLLAMA_GENERATE, {"model": "nano", "prompt": "hi", "keep_alive": "soon"}, 400),
    (OLLAMA_GENERATE, {"model": "nano", "prompt": "hi", "options": {"num_predict": "x"}}, 400),
    (OLLAMA_GENERATE, {"model": "nano", "prompt": "hi", "options": {"tfs_z": 1}}, 400),
]


def check_error(path: str, answer: dict[str, Any]) -> None:
    error = answer["error"]
    message = error if path.startswith("/api/") else error["message"]
    assert message
    assert "/site-packages/" not in message
    assert "Traceback" not in message
    if not path.startswith("/api/"):
        assert set(error) == {"message", "type", "param", "code"}


def check_good(server: ServeProcess) -> None:
    status, answer = server.post(CHAT, shown(base64_of("cover.png")) | {"max_tokens": 3})
    assert status == 200, answer


def memory(server: ServeProcess) -> int:
    """Resident bytes of server and model."""
    status = [Path(f"/proc/{pid}/status").read_text() for pid in (server.process.pid, server.worker)]
    return sum(int(line.split()[1]) << 10 for text in status for line in text.splitlines() if line.startswith("VmRSS"))


def test_every_bad_request_is_refused_by_its_own_status(server: ServeProcess) -> None:
    assert len(BAD_CHATS) + len(BAD_OTHERS) >= 100
    check_good(server)
    wrong = []
    for path, body, wanted in [*((CHAT, *one) for one in BAD_CHATS), *BAD_OTHERS]:
        status, answer = server.post(path, body)
        if status != wanted:
            wrong.append((str(body)[:300], wanted, status, answer))
            continue
        check_error(path, answer)
    assert wrong == []
    check_good(server)


def test_formats_that_no_answer_can_complete_end_with_the_length(server: ServeProcess) -> None:
    for schema in (NESTED, {"type": "string", "pattern": "(((a{999}){999}){999}){999}"}):
        wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        status, answer = server.post(CHAT, said("hi", response_format=wanted))
        assert (status, answer["choices"][0]["finish_reason"]) == (200, "length")  # type: ignore[index]


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc")
def test_bad_requests_cost_no_memory(server: ServeProcess) -> None:
    def all_of_them() -> None:
        for body, _ in BAD_CHATS:
            server.post(CHAT, body)

    all_of_them()
    check_good(server)
    before = memory(server)
    for _ in range(3):
        all_of_them()
    assert memory(server) < before + (48 << 20)  # three times some 5 MB of bodies are in flight; none may stay


def exchange(server: ServeProcess, data: bytes, *, half_close: bool = False) -> bytes:
    """What comes back for raw bytes."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        answer = b""
        try:
            connection.sendall(data)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(1 << 16):
                answer += piece
        except OSError:
            pass
        return answer


def raw(
    path: str, body: bytes, *headers: str, version: str = "1.1", method: str = "POST", length: int | None = None
) -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "Host: 127.0.0.1", "Connection: close", *headers]
    lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (raw(CHAT, b"not json"), 400),
        (raw(CHAT, b""), 400),
        (raw(CHAT, b"\xff\xfe"), 400),
        (raw(CHAT, b"null"), 400),
        (raw(CHAT, b"[]"), 400),
        (raw(CHAT, b"NaN"), 400),
        (raw(CHAT, b'{"model": "nano", "messages": ' + DEEP.encode()), 400),
        (raw(CHAT, b'{"model":"nano","messages":[{"role":"user","content":"hi"}],"temperature":NaN}'), 400),
        (raw(CHAT, b'{"model":"nano","messages":[{"role":"user","content":"\\ud800"}]}'), 400),
        (raw(CHAT, b"{}", length=1 << 40), 413),
        (raw(CHAT, b"{}", length=-5), 400),
        (raw(CHAT, b"", method="GET"), 405),
        (raw(CHAT, b"", method="DELETE"), 405),
        (raw("/v1/nothing", b"{}"), 404),
        (raw("/../../etc/passwd", b"", method="GET"), 404),
        (raw("/v1/models/other", b"", method="GET"), 404),
        (raw("/v1/models", b"", method="GET", version="1.0"), 200),
        (raw(CHAT, json.dumps(GOOD).encode(), version="1.0"), 200),
        (raw(CHAT, b"{}", "Host: evil.example"), 400),
        (raw(CHAT, b"{}", "Origin: https://evil.example"), 403),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ],
)  # fmt: skip
def test_what_is_hardly_http_gets_a_status(server: ServeProcess, data: bytes, status: int) -> None:
    answer = exchange(server, data)
    assert answer.split(b" ", 2)[1:2] == [str(status).encode()], answer[:300]
    check_good(server)


def test_a_body_that_grows_too_large_is_cut_off(server: ServeProcess) -> None:
    """In chunks, so that nothing announces its size."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        piece = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
        answer = b""
        try:
            for _ in range(80):
                connection.sendall(piece)
            answer = connection.recv(1 << 16)
        except OSError:  # the server had enough, and has closed
            pass
        assert answer == b"" or b" 413 " in answer
    check_good(server)


@pytest.mark.parametrize("head", [b"GET /%s HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nX: %s\r\n"], ids=["line", "header"])
def test_an_endless_head_is_cut_off(server: ServeProcess, head: bytes) -> None:
    answer = exchange(server, head % (b"a" * 3_000_000) + b"Host: 127.0.0.1\r\n\r\n")
    assert answer == b"" or b" 400 " in answer  # the connection may be reset before the status is read
    check_good(server)


def test_half_closed_connections_end(server: ServeProcess) -> None:
    exchange(server, raw(CHAT, json.dumps(GOOD).encode()), half_close=True)
    exchange(server, raw(CHAT, b'{"model"', length=1000), half_close=True)
    check_good(server)


def test_pipelined_requests_are_answered_in_order(server: ServeProcess) -> None:
    host = "127.0.0.1"
    one = f"GET /v1/models HTTP/1.1\r\nHost: {host}\r\n\r\n"
    last = f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    answer = exchange(server, (one * 5 + last).encode())
    assert answer.count(b"HTTP/1.1 200") == 6
    assert answer.rstrip().endswith(b'"model":"nano"}')


def test_clients_that_send_half_a_request_and_stay_hold_up_nobody(server: ServeProcess) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    connections = [socket.create_connection((host, int(port)), timeout=30) for _ in range(50)]
    try:
        for number, connection in enumerate(connections):
            data = raw(CHAT, json.dumps(GOOD).encode())
            connection.sendall(data[: len(data) * number // 50])
        check_good(server)
    finally:
        for connection in connections:
            connection.close()
    check_good(server)


def test_a_body_that_comes_too_slowly_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    httpx = pytest.importorskip("httpx")
    from phi3v.cli.serve.app import make_app
    from phi3v.cli.serve.settings import Settings
    from phi3v.models.folder import BUILTIN, ModelDir

    async def check() -> None:
        async def slowly() -> Any:
            yield b"{"
            await asyncio.sleep(30)

        app = make_app(Settings(body_timeout_s=0.05), ModelDir.open(BUILTIN))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            response = await client.post(CHAT, content=slowly())
        assert response.status_code == 408

    asyncio.run(asyncio.wait_for(check(), 60))


def test_disconnecting_at_any_moment_leaves_nothing_running(server: ServeProcess) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    for wait_s in (0.0, 0.02, 0.1, 0.3):
        data = raw(CHAT, json.dumps(shown(base64_of("chart.png")) | {"max_tokens": 200, "stream": True}).encode())
        with closing(socket.create_connection((host, int(port)), timeout=30)) as connection:
            connection.sendall(data)
            time.sleep(wait_s)
    deadline = time.monotonic() + 60
    while not all(f"phi3v_{name} 0.0" in server.get("/metrics")[1] for name in ("running", "waiting")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    check_good(server)
