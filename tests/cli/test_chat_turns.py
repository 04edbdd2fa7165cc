"""`phi3v chat` on a fake backend, fed from a script: turns, commands, and the status it ends with."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_backend import IMAGE_TOKENS, builtin_tokenizer, fails
from fake_cli import FakeCli
from PIL import Image

Fake = Callable[..., FakeCli]


@pytest.fixture
def photo(tmp_path: Path) -> str:
    Image.new("RGB", (20, 10), "red").save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


def script(*lines: str) -> str:
    return "".join(f"{line}\n" for line in lines)


def errors(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if line.startswith("Error: ")]


def test_every_line_is_a_turn_that_knows_the_ones_before(fake_cli: Fake) -> None:
    cli = fake_cli("Red.", "Because.")
    done = cli.run("chat", stdin=script("Which colour?", "Why?"))
    assert (done.exit_code, done.stdout) == (0, "Red.\nBecause.\n")
    assert "Which colour?" in cli.backend.prompts[1]
    assert "Red." in cli.backend.prompts[1]
    assert (len(cli.loads), cli.backend.log.closed, cli.backend.log.running) == (1, True, 0)


def test_each_answer_is_followed_by_the_context_in_use(fake_cli: Fake) -> None:
    cli = fake_cli("Red.", context_length=100)
    done = cli.run("chat", "--max-new-tokens", "20", stdin=script("Which colour?"))
    used = len(cli.backend.log.prompts[0].input_ids) + len(builtin_tokenizer().encode_text("Red."))
    assert done.stderr.splitlines()[-1].startswith(f"[context {used} of 100 tokens, {used} %, ")


def test_the_images_are_shown_once(fake_cli: Fake, photo: str) -> None:
    cli = fake_cli("Red.", "Because.")
    cli.run("chat", photo, stdin=script("Which colour?", "Why?"))
    assert cli.backend.log.prefills[0] > IMAGE_TOKENS > cli.backend.log.prefills[1]


def test_blank_lines_are_no_turns_and_quit_ends(fake_cli: Fake) -> None:
    cli = fake_cli("Red.")
    done = cli.run("chat", stdin=script("", "   ", "Which colour?", "/quit", "Why?"))
    assert (done.exit_code, done.stdout, len(cli.backend.log.prompts)) == (0, "Red.\n", 1)


def test_json_is_an_object_a_turn(fake_cli: Fake) -> None:
    done = fake_cli("Red.", "Because.").run("chat", "--json", stdin=script("Which colour?", "Why?"))
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(r["prompt"], r["text"], r["finish_reason"]) for r in records] == [
        ("Which colour?", "Red.", "stop"),
        ("Why?", "Because.", "stop"),
    ]
    assert records[1]["usage"]["prompt_tokens"] > records[0]["usage"]["prompt_tokens"]


def test_the_options_hold_for_every_turn(fake_cli: Fake) -> None:
    cli = fake_cli("Red and blue.", "Red and blue.")
    done = cli.run("chat", "--stop", " and", stdin=script("Which colours?", "Really?"))
    assert done.stdout == "Red\nRed\n"


def test_a_turn_that_fails_is_said_the_next_is_answered_and_the_status_is_1(fake_cli: Fake) -> None:
    cli = fake_cli(fails(0), "Because.")
    done = cli.run("chat", stdin=script("Which colour?", "Why?"))
    assert (done.exit_code, done.stdout, errors(done.stderr)) == (1, "Because.\n", ["Error: the fake engine broke"])
    assert "Which colour?" not in cli.backend.prompts[1]


def test_ctrl_c_ends_a_script_with_status_130(fake_cli: Fake) -> None:
    cli = fake_cli(fails(3, KeyboardInterrupt()), "Because.")
    done = cli.run("chat", stdin=script("Which colour?", "Why?"))
    assert (done.exit_code, len(cli.backend.log.prompts), cli.backend.log.running) == (130, 1, 0)


def test_a_reset_begins_a_new_conversation_with_the_same_images(fake_cli: Fake, photo: str) -> None:
    cli = fake_cli("Red.", "Blue.")
    done = cli.run("chat", photo, stdin=script("Which colour?", "/reset", "Which colour?"))
    assert done.stdout == "Red.\nBlue.\n"
    assert "a new conversation" in done.stderr
    one, two = cli.backend.log.prompts
    assert one.input_ids.tolist() == two.input_ids.tolist()


def test_an_image_goes_with_the_next_question(fake_cli: Fake, photo: str) -> None:
    cli = fake_cli("Hello.", "Red.", "Because.")
    cli.run("chat", stdin=script("Hello?", f"/image {photo}", "Which colour?", "Why?"))
    assert [inputs.image_tokens for inputs in cli.backend.log.prompts] == [(), (IMAGE_TOKENS,), (IMAGE_TOKENS,)]


def test_an_image_waits_for_a_turn_that_counts(fake_cli: Fake, photo: str) -> None:
    cli = fake_cli(fails(0), "Red.")
    cli.run("chat", stdin=script(f"/image '{photo}'", "Which colour?", "Which colour?"))
    assert [inputs.image_tokens for inputs in cli.backend.log.prompts] == [(IMAGE_TOKENS,)] * 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/no-such-command", "/no-such-command is not a command; /help lists them"),
        ("/image", "/image takes a path or URL"),
        ("/image absent.png", "absent.png"),
        ("/save", "/save takes a file name that ends in .md or .json"),
        ("/save talk.txt", "/save takes a file name that ends in .md or .json"),
        ("/save no/such/folder/talk.md", "No such file or directory"),
    ],
)
def test_a_bad_command_changes_nothing_but_the_status(fake_cli: Fake, line: str, said: str) -> None:
    cli = fake_cli("Red.")
    done = cli.run("chat", stdin=script(line, "Which colour?"))
    assert (done.exit_code, done.stdout) == (1, "Red.\n")
    (error,) = errors(done.stderr)
    assert said in error
    assert len(cli.backend.log.prompts) == 1


def test_help_lists_the_commands(fake_cli: Fake) -> None:
    done = fake_cli().run("chat", stdin=script("/help"))
    assert (done.exit_code, done.stdout) == (0, "")
    assert all(f"\n{name}" in done.stderr for name in ("/reset", "/save FILE", "/help", "/quit"))


def test_a_conversation_is_saved_as_its_suffix_says(fake_cli: Fake, photo: str, tmp_path: Path) -> None:
    lines = ("Which colour?", "Why?", f"/save {tmp_path}/talk.md", f"/save {tmp_path}/talk.json")
    done = fake_cli("Red.", "Because.").run("chat", photo, stdin=script(*lines))
    assert done.stderr.count("2 turns") == 2
    text = (tmp_path / "talk.md").read_text()
    assert text.startswith("# A conversation with nano\n\n## Which colour?\n\n![")
    assert text.endswith("\n\nRed.\n\n## Why?\n\nBecause.\n")
    saved = json.loads((tmp_path / "talk.json").read_text())
    assert saved["model"] == "nano"
    assert [(turn["prompt"], turn["answer"], turn["images"]) for turn in saved["turns"]] == [
        ("Which colour?", "Red.", [photo]),
        ("Why?", "Because.", []),
    ]


def test_a_file_of_somebody_elses_is_not_written_over_and_ones_own_is(fake_cli: Fake, tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs.md", tmp_path / "ours.md"
    theirs.write_text("theirs")
    done = fake_cli("Red.", "Because.").run(
        "chat", stdin=script("Which colour?", f"/save {theirs}", f"/save {ours}", "Why?", f"/save {ours}")
    )
    assert (done.exit_code, theirs.read_text()) == (1, "theirs")
    assert "give another name" in errors(done.stderr)[0]
    assert ours.read_text().endswith("Because.\n")


def test_a_conversation_that_fills_the_context_says_how_to_go_on(fake_cli: Fake) -> None:
    cli = fake_cli("Red.", "Blue.", context_length=60)
    lines = ("Which colour?", "Why is that so, and since when?", "/reset", "Which colour?")
    done = cli.run("chat", "--max-new-tokens", "20", stdin=script(*lines))
    assert (done.exit_code, done.stdout) == (1, "Red.\nBlue.\n")
    assert errors(done.stderr)[0].endswith("; /reset starts over")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("-",), 2, "standard input"),
        (("absent.png",), 1, "absent.png"),
        (("--top-k", "-1"), 1, "top_k"),
        (("--max-new-tokens", "none"), 2, "--max-new-tokens"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_wrong_is_said_before_a_model_is_loaded(
    fake_cli: Fake, arguments: tuple[str, ...], status: int, said: str
) -> None:
    cli = fake_cli()
    done = cli.run("chat", *arguments, stdin=script("hi"))
    assert (done.exit_code, done.stdout, cli.loads) == (status, "", [])
    assert said in done.stderr
