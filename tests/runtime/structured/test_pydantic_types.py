"""Types that only pydantic describes are answers too, alone and inside each other."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, TypedDict

import pytest

from phi3v.answer_format import JsonSchema
from phi3v.errors import AnswerError, OptionError
from phi3v.structured.constraint import check_answer_format
from phi3v.structured.python_types import answer_type

pydantic = pytest.importorskip("pydantic")


class Author(pydantic.BaseModel):  # type: ignore[misc,name-defined]
    name: str
    born: date | None = None


@dataclass
class Book:
    title: str
    author: Author


class Row(TypedDict):
    name: str
    value: float


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Author, '{"name": "N", "born": "1900-01-02"}', Author(name="N", born=date(1900, 1, 2))),
        (list[Author], '[{"name": "N", "born": null}]', [Author(name="N")]),
        (Book, '{"title": "T", "author": {"name": "N", "born": null}}', Book("T", Author(name="N"))),
        (list[Book], '[{"title": "T", "author": {"name": "N"}}]', [Book("T", Author(name="N"))]),
        (date, '"2026-11-26"', date(2026, 11, 26)),
        (datetime, '"2026-11-26T10:00:00"', datetime(2026, 11, 26, 10)),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (tuple[str, int], '["a", 1]', ("a", 1)),
        (Row, '{"name": "a", "value": 1.5}', {"name": "a", "value": 1.5}),
        (int | str, '"a"', "a"),
        (list[int | str], '[1, "a"]', [1, "a"]),
    ],
    ids=str,
)
def test_what_pydantic_describes_is_an_answer(kind: Any, text: str, value: Any) -> None:
    answer = answer_type(kind)
    assert isinstance(answer.format, JsonSchema)
    check_answer_format(answer.format)
    assert answer.read(text) == value


def test_what_pydantic_refuses_is_an_error_of_ours() -> None:
    with pytest.raises(AnswerError, match="refused by its type"):
        answer_type(date).read('"2026-13-45"')


@pytest.mark.parametrize("kind", [list, dict, object, bytes, list[Any], dict[str, Any], set[object]], ids=str)
def test_a_type_that_leaves_its_values_open_is_refused_with_what_works(kind: Any) -> None:
    with pytest.raises(OptionError, match=r"cannot be an answer.*pydantic its models, date, datetime"):
        answer_type(kind)


def test_without_pydantic_its_name_is_in_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pydantic", None)
    with pytest.raises(OptionError, match=r"pydantic is not installed; run: pip install .*\[pydantic\]"):
        answer_type(date)
