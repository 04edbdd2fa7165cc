"""The examples of docs/integrations.md, each run with its client where that is installed."""

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pages import DOCS, code_blocks, section
from places import ROOT
from processes import PATIENCE_S
from serve_process import EXAMPLES, ServeProcess, data_url, serving

from phi3v.cli.main import main

pytest.importorskip("uvicorn")

PAGE = (ROOT / "docs" / "integrations.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8000"
CHART, COVER, PAIR = EXAMPLES
PYTHON = [
    ("OpenAI's Python client", "openai", 0, PAIR),
    ("OpenAI's Python client", "openai", 1, None),
    ("LangChain", "langchain_openai", 0, CHART),
    ("LiteLLM", "litellm", 0, COVER),
]


@pytest.fixture(scope="module")
def own_server() -> Any:
    with serving() as server:
        yield server


def block(heading: str, language: str, number: int = 0) -> str:
    return code_blocks(section(PAGE, heading), language)[number]


@pytest.mark.parametrize(("heading", "package", "number", "question"), PYTHON)
def test_the_python_examples_answer(
    heading: str, package: str, number: int, question: str | None, own_server: ServeProcess, cli_answers: dict[str, str]
) -> None:
    if subprocess.run([sys.executable, "-c", f"import {package}"], capture_output=True, timeout=PATIENCE_S).returncode:
        pytest.skip(f"{package} is not installed")
    program = block(heading, "python", number)
    assert ADDRESS in program
    done = subprocess.run(
        [sys.executable, "-c", program.replace(ADDRESS, own_server.url)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env=os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"},  # else it fetches prices
    )
    assert done.returncode == 0, done.stderr
    if question is None:
        assert re.match(r"kind='(book|magazine)' readable=(True|False)", done.stdout)
    else:
        assert done.stdout.strip().endswith(cli_answers[question])


def test_every_python_example_is_run() -> None:
    assert len(code_blocks(PAGE, "python")) == len(PYTHON)


def test_the_lines_for_llm_work_as_typed(tmp_path: Path) -> None:
    pytest.importorskip("llm")
    lines = [line for line in block("llm", "sh").splitlines() if line.startswith("llm ")]
    assert len(lines) == 5
    for line in lines:
        done = subprocess.run(
            [sys.executable, "-m", *shlex.split(line)],
            cwd=ROOT,
            env=os.environ | {"LLM_USER_PATH": str(tmp_path / "llm"), "XDG_RUNTIME_DIR": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()


def test_the_settings_for_mcp_clients_start_the_tools(cli_answers: dict[str, str]) -> None:
    mcp = pytest.importorskip("mcp")
    settings = json.loads(block("MCP", "json"))["mcpServers"]["phi3v"]
    assert settings["command"] == "phi3v"
    arguments = ["-P", "-m", "phi3v", *settings["args"]]

    async def run() -> str:
        server = mcp.StdioServerParameters(command=sys.executable, args=arguments, cwd=str(ROOT), env=dict(os.environ))
        async with asyncio.timeout(PATIENCE_S), mcp.Client(server) as client:
            answer = await client.call_tool("look", {"images": ["chart.png"], "question": CHART})
            return str(answer.content[0].text)

    assert asyncio.run(run()) == cli_answers[CHART]


@pytest.mark.parametrize("heading", ["Continue", "LiteLLM"])
def test_the_yaml_settings_name_the_server_and_the_model(heading: str) -> None:
    yaml = pytest.importorskip("yaml")
    settings = yaml.safe_load(block(heading, "yaml"))
    if heading == "Continue":
        [model] = settings["models"]
        assert (model["provider"], model["apiBase"], model["model"]) == ("openai", f"{ADDRESS}/v1", "nano")
        assert model["capabilities"] == ["image_input"]
    else:
        [model] = settings["model_list"]
        assert model["litellm_params"]["api_base"] == f"{ADDRESS}/v1"
        assert model["litellm_params"]["model"] == "openai/nano"


def test_what_open_webui_sends_is_answered(own_server: ServeProcess) -> None:
    """The requests of its OpenAI connection, as its source has them."""
    status, models = own_server.get("/v1/models")
    assert (status, [model["id"] for model in json.loads(models)["data"]]) == (200, ["nano"])
    content = [{"type": "text", "text": CHART}, {"type": "image_url", "image_url": {"url": data_url("chart.png")}}]
    body = {"stream": True, "model": "nano", "messages": [{"role": "user", "content": content}]}
    done = subprocess.run(
        ["curl", "-sS", "--max-time", "60", f"{own_server.url}/v1/chat/completions", "-d", "@-"],
        input=json.dumps(body),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert done.stdout.endswith("data: [DONE]\n\n")


def test_the_lines_for_phi3v_are_ones_that_it_takes() -> None:
    lines = [line for text in code_blocks(PAGE, "sh") for line in text.splitlines() if line.startswith("phi3v ")]
    assert len(lines) >= 3
    for line in lines:
        name, *arguments = shlex.split(line)[1:]
        arguments = [str(DOCS.parent / "examples") if one == "examples" else one for one in arguments]
        main.commands[name].make_context(name, arguments)
