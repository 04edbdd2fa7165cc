"""A format's answers as typed columns."""

import json
from typing import Any

import pytest

from phi3v.answer_format import AnswerFormat, Choices, JsonSchema, Regex
from phi3v.errors import AnswerError
from phi3v.structured.columns import AnswerColumns, Column
from phi3v.structured.field_syntax import parse_fields


def record(**properties: Any) -> JsonSchema:
    return JsonSchema({"type": "object", "properties": properties})


@pytest.mark.parametrize("answer_format", [None, Regex("[0-9]+"), Choices(["a", "b"])], ids=str)
def test_an_answer_without_fields_is_one_column_of_text(answer_format: AnswerFormat | None) -> None:
    answers = AnswerColumns.of(answer_format)
    assert answers.columns == (Column("answer", "string"),)
    assert answers.split("12") == {"answer": "12"}


def test_fields_have_the_types_they_were_asked_for() -> None:
    answers = AnswerColumns.of(parse_fields("title, year int?, price float, new bool, tags list[str], kind novel|poem"))
    assert answers.columns == (
        Column("title", "string"),
        Column("year", "int64"),
        Column("price", "double"),
        Column("new", "bool"),
        Column("tags", "string", many=True),
        Column("kind", "string"),
    )
    answer = {"title": "A", "year": None, "price": 3, "new": True, "tags": ["x"], "kind": "poem"}
    cells = answers.split(answer)
    assert cells == answer
    assert isinstance(cells["price"], float)


@pytest.mark.parametrize(
    ("schema", "column"),
    [
        ({"type": ["integer", "null"]}, Column("x", "int64")),
        ({"anyOf": [{"type": "integer"}, {"type": "number"}]}, Column("x", "double")),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, Column("x", "json")),
        ({"enum": [1, 2, None]}, Column("x", "int64")),
        ({"enum": [True, 2]}, Column("x", "json")),
        ({"const": "a"}, Column("x", "string")),
        ({"$ref": "#/$defs/Y"}, Column("x", "int64")),
        ({"anyOf": [{"$ref": "#/$defs/Y"}, {"type": "null"}]}, Column("x", "int64")),
        ({"$ref": "#/$defs/Loop"}, Column("x", "json")),
        ({"$ref": "#/$defs/Absent"}, Column("x", "json")),
        ({"type": "object"}, Column("x", "json")),
        ({"type": "array", "items": {"$ref": "#/$defs/Y"}}, Column("x", "int64", many=True)),
        ({"type": "array", "items": {"type": "array"}}, Column("x", "json")),
        ({"type": "array", "prefixItems": [{"type": "string"}]}, Column("x", "json")),
        (
            {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]},
            Column("x", "string", many=True),
        ),
        ({}, Column("x", "json")),
        (True, Column("x", "json")),
    ],
    ids=str,
)
def test_a_property_has_the_one_type_that_its_values_share(schema: Any, column: Column) -> None:
    whole = {
        "type": "object",
        "properties": {"x": schema},
        "additionalProperties": False,
        "$defs": {"Y": {"type": "integer"}, "Loop": {"$ref": "#/$defs/Loop"}},
    }
    assert AnswerColumns.of(JsonSchema(whole)).columns == (column,)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": True},
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["b"]},
        {"type": "object"},
        {"anyOf": [{"type": "object", "properties": {"a": {}}}, {"type": "string"}]},
        True,
    ],
    ids=str,
)
def test_an_object_that_may_have_other_keys_is_one_column_of_json(schema: Any) -> None:
    answers = AnswerColumns.of(JsonSchema(schema))
    assert answers.columns == (Column("answer", "json"),)
    for value in ([{"b": 1}], {"answer": 2}):
        assert json.loads(answers.split(value)["answer"]) == value


def test_a_pydantic_like_document_with_a_reference_at_its_top_has_fields() -> None:
    schema = {"$ref": "#/$defs/Book", "$defs": {"Book": {"type": "object", "properties": {"n": {"type": "integer"}}}}}
    assert AnswerColumns.of(JsonSchema(schema)).columns == (Column("n", "int64"),)


def test_a_property_that_was_left_out_is_an_empty_cell() -> None:
    answers = AnswerColumns.of(record(a={"type": "string"}, b={"type": "object"}))
    assert answers.split({"b": {"c": "é"}}) == {"a": None, "b": '{"c": "é"}'}


def test_a_field_called_answer_is_a_field() -> None:
    assert AnswerColumns.of(record(answer={"type": "integer"})).split({"answer": 3}) == {"answer": 3}


def test_an_integer_beyond_64_bits_is_an_error_that_names_the_column() -> None:
    with pytest.raises(AnswerError, match=r"n is 9223372036854775808.*schema"):
        AnswerColumns.of(record(n={"type": "integer"})).split({"n": 2**63})
