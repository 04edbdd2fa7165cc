"""Answer formats as values: what they take, what they refuse, how an answer is read."""

import pickle
from typing import Any

import pytest

from phi3v.answer_format import MAX_TEXT, Choices, JsonSchema, Regex, truncated
from phi3v.errors import AnswerError, OptionError
from phi3v.types import GenerationRequest

NESTED: Any = []
for _ in range(5000):
    NESTED = [NESTED]


def test_a_schema_is_the_same_as_a_mapping_and_as_text() -> None:
    schema = {"type": "object", "properties": {"é": {"type": "string"}}}
    assert JsonSchema(schema) == JsonSchema('{"type": "object", "properties": {"é": {"type": "string"}}}')
    assert hash(JsonSchema(schema)) == hash(JsonSchema(schema))
    assert pickle.loads(pickle.dumps(JsonSchema(schema))) == JsonSchema(schema)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ("{", r"not JSON \(line 1, column 2"),
        ("3", "a JSON object"),
        ([], "a JSON object"),
        (None, "a JSON object"),
        ({"enum": [float("nan")]}, "JSON cannot"),
        ({"enum": [{1, 2}]}, "JSON cannot"),
        ({"enum": NESTED}, "JSON cannot"),
        ("[" * 100_000, "cannot be read"),
        ({"enum": ["x" * MAX_TEXT]}, f"{MAX_TEXT} characters"),
    ],
    ids=range(9),
)
def test_what_is_no_schema_is_refused(schema: Any, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        JsonSchema(schema)


@pytest.mark.parametrize(
    "choices", ["yes", [], [""], ["a", ""], [1], None, {"a": 1}, ["\ud800"], ["x" * MAX_TEXT, "y"]]
)
def test_what_are_no_choices_is_refused(choices: Any) -> None:
    with pytest.raises(OptionError, match=r"allowed|characters"):
        Choices(choices)


@pytest.mark.parametrize("pattern", [None, b"a", "a\\", "a\\\\\\", "\ud800", "a" * (MAX_TEXT + 1)])
def test_what_is_no_pattern_is_refused(pattern: Any) -> None:
    with pytest.raises(OptionError, match=r"allowed|character"):
        Regex(pattern)


def test_a_request_takes_formats_only_and_no_stop_strings_beside_them() -> None:
    assert GenerationRequest("hi", answer_format=Choices(["a"])).answer_format == Choices(("a",))
    with pytest.raises(OptionError, match="JsonSchema, Regex, Choices"):
        GenerationRequest("hi", answer_format={"type": "object"})  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="stop"):
        GenerationRequest("hi", stop=["x"], answer_format=Choices(["a"]))


@pytest.mark.parametrize("text", ["1e999", "-1e999", "9" * 5000, "[" * 100_000])
def test_a_number_beyond_python_is_an_error_and_not_infinity(text: str) -> None:
    with pytest.raises(AnswerError, match="cannot be read") as caught:
        JsonSchema({}).read(text)
    assert caught.value.text == text


def test_a_truncated_answer_says_where_it_ends_and_what_to_do() -> None:
    error = truncated('{"title": "' + "x" * 500, 12)
    assert error.text.startswith('{"title"')
    assert "max_new_tokens (12)" in str(error)
    assert "raise max_new_tokens" in str(error)
    assert len(str(error)) < 350
