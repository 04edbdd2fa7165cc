"""The lines of `phi3v chat`: several lines as one question, marks of editors, completion, what is kept."""

import io
import json
import os
import sys
from pathlib import Path

import click
import pytest
from fake_cli import FakeCli

from phi3v.cli.chat_state import history_file, read_conversation
from phi3v.cli.line_input import LineInput, complete_word


def read(monkeypatch: pytest.MonkeyPatch, text: str) -> list[str]:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    return list(LineInput(()))


@pytest.mark.parametrize(
    ("text", "questions"),
    [
        ("one\ntwo\n", ["one", "two"]),
        ("\ufeff/image a.png\nhi\n", ["/image a.png", "hi"]),
        ("one\r\ntwo", ["one", "two"]),
        ("begun \\\nand ended\nnext\n", ["begun \nand ended", "next"]),
        ('"""\nfirst\n\nsecond\n"""\nnext\n', ["first\n\nsecond", "next"]),
        ('"""\nnever closed\n', ["never closed"]),
        ("ends in \\", ["ends in "]),
    ],
)
def test_lines_become_questions(monkeypatch: pytest.MonkeyPatch, text: str, questions: list[str]) -> None:
    assert read(monkeypatch, text) == questions


def test_commands_and_paths_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cover.png").touch()
    Path("covers").mkdir()
    commands = ("/image", "/reset", "/save")
    assert complete_word("/im", commands) == ["/image "]
    assert complete_word("cov", commands) == ["cover.png", f"covers{os.sep}"]
    assert complete_word("", commands) == []
    assert complete_word("[", commands) == []


def test_a_mistyped_command_gets_the_near_one(monkeypatch: pytest.MonkeyPatch) -> None:
    done = FakeCli(monkeypatch, "yes").run("chat", stdin="/imge a.png\n")
    assert "/imge is not a command; did you mean /image?; /help lists them" in done.stderr


def test_a_script_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    FakeCli(monkeypatch, "yes").run("chat", stdin="hi\n")
    assert list(tmp_path.iterdir()) == []


def test_a_conversation_goes_on_where_it_was_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = tmp_path / "phi3v"
    folder.mkdir()
    turns = [{"prompt": "My name is Ada.", "images": [], "answer": "Hello, Ada."}]
    (folder / "last-chat.json").write_text(json.dumps({"model": "any", "turns": turns}))
    cli = FakeCli(monkeypatch, "Ada")
    done = cli.run("chat", "--continue", stdin="What is my name?\n")
    assert done.exit_code == 0
    assert "1 turns of the last conversation are known" in done.stderr
    assert [turn.prompt for turn in read_conversation()] == ["My name is Ada.", "What is my name?"]
    assert (folder / "last-chat.json").stat().st_mode & 0o077 == 0 or os.name == "nt"


@pytest.mark.parametrize("content", [None, "{", '{"turns": 3}', '{"turns": [{}]}'])
def test_a_conversation_that_is_not_there_is_wrong_usage(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    file = history_file()
    assert file is not None
    if content is not None:
        file.with_name("last-chat.json").write_text(content)
    with pytest.raises(click.UsageError, match="no conversation"):
        read_conversation()


def test_continue_and_no_history_exclude_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    done = FakeCli(monkeypatch, "yes").run("chat", "--continue", "--no-history", stdin="hi\n")
    assert done.exit_code == 2
