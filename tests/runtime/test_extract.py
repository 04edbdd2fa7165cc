"""`extract` on a fake backend: which value each kind of answer becomes, and what cannot become one."""

import enum
import json
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from fake_backend import FakeBackend, says

import phi3v
from phi3v.answer_format import Choices, JsonSchema, Regex
from phi3v.errors import AnswerError, OptionError, TruncatedAnswerError


@dataclass
class Book:
    title: str
    year: int | None


@dataclass
class Shelf:
    books: list[Book]


@dataclass
class Even:
    value: int

    def __post_init__(self) -> None:
        if self.value % 2:
            raise ValueError("an odd value")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (str, '"a word"', "a word"),
        (int, "42", 42),
        (float, "2.5", 2.5),
        (float, "3", 3.0),
        (bool, "true", True),
        (int | None, "null", None),
        (list[int], "[1, 2]", [1, 2]),
        (Literal["yes", "no"], '"no"', "no"),
        (Colour, '"blue"', Colour.BLUE),
        (Book, '{"title": "Dune", "year": 1965}', Book("Dune", 1965)),
        (Book, '{"title": "Dune", "year": null}', Book("Dune", None)),
        (list[Book], '[{"title": "A", "year": 1}]', [Book("A", 1)]),
        (Shelf, '{"books": [{"title": "A", "year": 1}]}', Shelf([Book("A", 1)])),
        ({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}, '{"n": 5}', {"n": 5}),
        (JsonSchema({"enum": [[1], [2]]}), "[2]", [2]),
        (Regex("[0-9]{4}"), "1965", "1965"),
        (Choices(["chart", "cover"]), "cover", "cover"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_answer_becomes_a_value_of_its_kind(kind: Any, text: str, value: Any) -> None:
    found = phi3v.Engine(FakeBackend(text)).extract(kind, "hi")
    assert (found, type(found)) == (value, type(value))


def test_an_answer_ends_where_its_format_ends_whatever_the_model_would_say_next() -> None:
    backend = FakeBackend(says('{"title": "Dune", "year": 1965} and more'))
    assert phi3v.Engine(backend).extract(Book, "hi") == Book("Dune", 1965)


def test_a_model_that_says_something_else_is_kept_to_the_format() -> None:
    backend = FakeBackend("No JSON at all.")
    assert phi3v.Engine(backend).extract(Literal["yes", "no"], "hi") in ("yes", "no")


def test_the_options_of_generate_hold_for_extract() -> None:
    with pytest.raises(TruncatedAnswerError, match=r"max_new_tokens \(3\)") as caught:
        phi3v.Engine(FakeBackend('{"title": "Dune", "year": 1965}')).extract(Book, "hi", max_new_tokens=3)
    assert '{"title": "Dune"'.startswith(caught.value.text)
    with pytest.raises(TypeError, match="stopp"):
        phi3v.Engine(FakeBackend()).extract(Book, "hi", stopp=["x"])  # type: ignore[call-overload]


def test_the_generation_of_a_truncated_answer_is_freed() -> None:
    backend = FakeBackend('{"title": "Dune", "year": 1965}', "42")
    engine = phi3v.Engine(backend)
    with pytest.raises(TruncatedAnswerError):
        engine.extract(Book, "hi", max_new_tokens=3)
    assert backend.log.running == 0
    assert engine.extract(int, "hi") == 42


def test_a_truncated_stream_holds_what_there_is() -> None:
    stream = phi3v.Engine(FakeBackend("[1, 2, 3]")).stream(
        "hi", max_new_tokens=3, answer_format=JsonSchema({"type": "array", "items": {"type": "integer"}})
    )
    with pytest.raises(TruncatedAnswerError), stream:
        list(stream)
    assert (stream.result.finish_reason, len(stream.result.token_ids)) == ("length", 3)
    with pytest.raises(json.JSONDecodeError):
        json.loads(stream.result.text)


def test_what_the_type_itself_refuses_is_an_error_that_holds_the_answer() -> None:
    with pytest.raises(AnswerError, match="an odd value") as caught:
        phi3v.Engine(FakeBackend('{"value": 3}')).extract(Even, "hi")
    assert caught.value.text == '{"value": 3}'


def test_what_is_no_kind_of_answer_is_refused_before_anything_runs() -> None:
    backend = FakeBackend()
    for kind in (object, dict, list, set[object]):
        with pytest.raises(OptionError, match="cannot be an answer"):
            phi3v.Engine(backend).extract(kind, "hi")
    assert backend.log.prompts == []
