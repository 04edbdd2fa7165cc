"""A row's line and its cells: typed fields, the input's own columns, failures."""

import datetime
from decimal import Decimal
from typing import Any

import pytest

from phi3v.answer_format import Choices
from phi3v.cli.batch.item import Item
from phi3v.cli.batch.lines import LineMaker
from phi3v.errors import ImageError
from phi3v.structured.field_syntax import parse_fields
from phi3v.types import GenerationResult, Timings, Usage


def result(text: str) -> GenerationResult:
    return GenerationResult(text, (1,), "stop", Usage(10, 5, 1), Timings(0.0, 0.0, 0.1, 0.0, 0))


def table(maker: LineMaker, lines: list[dict[str, Any]]) -> tuple[dict[str, str], list[dict[str, Any]]]:
    columns = maker.columns(lines)
    return {column.name: column.type for column in columns}, list(maker.rows(lines, columns))


def test_fields_are_cells_and_the_answer_of_a_line_is_an_object() -> None:
    item = Item("a", ("a.png",), "?")
    maker = LineMaker(parse_fields("title, year int"), [item])
    line = maker.make(item, result('{"title": "A", "year": 1999}'))
    assert line["answer"] == {"title": "A", "year": 1999}
    types, [row] = table(maker, [line])
    assert (row["title"], row["year"], types["year"]) == ("A", 1999, "int64")
    assert "answer" not in row


def test_without_fields_the_answer_is_a_column() -> None:
    item = Item("a", (), "?")
    for answer_format in (None, Choices(["yes", "no"])):
        maker = LineMaker(answer_format, [item])
        assert table(maker, [maker.make(item, result("yes"))])[1][0]["answer"] == "yes"


def test_a_failed_row_has_empty_fields_and_its_error() -> None:
    item = Item("a", ("a.png",), "?")
    maker = LineMaker(parse_fields("run, usage, error"), [item])
    line = maker.make(item, ImageError("no image")) | {"run": "hash"}
    _, [row] = table(maker, [line])
    assert (row["run"], row["usage"], row["answer_error"]) == (None, None, None)
    assert (row["error"], row["error_type"]) == ("no image", "ImageError")


def test_own_columns_travel_and_give_way_where_a_name_is_taken() -> None:
    own = {"price": "3", "title": "mine", "error": "x", "input_error": "y", "run": "z", "prompt_tokens": "9"}
    item = Item("a", (), "?", own)
    maker = LineMaker(parse_fields("title, error"), [item])
    line = maker.make(item, result('{"title": "A", "error": "none"}'))
    _, [row] = table(maker, [line])
    assert row["price"] == "3"
    assert (row["title"], row["input_title"]) == ("A", "mine")
    assert (row["error"], row["answer_error"], row["input_error"], row["input_input_error"]) == (None, "none", "y", "x")
    assert (row["input_run"], row["input_prompt_tokens"]) == ("z", "9")


def test_own_columns_have_a_type_or_are_json() -> None:
    items = [
        Item("a", (), "?", {"whole": 1, "mixed": "x", "some": 1, "deep": {"a": [1]}, "big": 2**70, "yes": True}),
        Item("b", (), "?", {"whole": None, "mixed": 2, "some": 0.5, "late": "l"}),
    ]
    maker = LineMaker(None, items)
    types, rows = table(maker, [maker.make(item, result("t")) for item in items])
    expected = {"whole": "int64", "mixed": "json", "some": "double", "deep": "json", "big": "json", "yes": "bool"}
    assert {name: types[name] for name in expected} == expected
    assert (rows[0]["mixed"], rows[0]["deep"], rows[0]["late"]) == ('"x"', '{"a": [1]}', None)
    assert (rows[1]["mixed"], rows[1]["whole"], rows[1]["late"]) == ("2", None, "l")


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (b"\x00\xff", "AP8="),
        (2**70, 2**70),
        (float("nan"), None),
        (float("inf"), None),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (Decimal("1.50"), "1.50"),
        ({"a": [float("nan"), b""]}, {"a": [None, ""]}),
    ],
    ids=str,
)
def test_what_json_lacks_is_text_or_null(value: object, kept: object) -> None:
    item = Item("a", (), "?", {"x": value})
    assert LineMaker(None, [item]).make(item, result("t"))["x"] == kept
