"""The short syntax for an answer's fields, `title, authors list[str], year int?`, and the bounds of each type.

The bounds make every answer end, whatever the model: a text has 300 characters, a list 20 items, an int 15 digits, a
float 15 digits and six decimals at most. For other bounds, use a JSON schema or a pydantic model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..answer_format import JsonSchema
from ..errors import OptionError

Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "maxLength": 300}
WHOLE: Schema = {"type": "integer", "minimum": 1 - 10**15, "maximum": 10**15 - 1}
NUMBER: Schema = {"type": "number", "minimum": 1 - 10**15, "maximum": 10**15 - 1, "multipleOf": 0.000001}
YES_NO: Schema = {"type": "boolean"}
NOTHING: Schema = {"type": "null"}

_MOST_ITEMS = 20
_TYPES = {"str": TEXT, "int": WHOLE, "float": NUMBER, "bool": YES_NO}
_ALLOWED = "str, int, float, bool, a|b|c, list[TYPE], each with ? where null is allowed"
_FIELD = re.compile(r"(?P<name>[^\W\d][\w-]*)(?:\s+(?P<type>.+))?", re.DOTALL)


def parse_fields(text: str) -> JsonSchema:
    """Fields separated by commas or line ends, each a name and a type; without a type it is a str.

    Types: str, int, float, bool, `a|b|c` (one of these texts), `list[TYPE]`, and `TYPE?` (or null). All fields are in
    every answer, in this order. Raises OptionError that names the field.
    """
    found: dict[str, Schema] = {}
    for number, field in enumerate(filter(None, map(str.strip, re.split(r"[,\n]", text))), start=1):
        match = _FIELD.fullmatch(field)
        if match is None:
            raise OptionError(f"field {number}, {field!r}, is wrong; write a name and a type, as in 'title, year int'")
        if match["name"] in found:
            raise OptionError(f"field {number}, {field!r}: {match['name']} is already a field; name each field once")
        found[match["name"]] = _type((match["type"] or "str").strip(), f"field {number}, {field!r}")
    if not found:
        raise OptionError(f"{text!r} names no field; write names and types, as in 'title, author, year int'")
    return JsonSchema(record(found))


def record(members: Mapping[str, Schema]) -> Schema:
    """An object with exactly these members, in this order."""
    return {
        "type": "object",
        "properties": dict(members),
        "required": list(members),
        "additionalProperties": False,
    }


def many(item: Schema) -> Schema:
    """A list of up to 20."""
    return {"type": "array", "items": item, "maxItems": _MOST_ITEMS}


def or_null(schema: Schema) -> Schema:
    """The schema, or null."""
    return {"anyOf": [schema, NOTHING]}


def one_of(values: Sequence[Any]) -> Schema:
    """One of these values: texts, ints, bools or None."""
    for value in values:
        if value is not None and not isinstance(value, str | int):
            raise OptionError(f"{value!r} cannot be one of an answer's values; allowed: str, int, bool, None")
    return {"enum": list(values)}


def _type(text: str, where: str) -> Schema:
    if text.endswith("?"):
        return or_null(_type(text[:-1].rstrip(), where))
    if text.startswith("list[") and text.endswith("]"):
        return many(_type(text[5:-1].strip(), where))
    if "|" in text:
        values = [value.strip() for value in text.split("|")]
        if not all(values):
            raise OptionError(f"{where}: one of the values in {text!r} is empty; write them as in red|green|blue")
        return one_of(values)
    if text not in _TYPES:
        raise OptionError(f"{where}: {text!r} is not a type; allowed: {_ALLOWED}")
    return _TYPES[text]
