"""`phi3v ask` on a fake backend: what is printed where, the status it ends with, and what it asked for."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_backend import IMAGE_TOKENS, builtin_tokenizer, fails, says
from fake_cli import FakeCli
from PIL import Image

from phi3v.errors import ModelNotFoundError
from phi3v.models.folder import BUILTIN

Fake = Callable[..., FakeCli]
FOX = "The quick brown fox."


@pytest.fixture
def photo(tmp_path: Path) -> str:
    Image.new("RGB", (20, 10), "red").save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


def test_the_answer_is_on_stdout_and_what_answered_on_stderr(fake_cli: Fake) -> None:
    done = fake_cli(FOX).run("ask", "hi")
    assert (done.exit_code, done.stdout) == (0, f"{FOX}\n")
    (which,) = done.stderr.splitlines()
    assert which.startswith("phi3v: answering with nano, a small demonstration model")


def test_a_model_that_was_named_is_not_named_again(fake_cli: Fake) -> None:
    cli = fake_cli(FOX, about=None)
    done = cli.run("ask", "hi", "--model", "some/folder", "--device", "cpu")
    assert (done.stdout, done.stderr) == (f"{FOX}\n", "")
    assert cli.loads == [("some/folder", "cpu")]


def test_random_weights_are_said_to_be_random(fake_cli: Fake) -> None:
    done = fake_cli(FOX, about=None, synthetic=True).run("ask", "hi", "--model", "x")
    assert done.stderr == "phi3v: this model has random weights; its answers mean nothing\n"


def test_the_engine_is_closed_when_the_answer_is_there(fake_cli: Fake) -> None:
    cli = fake_cli(FOX)
    cli.run("ask", "hi")
    assert (cli.backend.log.closed, cli.backend.log.running, len(cli.loads)) == (True, 0, 1)


def test_json_is_one_object_with_all_that_is_known_of_the_answer(fake_cli: Fake, photo: str) -> None:
    cli = fake_cli(FOX)
    done = cli.run("ask", "What is this?", photo, "--json")
    record = json.loads(done.stdout)
    timings = record.pop("timings")
    ids = builtin_tokenizer().encode_text(FOX)
    prompt = len(cli.backend.log.prompts[0].input_ids)
    assert record == {
        "prompt": "What is this?",
        "text": FOX,
        "notes": [],
        "finish_reason": "stop",
        "usage": {
            "prompt_tokens": prompt,
            "image_tokens": IMAGE_TOKENS,
            "completion_tokens": len(ids),
            "cached_tokens": 0,
        },
        "model": str(BUILTIN),
        "device": "cpu",
        "synthetic": False,
        "warm": False,
    }
    assert list(timings) == [
        "load_s", "image_decode_s", "preprocess_s", "prefill_s", "decode_s", "decode_tokens", "ttft_s", "tpot_s"
    ]  # fmt: skip
    assert timings["ttft_s"] == pytest.approx(sum(timings[f"{s}_s"] for s in ("image_decode", "preprocess", "prefill")))
    assert timings["tpot_s"] == pytest.approx(timings["decode_s"] / timings["decode_tokens"])
    assert done.stdout.count("\n") == 1


def test_stats_are_six_lines_on_stderr(fake_cli: Fake, photo: str) -> None:
    cli = fake_cli(says(FOX, pauses=0.001))
    done = cli.run("ask", "hi", photo, "--stats")
    model, prompt, images, ttft, decode, total = done.stderr.splitlines()[-6:]
    tokens = len(cli.backend.log.prompts[0].input_ids)
    assert model.startswith("model       nano (fp16, cpu), loaded in ")
    assert prompt.startswith(f"prompt      {tokens} tokens, {IMAGE_TOKENS} of them ")
    assert "decoded in " in images
    assert ttft.startswith("TTFT        ")
    assert decode.startswith(f"decode      {len(builtin_tokenizer().encode_text(FOX))} tokens, ")
    assert total.endswith(" s, finished by stop")
    assert done.stdout == f"{FOX}\n"


def test_the_options_reach_the_model(fake_cli: Fake) -> None:
    cut = json.loads(fake_cli(FOX).run("ask", "hi", "--max-new-tokens", "3", "--json").stdout)
    assert (cut["finish_reason"], cut["usage"]["completion_tokens"]) == ("length", 3)
    assert fake_cli(FOX).run("ask", "hi", "--stop", "brown", "--stop", "x").stdout == "The quick\n"
    draw = ("ask", "hi", "--temperature", "100", "--max-new-tokens", "20", "--seed")
    one, again, other = (fake_cli(says(FOX, endless=True)).run(*draw, seed).stdout for seed in ("1", "1", "2"))
    assert one == again != other


def test_images_are_shown_in_the_order_given_and_cut_as_asked(fake_cli: Fake, photo: str, tmp_path: Path) -> None:
    Image.new("RGB", (640, 480)).save(tmp_path / "large.png")
    cli = fake_cli(FOX)
    cli.run("ask", "hi", photo, str(tmp_path / "large.png"), "--num-crops", "auto")
    assert cli.backend.log.prompts[0].image_tokens == (IMAGE_TOKENS, 757)


def test_an_image_comes_from_standard_input(fake_cli: Fake, photo: str) -> None:
    cli = fake_cli(FOX)
    done = cli.run("ask", "hi", "-", stdin=Path(photo).read_bytes())
    assert (done.exit_code, done.stdout) == (0, f"{FOX}\n")
    assert cli.backend.log.prompts[0].image_tokens == (IMAGE_TOKENS,)


def test_an_empty_answer_is_an_empty_line(fake_cli: Fake) -> None:
    done = fake_cli(says("")).run("ask", "hi")
    assert (done.exit_code, done.stdout) == (0, "\n")


def test_several_questions_share_a_model_and_its_images(fake_cli: Fake, photo: str) -> None:
    cli = fake_cli("Red.", "Blue.", "Green.")
    done = cli.run("ask", "One?", photo, "-q", "Two?", "-q", "Three?")
    assert done.stdout == "Red.\n\nBlue.\n\nGreen.\n"
    assert [line for line in done.stderr.splitlines() if line.startswith(">")] == ["> One?", "> Two?", "> Three?"]
    assert len(cli.loads) == 1
    assert cli.backend.log.prefills[0] > IMAGE_TOKENS > max(cli.backend.log.prefills[1:])
    assert "One?" not in cli.backend.prompts[1]


def test_several_questions_in_json_are_a_line_each(fake_cli: Fake) -> None:
    done = fake_cli("Red.", "Blue.").run("ask", "One?", "-q", "Two?", "--json")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(record["prompt"], record["text"]) for record in records] == [("One?", "Red."), ("Two?", "Blue.")]
    assert not [line for line in done.stderr.splitlines() if line.startswith(">")]


def test_the_options_hold_for_every_question(fake_cli: Fake) -> None:
    done = fake_cli(FOX, FOX).run("ask", "One?", "-q", "Two?", "--stop", " quick", "--json")
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["The", "The"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--choices", "chart, cover"), "cover"),
        (("--choices", '["a, b", "c"]'), "a, b"),
        (("--regex", "[0-9]{4}"), "1965"),
        (("--schema", "title, year int?"), '{"title": "Dune", "year": 1965}'),
    ],
    ids=["choices", "json choices", "regex", "schema"],
)
def test_an_answer_in_a_format_is_printed_as_a_whole(fake_cli: Fake, options: tuple[str, ...], text: str) -> None:
    done = fake_cli(f"{text} and more").run("ask", "hi", *options)
    assert (done.exit_code, done.stdout) == (0, f"{text}\n")
    record = json.loads(fake_cli(text).run("ask", "hi", *options, "--json").stdout)
    assert (record["text"], record["finish_reason"]) == (text, "stop")


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
def test_an_answer_in_a_format_that_was_cut_prints_nothing_on_stdout(fake_cli: Fake, form: tuple[str, ...]) -> None:
    cli = fake_cli('{"title": "Dune"}')
    done = cli.run("ask", "hi", "--schema", "title", "--max-new-tokens", "3", *form)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("Error: max_new_tokens (3) ended the answer")
    assert cli.backend.log.closed


def test_an_engine_that_fails_in_the_middle_is_one_line_and_status_1(fake_cli: Fake) -> None:
    cli = fake_cli(fails(6, text=FOX))
    done = cli.run("ask", "hi")
    assert (done.exit_code, FOX.startswith(done.stdout), done.stdout != "") == (1, True, True)
    assert done.stderr.splitlines()[-1] == "Error: the fake engine broke"
    assert (cli.backend.log.closed, cli.backend.log.running) == (True, 0)


def test_ctrl_c_in_the_middle_ends_with_status_130(fake_cli: Fake) -> None:
    cli = fake_cli(fails(6, KeyboardInterrupt(), text=FOX))
    done = cli.run("ask", "hi")
    assert done.exit_code == 130
    assert done.stderr.endswith("\ninterrupted\n")
    assert (cli.backend.log.closed, cli.backend.log.running) == (True, 0)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("",), 1, "prompt"),
        (("<|image_1|>",), 1, "image_1"),
        (("hi", "-q", "<|image_3|>"), 1, "image_3"),
        (("hi", "absent.png"), 1, "absent.png"),
        (("hi", "ftp://example.org/x.png"), 1, "ftp"),
        (("hi", "--top-p", "7"), 1, "top_p"),
        (("hi", "--temperature", "-1"), 1, "temperature"),
        (("hi", "--seed", "-1"), 1, "seed"),
        (("hi", "--max-new-tokens", "0"), 2, "--max-new-tokens"),
        (("hi", "--num-crops", "17"), 2, "17"),
        (("hi", "--device", "tpu"), 2, "--device"),
        (("hi", "-", "-"), 2, "given twice"),
        (("hi", "--regex", "a", "--choices", "b"), 2, "exclude each other"),
        (("hi", "--regex", "a("), 1, "unclosed group"),
        (("hi", "--choices", "a", "--stop", "b"), 1, "stop strings"),
        (("hi", "--keep-alive", "10x"), 2, "10m"),
        (("hi", "--keep-alive", "5m", "--no-warm"), 2, "exclude each other"),
        (("hi", "--keep-alive", "5m", "-q", "ho"), 2, "exclude each other"),
        ((), 2, "PROMPT"),
        (("hi", "--no-such-option"), 2, "--no-such-option"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_wrong_is_said_before_a_model_is_loaded(
    fake_cli: Fake, arguments: tuple[str, ...], status: int, said: str
) -> None:
    cli = fake_cli(FOX)
    done = cli.run("ask", *arguments)
    assert (done.exit_code, done.stdout) == (status, "")
    assert said in done.stderr
    assert cli.loads == []


def test_a_request_beyond_the_context_is_one_line(fake_cli: Fake) -> None:
    done = fake_cli(FOX).run("ask", "hi", "--max-new-tokens", "5000")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "lower max_new_tokens" in done.stderr.splitlines()[-1]


def test_a_model_that_cannot_be_loaded_is_one_line(fake_cli: Fake) -> None:
    cli = fake_cli()
    cli.load_error = ModelNotFoundError("no such model")
    done = cli.run("ask", "hi")
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", "Error: no such model\n")
