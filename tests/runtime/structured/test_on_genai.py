"""Answers in a format from the real genai, with a tiny random model: nothing answers worse."""

import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from exports import Exports

import phi3v
from phi3v.answer_format import Choices, JsonSchema, Regex
from phi3v.errors import OptionError, TruncatedAnswerError
from phi3v.structured import constraint
from phi3v.structured.field_syntax import parse_fields

pytestmark = pytest.mark.torch

PICTURE = np.full((100, 200, 3), 90, dtype=np.uint8)
FIELDS = parse_fields("title, year int?, kind novel|poem")


@dataclass(frozen=True)
class Book:
    title: str
    year: int | None
    tags: list[str]


@pytest.fixture(scope="module")
def engine(exports: Exports) -> phi3v.Engine:
    return phi3v.load(exports.model("fp32", seed=1, context=8192), "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("sampled", [False, True], ids=["greedy", "drawn"])
def test_random_weights_answer_with_valid_objects_or_say_that_they_were_cut(
    engine: phi3v.Engine, sampled: bool
) -> None:
    whole, cut = 0, []
    for seed in range(30):
        how: dict[str, Any] = {"temperature": 1.0, "seed": seed} if sampled else {"repetition_penalty": 1 + seed / 10}
        try:
            result = engine.generate(f"number {seed}", max_new_tokens=700, answer_format=FIELDS, **how)
        except TruncatedAnswerError as exc:
            cut.append(exc.text)
            continue
        assert list(json.loads(result.text)) == ["title", "year", "kind"]
        assert result.finish_reason == "stop"
        whole += 1
    assert whole >= 20
    assert all(len(text) > 200 for text in cut)


def test_an_answer_cut_by_max_new_tokens_is_an_error_that_holds_it(engine: phi3v.Engine) -> None:
    whole = engine.generate("hi", [PICTURE], num_crops=1, max_new_tokens=2000, answer_format=FIELDS)
    with pytest.raises(TruncatedAnswerError, match=r"max_new_tokens \(9\)") as caught:
        engine.generate("hi", [PICTURE], num_crops=1, max_new_tokens=9, answer_format=FIELDS)
    assert caught.value.text
    assert whole.text.startswith(caught.value.text.rstrip("\ufffd"))
    stream = engine.stream("hi", [PICTURE], num_crops=1, max_new_tokens=9, answer_format=FIELDS)
    with pytest.raises(TruncatedAnswerError):
        list(stream)
    assert stream.result.finish_reason == "length"
    assert stream.result.token_ids == whole.token_ids[:9]


def test_an_answer_that_is_whole_with_its_last_token_is_no_error(engine: phi3v.Engine) -> None:
    whole = engine.generate("hi", max_new_tokens=2000, answer_format=FIELDS)
    count = whole.usage.completion_tokens
    exact = engine.generate("hi", max_new_tokens=count, answer_format=FIELDS)
    assert (exact.text, exact.finish_reason) == (whole.text, "stop")
    with pytest.raises(TruncatedAnswerError):
        engine.generate("hi", max_new_tokens=count - 1, answer_format=FIELDS)


def test_the_streamed_text_is_the_answer(engine: phi3v.Engine) -> None:
    with engine.stream("hi", [PICTURE], num_crops=1, max_new_tokens=2000, answer_format=FIELDS) as stream:
        text = "".join(token.text for token in stream)
    assert text == stream.result.text
    assert json.loads(text)


def test_choices_and_patterns_hold(engine: phi3v.Engine) -> None:
    assert engine.generate("hi", answer_format=Choices(["yes", "yes sir"])).text in ("yes", "yes sir")
    for seed in range(10):
        how: dict[str, Any] = {"temperature": 2.0, "seed": seed}
        assert re.fullmatch("[0-9]{4}", engine.generate("hi", answer_format=Regex("[0-9]{4}"), **how).text)
        assert engine.generate("hi", answer_format=Choices(["é😀", " lead", "a\nb"]), **how).text in (
            "é😀",
            " lead",
            "a\nb",
        )


def test_a_looser_format_does_not_change_an_answer_it_already_admits(engine: phi3v.Engine) -> None:
    narrow = engine.generate("hi", max_new_tokens=40, answer_format=Regex("[ -~]{12}"))
    assert narrow.usage.completion_tokens >= 1
    same = engine.generate("hi", max_new_tokens=40, answer_format=Regex(f"[ -~]{{12}}|{re.escape(narrow.text)}"))
    assert same.token_ids == narrow.token_ids


def test_extract_gives_values_of_the_type_it_was_given(engine: phi3v.Engine) -> None:
    book = engine.extract(Book, "hi", [PICTURE], num_crops=1, max_new_tokens=7500, temperature=1.0, seed=3)
    assert isinstance(book, Book)
    assert isinstance(book.title, str)
    assert isinstance(engine.extract(bool, "hi"), bool)
    assert engine.extract(Choices(["a", "b"]), "hi") in ("a", "b")
    schema = {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 2}
    assert [type(value) for value in engine.extract(schema, "hi")] == [bool, bool]


def test_extract_raises_when_the_answer_was_cut_and_for_options_it_does_not_know(engine: phi3v.Engine) -> None:
    with pytest.raises(TruncatedAnswerError):
        engine.extract(Book, "hi", max_new_tokens=3)
    with pytest.raises(TypeError, match="colour"):
        engine.extract(Book, "hi", colour="red")  # type: ignore[call-overload]


def test_a_cancelled_answer_is_no_error(engine: phi3v.Engine) -> None:
    stream = engine.stream("hi", max_new_tokens=2000, answer_format=FIELDS)
    next(iter(stream))
    stream.cancel()
    assert stream.result.finish_reason == "cancelled"


def test_the_engine_is_usable_after_each_error(engine: phi3v.Engine) -> None:
    before = engine.generate("hi", max_new_tokens=2000, answer_format=FIELDS).token_ids
    plain = engine.generate("hi", max_new_tokens=8).token_ids
    bad: list[tuple[type[Exception], Any]] = [
        (OptionError, Regex("(")),
        (OptionError, JsonSchema({"uniqueItems": True})),
        (OptionError, JsonSchema({"$ref": "https://example.org/schema.json"})),
        (TruncatedAnswerError, Regex("[a-z]{9000}")),
        (OptionError, JsonSchema({"type": "integer", "minimum": 10**400})),
    ]
    for error, answer_format in bad:
        with pytest.raises(error):
            engine.generate("hi", max_new_tokens=30, answer_format=answer_format)
        assert engine.generate("hi", max_new_tokens=2000, answer_format=FIELDS).token_ids == before
    assert engine.generate("hi", max_new_tokens=8).token_ids == plain


def test_a_format_that_grows_too_large_on_the_way_ends_its_answer_alone(
    engine: phi3v.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = engine.generate("hi", max_new_tokens=2000, answer_format=FIELDS).token_ids
    with monkeypatch.context() as limited:
        limited.setitem(constraint._LIMITS, "max_lexer_states", 60)
        with pytest.raises(OptionError, match="too many states"):
            engine.generate("hi", max_new_tokens=2000, answer_format=FIELDS)
    assert engine.generate("hi", max_new_tokens=2000, answer_format=FIELDS).token_ids == before


def test_a_format_is_refused_before_a_picture_is_read(engine: phi3v.Engine) -> None:
    with pytest.raises(OptionError, match="unclosed"):
        engine.stream("hi", ["absent.png"], answer_format=Regex("("))


def test_no_format_loads_no_llguidance(engine: phi3v.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phi3v.structured.constraint.import_llguidance", None)
    assert engine.generate("hi", max_new_tokens=2).usage.completion_tokens == 2


def test_a_folder_built_with_phi3_tokens_ends_with_any_of_its_end_tokens(exports: Exports) -> None:
    with phi3v.load(exports.model("fp32", seed=2, vocab_size=32064), "cpu") as engine:
        result = engine.generate("hi", max_new_tokens=2000, answer_format=FIELDS, temperature=1.0, seed=1)
        assert list(json.loads(result.text)) == ["title", "year", "kind"]
