"""Environment variables set to nonsense: a right answer, or a message that names the variable and what to do."""

import os
import subprocess
from pathlib import Path

import pytest
from places import ROOT
from platforms import needs_posix
from processes import PATIENCE_S, PHI3V

pytestmark = needs_posix

COVER = str(ROOT / "examples" / "cover.png")
ASK = ("ask", "What is the title?", COVER, "-m", "nano", "--no-warm")
PULL = ("pull", "--dry-run")
NOWHERE = "http://127.0.0.1:9"

HUB = {
    "HF_HUB_DOWNLOAD_TIMEOUT": "60s",
    "HF_HUB_ETAG_TIMEOUT": "1.5",
    "HF_ENDPOINT": "http://[bad",
    "ALL_PROXY": "socks5://127.0.0.1:1",
    "HTTPS_PROXY": "::::",
    "http_proxy": "ftp://127.0.0.1:1",
    "HF_TOKEN": "töken",
    "SSL_CERT_FILE": "/nope",
    "SSL_CERT_DIR": "/nope",
}
"""Only what fetches needs these. `pull` names each."""

OURS = {
    "PHI3V_DEVICE": "gpuu",
    "PHI3V_THREADS": "many",
    "PHI3V_PREFILL": "int5",
}
"""What runs a model reads these, and names each."""

ANY = {
    "HF_HOME": "/proc/nowhere",
    "HF_HUB_CACHE": "/proc/nowhere",
    "HF_HUB_OFFLINE": "maybe",
    "XDG_CACHE_HOME": "\n",
    "XDG_STATE_HOME": "/proc/nowhere",
    "XDG_RUNTIME_DIR": "/proc/nowhere",
    "HOME": "/proc/nowhere",
    "COLUMNS": "wide",
    "TERM": "no-such-terminal",
    "LANG": "xx_YY.nonsense",
    "OMP_NUM_THREADS": "all",
    "CUDA_VISIBLE_DEVICES": "first",
    "PYTHONIOENCODING": "ascii",
    "NO_PROXY": "[",
}
"""None of these keeps nano from answering."""


def run(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().endswith("_PROXY") and not name.startswith("SSL_CERT")
    }
    # No hub answers: what is asked for is what comes before that.
    env = kept | {"HF_ENDPOINT": NOWHERE} | changes
    done = subprocess.run(
        [*PHI3V, *arguments], capture_output=True, text=True, env=env, timeout=PATIENCE_S, errors="replace"
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture(scope="module")
def title() -> str:
    done = run(*ASK)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", [*HUB, *ANY])
def test_nano_answers_all_the_same(name: str, title: str) -> None:
    done = run(*ASK, **{name: (HUB | ANY)[name]})
    assert (done.returncode, done.stdout) == (0, title), done.stderr


@pytest.mark.parametrize("name", OURS)
def test_a_wrong_variable_of_ours_is_named(name: str) -> None:
    done = run(*ASK, **{name: OURS[name]})
    assert done.returncode in (1, 2)
    assert name in done.stderr


@pytest.mark.parametrize("name", HUB)
def test_pull_names_a_variable_that_its_library_cannot_use(name: str) -> None:
    done = run(*PULL, **{name: HUB[name]})
    assert done.returncode == 1
    assert name in done.stderr
    assert f"unset {name}" in done.stderr


@pytest.mark.parametrize("name", ["HF_HOME", "HF_HUB_CACHE", "NO_PROXY", "COLUMNS", "LANG"])
def test_pull_says_what_is_wrong_without_a_traceback(name: str) -> None:
    assert run(*PULL, **{name: ANY[name]}).returncode == 1  # no hub answers


@pytest.mark.slow
@pytest.mark.parametrize("name", [*HUB, *OURS, *ANY])
def test_doctor_examines_the_machine_all_the_same(name: str) -> None:
    done = run("doctor", **{name: (HUB | OURS | ANY)[name]})
    assert "python" in done.stdout


def test_a_wrong_model_in_the_environment_is_named_as_the_source() -> None:
    for value in ("phi-3-vison", "/no/such/folder"):
        done = run("ask", "hi", COVER, "--no-warm", PHI3V_MODEL=value)
        assert done.returncode == 1
        assert f"PHI3V_MODEL is set to '{value}'" in done.stderr


@pytest.mark.parametrize("arguments", [("--help",), ("ask", "--help"), ("models",), ASK])
def test_a_full_disk_behind_standard_output_is_said(arguments: tuple[str, ...]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run([*PHI3V, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=PATIENCE_S)
    assert done.returncode == 1
    assert "standard output cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("kib", [200_000, 400_000, 1_000_000])
def test_too_little_memory_is_said(kib: int) -> None:
    shell = f'ulimit -v {kib}; exec "$@"'
    done = subprocess.run(
        ["bash", "-c", shell, "bash", *PHI3V, *ASK], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == 0 or "Error" in done.stderr or "memory" in done.stderr.lower(), done.stderr


def test_an_image_may_come_through_a_pipe_of_the_shell(title: str) -> None:
    line = f'exec {PHI3V[0]} -P -m phi3v ask "What is the title?" <(cat {COVER}) -m nano --no-warm'
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.returncode, done.stdout) == (0, title), done.stderr
