"""The command line as a person meets it: processes, stdout, stderr, exit codes."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
import pytest
from PIL import Image
from platforms import needs_linux, needs_posix
from processes import PATIENCE_S, PHI3V, started

from phi3v.cli.check import Check
from phi3v.cli.doctor import print_checks
from phi3v.cli.options import block_size_option, build_device_option, precision_option, prefill_option
from phi3v.export.precision import BLOCK_SIZES, DEVICES, PRECISIONS, PREFILLS


def run(*arguments: str, stdin: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*PHI3V, *arguments], input=stdin, capture_output=True, env=os.environ | env, timeout=PATIENCE_S
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("cli") / "demo"
    done = run("bench", "synth", str(out))
    assert done.returncode == 0, done.stderr.decode()
    assert b"mean nothing" in done.stderr
    return done.stdout.decode().strip()


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("photo") / "photo.webp"
    Image.new("RGB", (300, 200), (200, 30, 30)).save(path)
    return str(path)


@pytest.mark.torch
def test_the_answer_is_on_stdout_and_all_else_on_stderr(model: str, photo: str) -> None:
    done = run("ask", "What is this?", photo, "--model", model, "--max-new-tokens", "8", "--num-crops", "1", "--stats")
    assert done.returncode == 0
    assert done.stdout.endswith(b"\n")
    notice, cut_off, *footer = done.stderr.decode().splitlines()
    assert "random weights" in notice
    assert "cut off after 8 tokens" in cut_off
    assert [line.split()[0] for line in footer] == ["model", "prompt", "images", "TTFT", "decode", "total"]


@pytest.mark.torch
def test_json_holds_the_same_answer_and_reads_stdin(model: str, photo: str) -> None:
    options = ("--max-new-tokens", "8", "--num-crops", "1")
    plain = run("ask", "hi", photo, *options, PHI3V_MODEL=model)
    record = json.loads(
        run("ask", "hi", "-", *options, "--json", stdin=Path(photo).read_bytes(), PHI3V_MODEL=model).stdout
    )
    assert record["text"] + "\n" == plain.stdout.decode()
    assert record["usage"]["image_tokens"] == 313
    assert (record["synthetic"], record["device"]) == (True, "cpu")


@pytest.mark.torch
def test_an_error_is_one_line_on_stderr_and_status_1(model: str) -> None:
    done = run("ask", "hi", "absent.png", "--model", model)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"absent.png" in done.stderr
    assert b"Traceback" not in done.stderr


def test_what_is_wrong_with_a_request_is_said_before_a_model_is_loaded(photo: str) -> None:
    for arguments, said in (((photo, "--top-p", "7"), b"top_p"), (("absent.png",), b"absent.png")):
        done = run("ask", "hi", *arguments, "--model", "/no/model/here")
        assert done.returncode == 1
        assert said in done.stderr
        assert b"/no/model/here" not in done.stderr


def test_standard_input_is_read_no_further_than_a_picture_may_be_large() -> None:
    code = "import sys; b = bytes(1 << 20)\nwhile sys.stdout.buffer.write(b): pass"
    with started([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as endless:
        done = subprocess.run([*PHI3V, "info", "-"], stdin=endless.stdout, capture_output=True, timeout=PATIENCE_S)
    assert done.returncode == 1
    assert b"100 MiB" in done.stderr


def through_sh(line: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a shell line, where it is `phi3v "$@"`."""
    script = line.replace("phi3v", " ".join(f"'{part}'" for part in PHI3V))
    return subprocess.run(
        ["sh", "-c", script, "sh", *arguments], capture_output=True, env=os.environ | env, timeout=PATIENCE_S
    )


@needs_posix
@pytest.mark.torch
def test_closed_streams_are_no_crash(photo: str, model: str) -> None:
    done = through_sh('phi3v "$@" <&-', "info", "-")
    assert done.returncode == 2
    assert b"standard input" in done.stderr
    assert through_sh('phi3v "$@" >&-', "info", photo).returncode == 0
    done = through_sh('phi3v "$@" >&-', "ask", "hi", "--model", model, "--max-new-tokens", "3")
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)


@pytest.mark.torch
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("command", [["info"], ["ask", "hi", "--max-new-tokens", "3", "--model"]], ids=["info", "ask"])
def test_a_full_disk_behind_stdout_is_one_line(model: str, command: list[str]) -> None:
    done = through_sh('phi3v "$@" >/dev/full', *command, model)
    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[-1] == "Error: standard output cannot be written (No space left on device)"


@needs_posix
def test_what_the_system_refuses_is_a_message(tmp_path: Path) -> None:
    done = run("info", "x" * 300)
    assert done.returncode == 1
    assert b"File name too long" in done.stderr
    assert b"Traceback" not in done.stderr


@needs_linux
@pytest.mark.torch
def test_a_terminal_that_lacks_characters_gets_escapes(model: str, photo: str, tmp_path: Path) -> None:
    options = ("--model", model, "--max-new-tokens", "40")
    plain = run("ask", "hi", *options, PYTHONIOENCODING="utf-8").stdout.decode()
    assert not plain.isascii()
    done = run("ask", "hi", *options, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert done.stdout.decode() == plain.encode("ascii", "backslashreplace").decode()
    record = json.loads(run("ask", "hi", *options, "--json", PYTHONIOENCODING="ascii").stdout)
    assert record["text"] + "\n" == plain
    odd = os.fsencode(tmp_path) + b"/m\xff.webp"
    shutil.copyfile(photo, odd)
    assert rb"m\udcff.webp: 300 x 200" in run("info", os.fsdecode(odd)).stdout


def test_a_default_model_that_is_set_and_broken_fails_doctor() -> None:
    done = run("doctor", "--json", PHI3V_MODEL="/no/model/here")
    found = {check["name"]: check["status"] for check in json.loads(done.stdout)}
    assert (found["default model"], done.returncode) == ("fail", 1)


@needs_posix
@pytest.mark.torch
def test_a_job_that_ignores_interrupts_goes_on(model: str) -> None:
    line = """trap '' INT; phi3v "$@" >/dev/null & sleep 1; kill -INT $!; sleep 0.2; kill -INT $!; wait $!"""
    done = through_sh(line, "ask", "hi", "--model", model, "--max-new-tokens", "4000")
    assert (done.returncode, b"interrupted" in done.stderr) == (0, False)


def test_info_tells_what_a_picture_costs(photo: str) -> None:
    done = run("info", photo)
    assert done.returncode == 0
    assert "300 x 200" in done.stdout.decode()
    assert "313" in done.stdout.decode()


@pytest.mark.torch
def test_info_describes_a_model_folder(model: str) -> None:
    assert "LongRoPE switch at 4096" in run("info", model).stdout.decode()


def test_doctor_finds_the_cpu_provider_and_telemetry_off() -> None:
    done = run("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert checks["CPUExecutionProvider"]["status"] == "ok"
    assert "nothing is sent" in checks["telemetry"]["detail"]


def test_doctor_prints_pips_extras_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_checks([Check("onnxruntime", "fail", "not installed", "pip install 'phi3v[cpu]'")])
    assert "pip install 'phi3v[cpu]'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "allowed"),
    [
        (precision_option, PRECISIONS),
        (build_device_option, DEVICES),
        (block_size_option, map(str, BLOCK_SIZES)),
        (prefill_option, PREFILLS),
    ],
    ids=["precision", "device", "block size", "prefill"],
)
def test_the_command_line_offers_what_the_exporter_takes(option: Callable[..., Any], allowed: Iterable[str]) -> None:
    kind = option(click.Command("export")).params[0].type
    assert list(kind.choices) == list(allowed)


@pytest.mark.torch
def test_export_refuses_a_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    done = run("export", str(tmp_path), str(tmp_path / "out"))
    assert done.returncode == 1
    assert b"config.json" in done.stderr
    assert not (tmp_path / "out").exists()


@needs_posix
@pytest.mark.torch
def test_a_reader_that_leaves_early_is_no_crash(model: str) -> None:
    line = f"{shlex.join(PHI3V)} ask hi --model '{model}' | true"
    done = subprocess.run(["bash", "-c", line], capture_output=True, timeout=PATIENCE_S)
    assert b"Traceback" not in done.stderr


@needs_posix
@pytest.mark.torch
def test_ctrl_c_ends_the_answer_and_not_with_a_traceback(model: str) -> None:
    arguments = ["ask", "hi", "--model", model, "--max-new-tokens", "100000"]
    with started([*PHI3V, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(20)
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        said = process.stderr.read().decode()
        assert process.wait(timeout=PATIENCE_S) == 130
    assert "interrupted" in said
    assert "Traceback" not in said
