"""nano keeps to a format on the pictures it was trained for, and answers as before where its answer already does."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import pytest

import phi3v
from phi3v.answer_format import Regex
from phi3v.export.nano.covers import cover_sample
from phi3v.models.folder import BUILTIN
from phi3v.structured.field_syntax import parse_fields


@dataclass(frozen=True)
class Book:
    title: str
    author: str
    year: int | None


@pytest.fixture(scope="module")
def nano() -> Iterator[phi3v.Engine]:
    with phi3v.load(BUILTIN, "cpu") as engine:
        yield engine


@pytest.mark.slow
def test_two_hundred_answers_are_two_hundred_objects(nano: phi3v.Engine) -> None:
    for number in range(200):
        sample = cover_sample(Random(f"format {number}"), held_out=number % 2 == 1)
        turn = sample.turns[0]
        book = nano.extract(Book, turn.question, [sample.pictures[0].original], max_new_tokens=1500)
        assert isinstance(book, Book)
        assert len(book.title) <= 300
        assert book.year is None or abs(book.year) < 10**15


@pytest.mark.slow
def test_an_answer_that_is_in_the_format_anyway_stays_as_it_is(nano: phi3v.Engine) -> None:
    same = 0
    for number in range(5):
        sample = cover_sample(Random(f"same {number}"))
        turn, picture = sample.turns[0], sample.pictures[0].original
        free = nano.generate(turn.question, [picture], max_new_tokens=160)
        if free.finish_reason != "stop":
            continue
        for pattern in (re.escape(free.text), "(?s).*", "[^\n]+"):
            bound = nano.generate(turn.question, [picture], max_new_tokens=160, answer_format=Regex(pattern))
            assert (bound.text, bound.token_ids) == (free.text, free.token_ids)
        same += 1
    assert same >= 3


def test_fields_hold_on_pictures_far_from_its_world(nano: phi3v.Engine) -> None:
    fields = parse_fields("colour red|green|blue, count int, words list[str]")
    for size in ((20, 20), (400, 90)):
        from PIL import Image

        result = nano.generate("What is this?", [Image.new("RGB", size)], max_new_tokens=3500, answer_format=fields)
        assert fields.read(result.text)["colour"] in ("red", "green", "blue")
