"""`phi3v mcp` and the `mcp` package's own client, with the built-in model."""

import asyncio
import os
import re
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from places import ROOT
from processes import PATIENCE_S, PHI3V, started
from serve_process import EXAMPLES

import phi3v

mcp = pytest.importorskip("mcp")

EXAMPLE_IMAGES = ROOT / "examples"
CHART, COVER, PAIR = EXAMPLES


@asynccontextmanager
async def client(*options: str, root: Path = EXAMPLE_IMAGES) -> AsyncIterator[Any]:
    command = [*PHI3V, "mcp", "--model", "nano", "--device", "cpu", "--root", str(root), *options]
    server = mcp.StdioServerParameters(command=command[0], args=command[1:], env=dict(os.environ))
    async with mcp.Client(server, read_timeout_seconds=PATIENCE_S) as connected:
        yield connected


def with_client(use: Callable[[Any], Awaitable[None]], *options: str, root: Path = EXAMPLE_IMAGES) -> None:
    async def run() -> None:
        async with asyncio.timeout(PATIENCE_S), client(*options, root=root) as connected:
            await use(connected)

    asyncio.run(run())


def text_of(result: Any) -> str:
    [block] = result.content
    text: str = block.text
    return text


async def refusal(connected: Any, tool: str, arguments: dict[str, Any]) -> str:
    result = await connected.call_tool(tool, arguments)
    assert result.is_error, result
    return text_of(result)


def test_the_tools_say_what_they_take() -> None:
    async def use(connected: Any) -> None:
        tools = {tool.name: tool for tool in (await connected.list_tools()).tools}
        assert set(tools) == {"look", "extract", "compare"}
        assert tools["look"].input_schema["required"] == ["images", "question"]
        assert tools["compare"].input_schema["required"] == ["first", "second"]
        assert all(tool.annotations.read_only_hint for tool in tools.values())

    with_client(use)


def test_the_three_jobs_are_answered_as_on_the_command_line(cli_answers: dict[str, str]) -> None:
    async def use(connected: Any) -> None:
        for question in (CHART, COVER):
            result = await connected.call_tool("look", {"images": list(EXAMPLES[question]), "question": question})
            assert text_of(result) == cli_answers[question]
        first, second = EXAMPLES[PAIR]
        compared = await connected.call_tool("compare", {"first": first, "second": second, "question": PAIR})
        assert text_of(compared) == cli_answers[PAIR]

    with_client(use)


def test_fields_come_as_an_object_in_the_form_that_was_asked_for() -> None:
    async def use(connected: Any) -> None:
        fields = "kind book|chart, readable bool"
        result = await connected.call_tool("extract", {"images": ["cover.png"], "fields": fields})
        assert not result.is_error
        assert set(result.structured_content) == {"kind", "readable"}
        assert result.structured_content["kind"] in ("book", "chart")
        schema = '{"type": "integer", "minimum": 0, "maximum": 9}'
        result = await connected.call_tool("extract", {"images": ["cover.png"], "fields": schema})
        assert result.structured_content["value"] in range(10)
        assert "year number" in await refusal(connected, "extract", {"images": ["cover.png"], "fields": "year number"})

    with_client(use)


def test_only_images_under_the_root_are_read(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes((EXAMPLE_IMAGES / "cover.png").read_bytes())
    (root / "sub" / "cover.png").write_bytes((EXAMPLE_IMAGES / "cover.png").read_bytes())
    (root / "notes.png").write_text("text")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "inner.png").symlink_to(root / "sub" / "cover.png")

    async def use(connected: Any) -> None:
        for image in ("sub/cover.png", str(root / "sub" / "cover.png"), "inner.png", "sub/../inner.png"):
            result = await connected.call_tool("look", {"images": [image], "question": COVER})
            assert not result.is_error, result
        outside = ("../secret.png", str(tmp_path / "secret.png"), "link.png", "sub/../../secret.png", "/etc/passwd")
        for image in outside:
            assert "is outside" in await refusal(connected, "look", {"images": [image], "question": COVER})
        for image, said in (
            ("gone.png", "there is no file gone.png"),
            (".", "there is no file"),
            ("notes.png", "notes.png is text"),
            ("http://127.0.0.1/a.png", "is a URL"),
            ("data:;base64,AAAA", "is a URL"),
            ("a\0b.png", "is not a path"),
            ("x" * 5000, "is not a path"),
        ):
            assert said in await refusal(connected, "look", {"images": [image], "question": COVER})

    with_client(use, root=root)


@pytest.mark.parametrize(
    "arguments",
    [
        {"images": [], "question": "What?"},
        {"images": ["cover.png"]},
        {"images": ["cover.png"], "question": ""},
        {"images": ["cover.png"], "question": "What?", "num_crops": 17},
        {"images": "cover.png", "question": "What?"},
    ],
)
def test_wrong_arguments_are_tool_errors_and_the_server_goes_on(arguments: dict[str, Any]) -> None:
    async def use(connected: Any) -> None:
        await refusal(connected, "look", arguments)
        result = await connected.call_tool("look", {"images": ["cover.png"], "question": COVER})
        assert "ALONE" in text_of(result)

    with_client(use)


def test_a_call_that_is_cancelled_ends_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    from phi3v.cli.mcp import tools
    from phi3v.models.folder import BUILTIN, ModelDir

    engines = []

    class Engine(phi3v.AsyncEngine):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            engines.append(self)

    monkeypatch.setattr(tools, "AsyncEngine", Engine)
    monkeypatch.setattr(tools, "GenerationRequest", partial(phi3v.GenerationRequest, max_new_tokens=3500))

    async def use(connected: Any) -> None:
        endless = '{"type": "string", "pattern": "^[a-z]{9000}$"}'
        call = asyncio.create_task(connected.call_tool("extract", {"images": ["cover.png"], "fields": endless}))
        while not engines or not (pending := running(engines[0])) or not pending[0].tokens:
            await asyncio.sleep(0.01)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        while running(engines[0]):
            await asyncio.sleep(0.01)
        assert pending[0].tokens < 3400
        result = await connected.call_tool("look", {"images": ["cover.png"], "question": COVER})
        assert "ALONE" in text_of(result)

    def running(engine: phi3v.AsyncEngine) -> list[Any]:
        try:
            return list(engine.process._pending.values())
        except phi3v.Phi3VError:
            return []

    async def run() -> None:
        made = tools.make_server(ModelDir.open(BUILTIN), "cpu", EXAMPLE_IMAGES)
        async with asyncio.timeout(PATIENCE_S), mcp.Client(made) as connected:
            await use(connected)

    asyncio.run(run())


def test_http_wants_the_key_and_a_known_host() -> None:
    import urllib.error
    import urllib.request

    def status(url: str, **headers: str) -> int:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as response:
                return int(response.status)
        except urllib.error.HTTPError as exc:
            return exc.code

    async def use(url: str) -> None:
        import httpx2
        from mcp.client.streamable_http import streamable_http_client

        async with httpx2.AsyncClient(headers={"authorization": "Bearer secret"}, timeout=60) as http:
            transport = streamable_http_client(url, http_client=http)
            async with asyncio.timeout(PATIENCE_S), mcp.Client(transport) as connected:
                result = await connected.call_tool("look", {"images": ["cover.png"], "question": COVER})
                assert "ALONE" in text_of(result)

    async def use_twice(url: str) -> None:
        await asyncio.gather(use(url), use(url))
        await use(url)

    command = [
        *PHI3V,
        "mcp",
        "--model",
        "nano",
        "--root",
        str(EXAMPLE_IMAGES),
        "--http",
        "--port",
        "0",
        "--api-key",
        "secret",
    ]
    with started(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        url = next(found[0] for line in process.stderr if (found := re.search(r"http://[0-9.:]+/mcp", line)))
        assert status(url) == 401
        assert status(url, host="evil.example", authorization="Bearer secret") == 403
        assert status(url, origin="https://evil.example", authorization="Bearer secret") == 403
        asyncio.run(use_twice(url))


def test_the_command_line_says_what_is_missing(tmp_path: Path) -> None:
    for options, said in (
        (["--model", "nano"], "--root"),
        (["--root", str(tmp_path / "gone")], "does not exist"),
        (["--root", str(tmp_path), "--model", "no-such-model"], "no-such-model"),
    ):
        done = subprocess.run([*PHI3V, "mcp", *options], capture_output=True, text=True, timeout=PATIENCE_S)
        assert done.returncode in (1, 2)
        assert done.stdout == ""
        assert said in done.stderr
