"""Every form of `Engine.extract` that works, for `mypy --strict` (.ci/typecheck); nothing here is run."""

from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Literal, TypedDict, assert_type

import phi3v


@dataclass
class Book:
    title: str
    year: int | None


class Kind(Enum):
    NOVEL = "novel"
    POEM = "poem"


class Row(TypedDict):
    name: str
    value: float


def ask_for_all(engine: phi3v.Engine) -> None:
    images = ["cover.png"]
    assert_type(engine.extract(Book, "Title and year?", images), Book)
    assert_type(engine.extract(list[Book], "Which books?", images), list[Book])
    assert_type(engine.extract(str, "Title?", images), str)
    assert_type(engine.extract(Kind, "Which kind?", images), Kind)
    assert_type(engine.extract(date, "When?", images), date)
    assert_type(engine.extract(dict[str, int], "Values?", images), dict[str, int])
    assert_type(engine.extract(tuple[str, int], "Title and year?", images), tuple[str, int])
    assert_type(engine.extract(Row, "Name and value?", images), Row)
    engine.extract(Literal["novel", "poem"], "Which kind?", images)
    engine.extract(int | None, "Year?", images)
    engine.extract(int | str, "Year or word?", images)
    engine.extract({"type": "object"}, "All?", images)
    engine.extract(phi3v.Choices(["yes", "no"]), "Is it a novel?", images)
