"""What `phi3v ask` and `chat` say on stderr: once, short, and nothing with --quiet."""

from pathlib import Path

import pytest
from fake_backend import text_of
from fake_cli import FakeCli

from phi3v.models.folder import BUILTIN

NANO = {"path": BUILTIN, "brief": "a small demonstration model", "pulled_as": "nano"}


def test_an_answer_that_was_cut_off_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    done = FakeCli(monkeypatch, "a long answer").run("ask", "hi", "--max-new-tokens", "2")
    assert "phi3v: the answer was cut off after 2 tokens; --max-new-tokens 4 lets it go on" in done.stderr
    whole = FakeCli(monkeypatch, "a long answer").run("ask", "hi")
    assert "cut off" not in whole.stderr


def test_an_answer_that_was_cut_off_in_a_chat_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    done = FakeCli(monkeypatch, "a long answer").run("chat", "--max-new-tokens", "2", stdin="hi\n")
    assert "cut off after 2 tokens" in done.stderr


def test_quiet_leaves_the_answer_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    done = FakeCli(monkeypatch, "a long answer", synthetic=True).run("ask", "hi", "--max-new-tokens", "2", "--quiet")
    assert done.stdout.strip()
    assert done.stderr == ""


def test_quiet_still_lets_errors_through(monkeypatch: pytest.MonkeyPatch) -> None:
    done = FakeCli(monkeypatch, "x").run("ask", "hi", "absent.png", "--quiet")
    assert done.exit_code == 1
    assert "absent.png" in done.stderr


def test_the_built_in_model_is_announced_in_one_line_unless_it_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    done = FakeCli(monkeypatch, "yes", **NANO).run("ask", "hi")
    (line,) = done.stderr.splitlines()
    assert line == ("phi3v: answering with nano, a small demonstration model; `phi3v pull` fetches Phi-3-vision")
    assert FakeCli(monkeypatch, "yes", **NANO).run("ask", "hi", "-m", "nano").stderr == ""


def test_a_model_that_needs_an_image_is_not_asked_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    done = FakeCli(monkeypatch, "never said", needs_image=True).run("ask", "What is the title?")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "answers questions about images only, and none is given" in done.stderr


def test_a_model_that_knows_no_formats_is_said_not_to(monkeypatch: pytest.MonkeyPatch) -> None:
    done = FakeCli(monkeypatch, "yes", knows_formats=False).run("ask", "hi", "--choices", "yes,no")
    assert "has not learned to answer in a format" in done.stderr
    assert "format" not in FakeCli(monkeypatch, "yes").run("ask", "hi", "--choices", "yes,no").stderr


def test_what_is_not_read_of_an_image_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from PIL import Image

    pages = [Image.new("RGB", (40, 20), (n, 0, 0)) for n in range(3)]
    pages[0].save(tmp_path / "scan.tif", save_all=True, append_images=pages[1:])
    done = FakeCli(monkeypatch, "yes").run("ask", "hi", str(tmp_path / "scan.tif"))
    assert "scan.tif: page 1 of 3 is read, and no other" in done.stderr
    info = FakeCli(monkeypatch, "yes").run("info", str(tmp_path / "scan.tif"))
    assert "page 1 of 3" in info.stderr


def test_instructions_stand_in_front_of_the_question(monkeypatch: pytest.MonkeyPatch) -> None:
    cli = FakeCli(monkeypatch, "yes")
    assert cli.run("ask", "hi", "--system", "Be brief.").exit_code == 0
    (inputs,) = cli.backend.log.prompts
    assert text_of(inputs.input_ids).strip().startswith("Be brief.")
