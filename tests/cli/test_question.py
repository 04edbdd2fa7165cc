"""Which words of `phi3v ask` are the question: an image in its place never becomes an invented answer."""

from pathlib import Path

import click
import pytest
from fake_cli import FakeCli
from PIL import Image

from phi3v.cli.question import decode_text, split_words

QUESTION = "What is the title?"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("cover.png", "back.png", "my photo.jpg"):
        Image.new("RGB", (40, 20)).save(name)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "prompt", "images"),
    [
        ((QUESTION, "cover.png"), QUESTION, ("cover.png",)),
        (("cover.png", QUESTION), QUESTION, ("cover.png",)),
        (("cover.png", "back.png", QUESTION), QUESTION, ("cover.png", "back.png")),
        (("cover.png", QUESTION, "back.png"), QUESTION, ("cover.png", "back.png")),
        (("-", QUESTION), QUESTION, ("-",)),
        (("https://example.org/a.png", QUESTION), QUESTION, ("https://example.org/a.png",)),
        ((QUESTION,), QUESTION, ()),
        (("What is in absent.png?",), "What is in absent.png?", ()),
        (("What is in ./cover.png?", "cover.png"), "What is in ./cover.png?", ("cover.png",)),
        (("absent.png", QUESTION), QUESTION, ("absent.png",)),
    ],
)  # fmt: skip
def test_a_question_is_told_from_images_in_any_order(
    here: Path, words: tuple[str, ...], prompt: str, images: tuple[str, ...]
) -> None:
    assert split_words(words[0], words[1:]) == (prompt, images)


@pytest.mark.parametrize(
    ("words", "suggested"),
    [
        (("cover.png",), 'phi3v ask "What is this?" cover.png'),
        (("cover.png", "back.png"), 'phi3v ask "What is this?" cover.png back.png'),
        (("cover.png", "absent.png"), 'phi3v ask "What is this?" cover.png absent.png'),
        (("absent.png",), 'phi3v ask "What is this?" absent.png'),
        (("my photo.jpg",), "phi3v ask \"What is this?\" 'my photo.jpg'"),
        (("what is in ./cover.png?",), "phi3v ask 'what is in ./cover.png?' ./cover.png"),
        (('read "cover.png", please',), "cover.png"),
        (("cover.png", "one question", "another one"), "phi3v ask"),
    ],
)
def test_an_image_in_the_questions_place_is_refused_with_the_line_to_type(
    here: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], suggested: str
) -> None:
    cli = FakeCli(monkeypatch, "never said")
    done = cli.run("ask", *words)
    assert (done.exit_code, done.stdout, cli.loads) == (2, "", [])
    assert suggested in done.stderr


def test_a_question_may_come_from_a_file_or_from_standard_input(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("question.txt").write_bytes(b"\xef\xbb\xbfWhat is this?\r\n")
    Path("wide.txt").write_text("Größe?", encoding="utf-16")
    for word, stdin, asked in (
        ("@question.txt", "", "What is this?"),
        ("@wide.txt", "", "Größe?"),
        ("@-", "From a pipe?\n", "From a pipe?"),
        ("@@home", "", "@home"),
    ):
        cli = FakeCli(monkeypatch, "an answer")
        assert cli.run("ask", word, "--json", stdin=stdin).stdout.startswith('{"prompt": "' + asked.split("ö")[0])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("@absent.txt",), "a question that begins with @ is written @@"),
        (("@-", "-"), "standard input cannot be the question (@-) and an image (-) at once"),
    ],
)
def test_a_question_that_cannot_be_read_is_wrong_usage(
    here: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    done = FakeCli(monkeypatch, "never said").run("ask", *words)
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.split())


def test_text_that_is_no_text_is_refused() -> None:
    with pytest.raises(click.UsageError, match="is not UTF-8 text"):
        decode_text(b"\xff\x00\x9d", "@file")
