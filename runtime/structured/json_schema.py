"""Prepares a caller's JSON schema for llguidance: closes objects and bounds white space."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from ..errors import OptionError

WHITE_SPACE = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}
"""llguidance's options: one line, one space at most after a comma or a colon. More lets a weak model emit blanks."""

MAX_MULTIPLE = 10_000
"""The automaton for `multipleOf` n has about n states."""

_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_ONES = ("items", "additionalProperties")
_COMPOSING = ("anyOf", "oneOf", "$ref")
_ABOUT_KEYS = ("properties", "patternProperties", "required", "additionalProperties")


def prepare_schema(text: str) -> str:
    """The schema as llguidance gets it. Raises OptionError for a schema that would take it too long."""
    schema = json.loads(text)
    if isinstance(schema, bool):
        schema = {} if schema else {"not": {}}
    if "x-guidance" in schema:
        raise OptionError("the JSON schema sets x-guidance, which phi3v sets itself (white space); leave it out")
    try:
        inner = list(list_subschemas(schema))
    except RecursionError:
        raise OptionError("the JSON schema is nested too deeply; put parts of it under $defs") from None
    _check_multiples(inner)
    if not any(_composed(s) for s in inner):
        for s in filter(_lists_its_keys, inner):
            s.setdefault("additionalProperties", False)
    return json.dumps(schema | {"x-guidance": WHITE_SPACE})


def list_subschemas(schema: Any) -> Iterator[dict[str, Any]]:
    """The schema itself and all subschemas; values inside `const`, `enum` and annotations are not schemas."""
    if not isinstance(schema, dict):
        return
    yield schema
    for key in _MAPS:
        if isinstance(inner := schema.get(key), dict):
            for one in inner.values():
                yield from list_subschemas(one)
    for key in _LISTS:
        if isinstance(inner := schema.get(key), list):
            for one in inner:
                yield from list_subschemas(one)
    for key in _ONES:
        yield from list_subschemas(schema.get(key))


def closed_properties(schema: dict[str, Any]) -> dict[str, Any] | None:
    """The properties of a schema whose objects have no other keys once it is prepared; None for any other schema."""
    properties = schema.get("properties")
    if not isinstance(properties, dict) or any(key in schema for key in (*_COMPOSING, "allOf", "patternProperties")):
        return None
    explicit = schema.get("additionalProperties") is False
    implied = "additionalProperties" not in schema and not any(map(_composed, list_subschemas(schema)))
    return properties if _lists_its_keys(schema) and (explicit or implied) else None


def _composed(schema: dict[str, Any]) -> bool:
    """Whether an object's keys come from several places; closing one of them would exclude the keys of the others."""
    return "allOf" in schema or (any(k in schema for k in _COMPOSING) and any(k in schema for k in _ABOUT_KEYS))


def _lists_its_keys(schema: dict[str, Any]) -> bool:
    """Whether its `properties` are all the keys that it mentions."""
    properties, required = schema.get("properties"), schema.get("required", [])
    return isinstance(properties, dict) and isinstance(required, list) and set(map(str, required)) <= set(properties)


def _check_multiples(schemas: list[dict[str, Any]]) -> None:
    """Refuse too large multiples: llguidance's automaton is as large as their least common multiple."""
    numbers = [s["multipleOf"] for s in schemas if type(s.get("multipleOf")) in (int, float)]
    given = [number for number in numbers if number > 0]
    if math.lcm(*(_digits(n) for n in given)) > MAX_MULTIPLE:
        raise OptionError(
            f"the JSON schema's multipleOf {', '.join(str(n)[:20] for n in given[:5])} is too much; allowed: a least "
            f"common multiple of all up to {MAX_MULTIPLE}, powers of ten not counted"
        )


def _digits(number: float) -> int:
    """The number's digits as a whole number, without the zeros at either end."""
    return int("".join(map(str, Decimal(str(number)).normalize().as_tuple().digits)))
