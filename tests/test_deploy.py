"""What deploy/ starts is what the command line takes. .ci/extras.d/containers builds and runs the image itself."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

from phi3v.cli.main import main

DEPLOY = ROOT / "deploy"
CPU, CUDA = DEPLOY / "cpu.Dockerfile", DEPLOY / "cuda.Dockerfile"


def started_by(dockerfile: Path) -> list[str]:
    [command] = re.findall(r"^CMD (\[.*\])$", dockerfile.read_text(), re.MULTILINE)
    found: list[str] = json.loads(command)
    return found


def compose() -> Any:
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def check(command: list[str]) -> None:
    """Parse a command line of ours without running it."""
    name, *arguments = command
    main.commands[name].make_context(name, arguments)


def test_the_command_lines_are_ones_that_phi3v_takes() -> None:
    check(started_by(CPU))
    check(started_by(CUDA))
    check(compose()["services"]["phi3v"]["command"])
    [unit] = re.findall(r"^ExecStart=%h/\.local/bin/phi3v (.*)$", (DEPLOY / "phi3v.service").read_text(), re.MULTILINE)
    check(shlex.split(unit))


def test_a_command_line_that_phi3v_does_not_take_is_noticed() -> None:
    with pytest.raises(Exception, match="No such option"):
        check(["serve", "--hosts", "0.0.0.0"])


def test_the_dockerfiles_differ_in_the_device_alone() -> None:
    cpu, cuda = (
        [line for line in file.read_text().splitlines() if not line.startswith(("#", "ENV NVIDIA"))]
        for file in (CPU, CUDA)
    )
    differing = [(one, other) for one, other in zip(cpu, cuda, strict=True) if one != other]
    assert len(differing) == 2
    assert "[cpu,serve,mcp]" in differing[0][0]
    assert "[cuda,serve]" in differing[0][1]
    assert started_by(CUDA) == ["serve", "--device", "cuda", *started_by(CPU)[1:]]


@pytest.mark.parametrize("file", [CPU, CUDA])
def test_an_image_runs_as_nobody_special_and_is_watched(file: Path) -> None:
    text = file.read_text()
    last_stage = text[text.rindex("\nFROM ") :]
    for line in ("USER 10001", "VOLUME /models", "HEALTHCHECK"):
        assert re.search(f"^{line}", last_stage, re.MULTILINE)


def test_every_part_of_the_package_reaches_the_image() -> None:
    kept = {
        line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    project = (ROOT / "pyproject.toml").read_text()
    folders = set(re.findall(r'^"?phi3v[\w.]*"? = "(\w+)"$', project, re.MULTILINE))
    assert folders >= {"runtime", "cli", "examples"}
    assert kept >= folders | {"pyproject.toml", "README.md", "LICENSE", ".ci/constraints.txt"}


def test_open_webui_asks_the_server_that_compose_starts() -> None:
    services = compose()["services"]
    phi3v, webui = services["phi3v"], services["open-webui"]
    assert webui["environment"]["OPENAI_API_BASE_URL"] == "http://phi3v:8000/v1"
    assert webui["environment"]["OPENAI_API_KEY"] == phi3v["environment"]["PHI3V_API_KEY"]
    assert "phi3v" in phi3v["command"]  # a name that it is called by
    assert (DEPLOY / phi3v["build"]["dockerfile"].removeprefix("deploy/")).is_file()
    assert all(port.startswith("127.0.0.1:") for service in services.values() for port in service["ports"])


def test_the_files_that_the_page_of_integrations_names_are_there() -> None:
    page = (ROOT / "docs" / "integrations.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w~.])deploy/[\w.]+\w", page))
    assert len(named) >= 4
    assert [path for path in named if not (ROOT / path).is_file()] == []
