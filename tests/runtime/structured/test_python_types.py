"""Types as answer formats: dataclasses, enums, lists, pydantic models, and fields in a few words."""

import json
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Annotated, Any, ClassVar, Literal, Optional

import pytest

from phi3v.answer_format import Choices, JsonSchema, Regex
from phi3v.errors import AnswerError, OptionError
from phi3v.structured.field_syntax import parse_fields
from phi3v.structured.python_types import answer_type


class Genre(Enum):
    NOVEL = "novel"
    POEM = "poem"


class Stars(IntEnum):
    ONE = 1
    TWO = 2


@dataclass
class Person:
    name: str
    born: int | None = None


@dataclass(frozen=True, slots=True)
class Book:
    title: str
    author: Person
    tags: list[str]
    genre: Genre
    stars: Stars
    price: float
    lent: bool
    cover: Literal["hard", "soft"]
    others: list[Person]
    year: Annotated[Optional[int], "printed"] = None  # noqa: UP045
    shelf: str = field(default="A", init=False)
    house: ClassVar[str] = "x"


ANSWER: dict[str, Any] = {
    "title": "T",
    "author": {"name": "N", "born": 1900},
    "tags": ["a", "b"],
    "genre": "poem",
    "stars": 2,
    "price": 3,
    "lent": True,
    "cover": "soft",
    "others": [{"name": "M", "born": None}],
    "year": None,
}


def schema_of(kind: Any) -> Any:
    answer_format = answer_type(kind).format
    assert isinstance(answer_format, JsonSchema)
    return json.loads(answer_format.schema)


def test_a_dataclass_comes_back_whole() -> None:
    book = answer_type(Book).read(json.dumps(ANSWER))
    assert book == Book(
        "T", Person("N", 1900), ["a", "b"], Genre.POEM, Stars.TWO, 3.0, True, "soft", [Person("M")], None
    )
    assert isinstance(book.price, float)
    assert isinstance(book.stars, Stars)


def test_every_field_is_in_the_schema_in_order_and_required() -> None:
    schema = schema_of(Book)
    assert list(schema["properties"]) == schema["required"] == list(ANSWER)
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (int, "3", 3),
        (float, "3", 3.0),
        (bool, "false", False),
        (list[int], "[1,2]", [1, 2]),
        (str | None, "null", None),
        (list[Person], '[{"name":"N","born":null}]', [Person("N")]),
        (Genre, '"novel"', Genre.NOVEL),
        ({"type": "array"}, "[1]", [1]),
        (Choices(["yes", "no"]), "yes", "yes"),
        (Regex("[0-9]+"), "12", "12"),
    ],
    ids=repr,
)
def test_other_types_are_answers_too(kind: Any, text: str, value: Any) -> None:
    assert answer_type(kind).read(text) == value


@dataclass
class Node:
    children: "list[Node]"


@dataclass
class Odd:
    when: bytes


@dataclass
class Unknown:
    what: "Nowhere"  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Node, "Node holds itself"),
        (Odd, r"bytes cannot be an answer \(in Odd\); allowed: str, int"),
        (Unknown, "Nowhere"),
        (set[object], "allowed"),
        (dict, "allowed"),
        (list, "allowed"),
        (Literal[b"x"], "allowed"),
        (object(), "allowed"),
        (["yes", "no"], "allowed"),
        ("title, year int", "allowed"),
    ],
    ids=repr,
)
def test_a_type_that_cannot_be_an_answer_says_what_can(kind: Any, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        answer_type(kind)


@dataclass
class Positive:
    number: int

    def __post_init__(self) -> None:
        if self.number < 1:
            raise ValueError("number is below 1")


def test_what_a_dataclass_refuses_itself_is_an_error_of_ours() -> None:
    with pytest.raises(AnswerError, match="below 1") as caught:
        answer_type(Positive).read('{"number": 0}')
    assert caught.value.text == '{"number": 0}'


def test_a_pydantic_model_gives_its_schema_and_reads_its_answers() -> None:
    pydantic = pytest.importorskip("pydantic")

    class Film(pydantic.BaseModel):  # type: ignore[name-defined,misc]
        title: str = pydantic.Field(max_length=20, alias="Title")
        year: int | None = pydantic.Field(ge=1890)

        @pydantic.field_validator("title")
        @classmethod
        def capital(cls, title: str) -> str:
            if not title[:1].isupper():
                raise ValueError("a title begins with a capital")
            return title

    answer = answer_type(Film)
    assert answer.read('{"Title": "M", "year": null}') == Film(Title="M", year=None)
    assert schema_of(Film)["properties"]["Title"]["maxLength"] == 20
    with pytest.raises(AnswerError, match="begins with a capital"):
        answer.read('{"Title": "m", "year": null}')


def test_a_pydantic_model_without_a_schema_is_refused() -> None:
    pydantic = pytest.importorskip("pydantic")

    class Opaque(pydantic.BaseModel):  # type: ignore[name-defined,misc]
        model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
        what: Positive
        code: complex
        call: type(print)

    with pytest.raises(OptionError, match="Opaque has no JSON schema"):
        answer_type(Opaque)


def test_fields_in_a_few_words_are_a_schema() -> None:
    schema = json.loads(
        parse_fields("title, year int?,\n tags list[str], kind novel|poem, größe float, ok bool?").schema
    )
    properties = schema["properties"]
    assert list(properties) == schema["required"] == ["title", "year", "tags", "kind", "größe", "ok"]
    assert properties["title"]["type"] == "string"
    assert [option["type"] for option in properties["year"]["anyOf"]] == ["integer", "null"]
    assert properties["tags"]["items"]["type"] == "string"
    assert properties["kind"] == {"enum": ["novel", "poem"]}
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no field"),
        (" , ", "names no field"),
        ("title, year integer", "field 2, 'year integer': 'integer' is not a type; allowed: str, int"),
        ("title, title int", "title is already a field"),
        ("2nd int", "field 1, '2nd int', is wrong"),
        ("a list[", "not a type"),
        ("a list[]", "not a type"),
        ("a x|", "empty"),
        ("a ?", "not a type"),
        ("a int int", "not a type"),
    ],
)
def test_a_wrong_field_is_named(text: str, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        parse_fields(text)
