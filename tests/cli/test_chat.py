"""`phi3v chat` and several questions of `phi3v ask`: scripts, a terminal, Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from platforms import needs_posix
from processes import MAIN, PATIENCE_S, PHI3V, started

from phi3v.export.build import export_model
from phi3v.export.synthetic import tiny_dims, write_random_checkpoint

pytestmark = pytest.mark.torch

FEW = ("--num-crops", "1", "--max-new-tokens", "6")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("chat")
    folder = export_model(write_random_checkpoint(path / "checkpoint", tiny_dims(), seed=1), path / "model")
    config, manifest = folder / "genai_config.json", folder / "phi3v.json"
    endless = json.loads(config.read_text())
    endless["model"]["eos_token_id"] = [0]  # an answer is then as long as it may be
    config.write_text(json.dumps(endless))
    record = json.loads(manifest.read_text())
    del record["files"][config.name]
    manifest.write_text(json.dumps(record))
    return str(folder)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.effect_noise((300, 200), 80).save(path)
    return str(path)


def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PHI3V, *arguments], input=stdin, capture_output=True, text=True, timeout=PATIENCE_S)


def answers(*arguments: str, stdin: str = "") -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(*arguments, "--json", stdin=stdin).stdout.splitlines()]


@pytest.mark.slow
def read_tokens(answer: dict[str, Any]) -> dict[str, int]:
    """What an answer cost in tokens, wherever they were read."""
    return {name: count for name, count in answer["usage"].items() if name != "cached_tokens"}


def test_several_questions_are_answered_as_single_ones_are(model: str, photo: str) -> None:
    questions = ["What is this?", "hi", "Which colours are there in it?"]
    together = answers("ask", questions[0], photo, "-q", questions[1], "-q", questions[2], *FEW, "--model", model)
    alone = [answers("ask", question, photo, *FEW, "--model", model)[0] for question in questions]
    assert [answer["prompt"] for answer in together] == questions
    assert [(answer["text"], read_tokens(answer)) for answer in together] == [
        (answer["text"], read_tokens(answer)) for answer in alone
    ]


def test_answers_to_several_questions_are_set_apart(model: str, photo: str) -> None:
    done = run("ask", "hi", photo, "-q", "Why?", *FEW, "--model", model, "--stats")
    texts = [answer["text"] for answer in answers("ask", "hi", photo, "-q", "Why?", *FEW, "--model", model)]
    assert done.stdout == "\n\n".join(str(text) for text in texts) + "\n"
    assert [line for line in done.stderr.splitlines() if line.startswith(">")] == ["> hi", "> Why?"]
    assert done.stderr.count("TTFT") == 2


@pytest.mark.parametrize("bad", ["<|image_9|>", "<|image_1|> and <|image_1|>", "half \udcff"])
def test_a_bad_later_question_is_found_before_anything_is_loaded(photo: str, bad: str) -> None:
    done = run("ask", "hi", photo, "-q", bad, "--model", "no/such/model")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: the prompt ")


PREFILLING = f"""
from phi3v.genai.prefix_cache import PrefixCache
take, taken = PrefixCache._take, []
def prefill(*arguments):
    taken.append(0)
    if len(taken) == 2:
        print("busy", flush=True)
        sum(range(10**11))  # like prefill at full size: one call that holds the interpreter
    return take(*arguments)
PrefixCache._take = prefill
{MAIN}
"""


@needs_posix
def test_ctrl_c_while_a_later_question_is_read_ends_the_command_at_once(model: str, photo: str) -> None:
    arguments = ["ask", "hi", photo, "-q", "Why?", *FEW, "--model", model, "--json"]
    with started([sys.executable, "-P", "-c", PREFILLING, *arguments], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["prompt"] == "hi"
        assert process.stdout.readline() == b"busy\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=PATIENCE_S) == -signal.SIGINT  # 130 in a shell


def test_a_script_chats_a_line_a_turn(model: str, photo: str, tmp_path: Path) -> None:
    lines = ["What is this?", "", "And why?", f"/image {photo}", "And this?", f"/save {tmp_path / 'talk.json'}"]
    done = run("chat", photo, *FEW, "--model", model, stdin="\n".join([*lines, f"/save {tmp_path / 'talk.md'}", ""]))
    assert done.returncode == 0, done.stderr
    turns = json.loads((tmp_path / "talk.json").read_text())["turns"]
    assert [turn["prompt"] for turn in turns] == ["What is this?", "And why?", "And this?"]
    assert [turn["images"] for turn in turns] == [[photo], [], [photo]]
    assert done.stdout == "".join(turn["answer"] + "\n" for turn in turns)
    assert done.stderr.count("[context ") == 3
    text = (tmp_path / "talk.md").read_text()
    assert all(f"## {turn['prompt']}" in text and turn["answer"] in text for turn in turns)


def test_a_reset_begins_a_new_conversation(model: str, photo: str) -> None:
    said = answers("chat", photo, *FEW, "--model", model, stdin="hi\nhi\n/reset\nhi\n/quit\nno answer any more\n")
    assert len(said) == 3
    assert read_tokens(said[0]) == read_tokens(said[2]) != read_tokens(said[1])
    assert said[0]["text"] == said[2]["text"]


@pytest.mark.slow
def test_nothing_that_is_typed_ends_the_chat(model: str, photo: str, tmp_path: Path) -> None:
    taken = tmp_path / "taken.md"
    taken.write_text("mine")
    bad = [
        *("/bogus", "/image", "/image absent.png", f"/image {taken}", "/save", "/save talk.txt", f"/save {taken}"),
        *("/save /no/such/folder/talk.md", "<|image_7|>", "word " * 200_000),
    ]
    done = run("chat", photo, *FEW, "--model", model, stdin="\n".join(["hi", *bad, "hi"]))
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error:")]
    assert len(errors) == len(bad)
    assert (done.returncode, done.stderr.count("[context ")) == (1, 2)
    assert "Traceback" not in done.stderr
    assert "/reset starts over" in errors[-1]
    assert taken.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["taken.md"]


def test_bytes_that_are_no_text_are_no_crash(model: str) -> None:
    arguments = [*PHI3V, "chat", *FEW, "--model", model]
    done = subprocess.run(arguments, input=b"\xff\xfe caf\xe9\nhi", capture_output=True, timeout=PATIENCE_S)
    assert (done.returncode, done.stderr.count(b"[context ")) == (0, 2)


def test_what_is_wrong_with_the_command_is_said_before_a_model_is_loaded(photo: str) -> None:
    for arguments, said in (((photo, "--top-p", "7"), "top_p"), (("absent.png",), "absent.png"), (("-",), "standard")):
        done = run("chat", *arguments, "--model", "/no/model/here")
        assert done.returncode in (1, 2)
        assert said in done.stderr


@contextmanager
def terminal(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A chat whose standard input is a terminal, and the other end of it."""
    import pty  # of POSIX alone

    ours, theirs = pty.openpty()
    pipes = {"stdin": theirs, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    try:
        with started([*PHI3V, "chat", *arguments], **pipes) as process:
            os.close(theirs)
            yield process, ours
    finally:
        os.close(ours)


def read_until(process: subprocess.Popen[bytes], wanted: bytes) -> bytes:
    """Its standard error up to `wanted`, and not a byte of what may have come after it already."""
    assert process.stderr is not None
    read = b""
    while not read.endswith(wanted):
        byte = os.read(process.stderr.fileno(), 1)
        assert byte, read
        read += byte
    return read


@needs_posix
def test_ctrl_c_ends_the_answer_and_not_the_program(model: str) -> None:
    with terminal("--model", model, "--max-new-tokens", "100000") as (process, keyboard):
        assert process.stdout is not None
        read_until(process, b"> ")
        os.write(keyboard, b"hi\n")
        assert process.stdout.read(20)
        process.send_signal(signal.SIGINT)
        assert b"[interrupted; context" in read_until(process, b"]")
        read_until(process, b"> ")
        process.send_signal(signal.SIGINT)  # at the prompt: a new line
        read_until(process, b"> ")
        os.write(keyboard, b"/help\n")
        read_until(process, b"/quit")
        read_until(process, b"> ")
        os.write(keyboard, b"\x04")
        process.stdout.read()
        assert process.wait(timeout=PATIENCE_S) == 0


@needs_posix
def test_ctrl_c_ends_a_script(model: str) -> None:
    arguments = [*PHI3V, "chat", "--model", model, "--max-new-tokens", "100000"]
    with started(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b"hi\nhi\n")
        process.stdin.flush()
        assert process.stdout.read(20)
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(timeout=PATIENCE_S) == 130
        assert b"Traceback" not in process.stderr.read()


BUSY = """
from phi3v.cli.interrupts import Interrupt
with Interrupt(ends_program=False) as interrupt:
    print("busy", flush=True)
    sum(range({count}))  # like prefill: one call that holds the interpreter
    print("heard" if interrupt.heard else "not heard", flush=True)
    interrupt.answering()
    import os, signal
    os.kill(os.getpid(), signal.SIGINT); os.kill(os.getpid(), signal.SIGINT)
print("alive", flush=True)
"""


@needs_posix
@pytest.mark.parametrize(("count", "signals", "status"), [(10**8, 1, 0), (10**11, 2, -signal.SIGINT)], ids=str)
def test_during_prefill_one_ctrl_c_is_heard_late_and_two_kill(count: int, signals: int, status: int) -> None:
    with started([sys.executable, "-c", BUSY.format(count=count)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"busy\n"
        for _ in range(signals):
            time.sleep(0.3)  # two that come at once are one
            process.send_signal(signal.SIGINT)
        assert process.wait(timeout=PATIENCE_S) == status
        assert process.stdout.read() == (b"" if status else b"heard\nalive\n")
