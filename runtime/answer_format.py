"""The formats an answer can be kept to: a JSON schema, a regular expression or a list of choices.

These are values: they travel inside a request and are cheap to make. structured/constraint.py turns one into a mask
over tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import AnswerError, OptionError, TruncatedAnswerError

MAX_TEXT = 128 * 1024
"""The most characters of a schema, a regular expression or all choices together: the worst compiles in two seconds."""

_MAX_DEPTH = 1000
"""The most levels of a schema; how many Python itself can write differs between its versions."""

_LEAST_SHOWN = 60


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """The answer is JSON that a schema (draft 2020-12) describes, on one line, with one space at most after , and :.

    `schema`: a mapping or its JSON text; kept as text. Properties come in the schema's order. An object has no other
    keys than its `properties`, unless `additionalProperties` says so, `required` names others, or the schema is
    composed of several (`allOf`, or `anyOf`, `oneOf`, `$ref` beside properties). Raises OptionError for what is not
    a schema; keywords that cannot be kept are named when the schema is first used.
    """

    schema: Any

    def __post_init__(self) -> None:
        schema = _parse_schema(self.schema) if isinstance(self.schema, str) else self.schema
        if not isinstance(schema, Mapping | bool):
            raise OptionError(f"a JSON schema is {_shorten(schema)}; allowed: a JSON object such as {_EXAMPLE}")
        try:
            text = json.dumps(schema, allow_nan=False, default=_as_dict)
            _check_depth(schema)
        except (TypeError, ValueError, RecursionError) as exc:
            raise OptionError(
                f"the JSON schema holds a value that JSON cannot represent ({exc}); an example: {_EXAMPLE}"
            ) from exc
        _check_length(text, "a JSON schema")
        object.__setattr__(self, "schema", text)

    def read(self, text: str) -> Any:
        """A finished answer's value. Raises AnswerError for a number that Python cannot hold."""
        try:
            return json.loads(text, parse_float=_finite)
        except (ValueError, RecursionError) as exc:
            raise AnswerError(
                f"the answer {_shorten(text)} cannot be read ({exc}); bound its numbers in the schema", text
            ) from exc


@dataclass(frozen=True, slots=True)
class Regex:
    r"""The whole answer matches a regular expression, from its first character to its last.

    Rust's syntax, without look-around and back-references. `.` is any character but a newline, and `\d`, `\w` and `\s`
    are Unicode's: write `[0-9]` for digits. What is wrong with an expression is said when it is first used.
    """

    pattern: str

    def __post_init__(self) -> None:
        if not isinstance(self.pattern, str):
            raise OptionError(f"a regular expression is {self.pattern!r}; allowed: a string such as '[0-9]{{4}}'")
        _check_unicode(self.pattern, "a regular expression")
        _check_length(self.pattern, "a regular expression")
        if (len(self.pattern) - len(self.pattern.rstrip("\\"))) % 2:
            raise OptionError(
                f"the regular expression {_shorten(self.pattern)} is wrong at character {len(self.pattern)}: "
                "a \\ stands alone at its end; write \\\\ for a \\"
            )

    def read(self, text: str) -> str:
        """A finished answer's value: the text itself."""
        return text


@dataclass(frozen=True, slots=True)
class Choices:
    """The answer is one of these strings, character for character."""

    choices: Sequence[str]

    def __post_init__(self) -> None:
        given = self.choices
        good = not isinstance(given, str) and isinstance(given, Sequence) and len(given) > 0
        if not good or not all(isinstance(choice, str) and choice for choice in given):
            raise OptionError(
                f"choices is {_shorten(given)}; allowed: a list of non-empty strings such as ['yes', 'no']"
            )
        text = "".join(given)
        _check_unicode(text, "a choice")
        _check_length(text, "a list of choices")
        object.__setattr__(self, "choices", tuple(given))

    def read(self, text: str) -> str:
        """A finished answer's value: the choice."""
        return text


AnswerFormat = JsonSchema | Regex | Choices


def truncated(text: str, max_new_tokens: int) -> TruncatedAnswerError:
    """The error for an answer that `max_new_tokens` ended before its format was complete."""
    end = text if len(text) <= _LEAST_SHOWN else f"...{text[-_LEAST_SHOWN:]}"
    return TruncatedAnswerError(
        f"max_new_tokens ({max_new_tokens}) ended the answer before it was complete, at {end!r}; raise max_new_tokens, "
        "or bound what may be long (maxLength and maxItems in a schema, {1,100} in a regular expression)",
        text,
    )


_EXAMPLE = '{"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}'


def _parse_schema(text: str) -> Any:
    _check_length(text, "a JSON schema")
    try:
        return json.loads(text)
    except json.JSONDecodeError as exc:
        raise OptionError(f"the JSON schema is not JSON (line {exc.lineno}, column {exc.colno}: {exc.msg})") from exc
    except (ValueError, RecursionError) as exc:
        raise OptionError(f"the JSON schema cannot be read: {exc}") from exc


def _check_depth(value: Any) -> None:
    """Raise ValueError for values inside values beyond the limit; they must not hold themselves."""
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [inner for outer in level for inner in _values_in(outer)]
        if not level:
            return
    raise ValueError(f"nested deeper than {_MAX_DEPTH} levels")


def _values_in(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def _as_dict(value: object) -> dict[Any, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__}")


def _finite(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{digits} is beyond a float")
    return value


def _check_length(text: str, what: str) -> None:
    if len(text) > MAX_TEXT:
        raise OptionError(f"{what} may have {MAX_TEXT} characters; this one has {len(text)}")


def _check_unicode(text: str, what: str) -> None:
    if lone := re.search("[\ud800-\udfff]", text):
        raise OptionError(f"{what} holds the lone surrogate {lone[0]!r}; allowed: valid Unicode text")


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LEAST_SHOWN else f"{text[:_LEAST_SHOWN]}..."
