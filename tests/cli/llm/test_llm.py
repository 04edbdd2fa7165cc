"""The plugin in `llm` itself, with the built-in model."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from places import ROOT
from processes import PATIENCE_S, PHI3V
from serve_process import EXAMPLES, serving
from warm_home import needs_unix_sockets

pytest.importorskip("llm")

COVER = "Help me get the title and author information of this book?"

Llm = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run_llm(tmp_path: Path) -> Llm:
    """`llm` with a log of its own."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "llm", *arguments],
            env=os.environ | {"LLM_USER_PATH": str(tmp_path / "llm"), "XDG_RUNTIME_DIR": str(tmp_path)} | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )

    return run


def example(name: str) -> str:
    return str(ROOT / "examples" / name)


def test_the_models_are_listed_by_their_names(run_llm: Llm) -> None:
    listed = run_llm("models", "list").stdout
    for line in ("phi3v/nano", "phi3v/phi-3-vision (aliases: phi-3-vision)", "Phi3VModel: phi3v\n"):
        assert line in listed


def test_a_cache_that_cannot_be_read_leaves_the_other_models(run_llm: Llm) -> None:
    assert "phi3v/nano" in run_llm("models", "list", HF_HUB_CACHE="/" + "x" * 300).stdout


def test_the_three_jobs_are_answered_as_on_the_command_line(run_llm: Llm, cli_answers: dict[str, str]) -> None:
    for question, names in EXAMPLES.items():
        attached = [argument for name in names for argument in ("-a", example(name))]
        done = run_llm("-m", "phi3v/nano", question, *attached)
        assert done.stdout.strip() == cli_answers[question], done.stderr


def test_usage_and_timings_are_logged(run_llm: Llm) -> None:
    run_llm("-m", "phi3v/nano", COVER, "-a", example("cover.png"), "-o", "num_crops", "4")
    [logged] = json.loads(run_llm("logs", "-n", "1", "--json").stdout)
    assert json.loads(logged["token_details"])["image_tokens"] > 313
    assert logged["input_tokens"] > logged["output_tokens"] > 5
    assert logged["response_json"]["finish_reason"] == "stop"
    assert logged["response_json"]["ttft_s"] > 0


def test_a_conversation_goes_on_with_its_images(run_llm: Llm) -> None:
    run_llm("-m", "phi3v/nano", COVER, "-a", example("cover.png"))
    done = run_llm("-c", COVER, "-u")
    assert done.returncode == 0, done.stderr
    assert '"image_tokens": 313' in done.stderr


def test_a_schema_is_kept_exactly(run_llm: Llm) -> None:
    schema = json.dumps({"type": "object", "properties": {"kind": {"enum": ["book", "chart"]}}, "required": ["kind"]})
    done = run_llm("-m", "phi3v/nano", "What is it?", "-a", example("cover.png"), "--schema", schema)
    assert json.loads(done.stdout)["kind"] in ("book", "chart")


def test_what_is_wrong_is_said_in_one_line(run_llm: Llm, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("text")
    for arguments, said in (
        (["-m", "phi3v/nano", "hello"], "answers questions about images only"),
        (["-m", "phi3v/nano", COVER, "--at", str(tmp_path / "notes.png"), "image/png"], "notes.png is text"),
        (["-m", "phi3v/nano", COVER, "-a", example("cover.png"), "-o", "num_crops", "20"], "num_crops is 20; allowed"),
        (["-m", "phi3v/phi-3-vision", COVER, "-a", example("cover.png")], "`phi3v pull phi-3-vision`"),
    ):
        done = run_llm(*arguments, HF_HUB_CACHE=str(tmp_path / "hub"))
        assert (done.returncode, done.stdout) == (1, "")
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_a_running_server_answers_and_its_loss_is_made_good(
    run_llm: Llm, cli_answers: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("uvicorn")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    asked = ["-m", "phi3v/nano", COVER, "-a", example("cover.png")]
    with serving() as server:
        assert run_llm(*asked).stdout.strip() == cli_answers[COVER]
        assert 'phi3v_requests_total{outcome="stop"} 1.0' in server.get("/metrics")[1]
    assert run_llm(*asked).stdout.strip() == cli_answers[COVER]
    with serving("--api-key", "secret"):
        refused = run_llm(*asked)
        assert refused.returncode == 1
        assert "PHI3V_API_KEY" in refused.stderr
        assert run_llm(*asked, PHI3V_API_KEY="secret").stdout.strip() == cli_answers[COVER]


@needs_unix_sockets
def test_a_warm_engine_answers(run_llm: Llm, cli_answers: dict[str, str], tmp_path: Path) -> None:
    environment = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}

    def warm(*arguments: str) -> str:
        done = subprocess.run(
            [*PHI3V, "warm", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=True,
        )
        return done.stdout

    warm("--model", "nano", "--background")
    try:
        assert run_llm("-m", "phi3v/nano", COVER, "-a", example("cover.png")).stdout.strip() == cli_answers[COVER]
        [engine] = json.loads(warm("--status", "--json"))
        assert engine["answered"] == 1
    finally:
        warm("--stop")
