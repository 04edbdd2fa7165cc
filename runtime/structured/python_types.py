"""From a Python type to an answer format, and from an answer back to a value of that type."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, Union

from ..answer_format import AnswerFormat, Choices, JsonSchema, Regex
from ..errors import AnswerError, OptionError
from ..machine.install import install_line
from . import field_syntax as fields
from .json_schema import list_subschemas

T = TypeVar("T")
Build = Callable[[Any], Any]

_ALLOWED = (
    "str, int, float, bool, None, list[...], X | None, Literal, an Enum of these, a dataclass or a TypedDict; and with "
    "pydantic its models, date, datetime, dict[str, ...], tuple[...] and other unions"
)


class _UnknownTypeError(OptionError):
    """Raised for a type that this file has no schema for; pydantic may have one."""


_SIMPLE: tuple[tuple[Any, fields.Schema], ...] = (
    (str, fields.TEXT),
    (int, fields.WHOLE),
    (float, fields.NUMBER),
    (bool, fields.YES_NO),
    (type(None), fields.NOTHING),
    (None, fields.NOTHING),
)


@dataclass(frozen=True, slots=True)
class AnswerType(Generic[T]):
    """A format, and how to read its answers. `read` raises AnswerError for an answer that the type itself refuses."""

    format: AnswerFormat
    read: Callable[[str], T]


def answer_type(kind: Any) -> AnswerType[Any]:
    """The answer type for `kind`: a type, a JSON schema as a mapping, or an answer format itself.

    A pydantic model is asked for its own schema; other types have the bounds of field_syntax.py. Raises OptionError.
    """
    if isinstance(kind, JsonSchema | Regex | Choices):
        return AnswerType(kind, kind.read)
    if isinstance(kind, Mapping):
        return answer_type(JsonSchema(kind))
    if hasattr(kind, "model_json_schema") and hasattr(kind, "model_validate_json"):
        return AnswerType(JsonSchema(_pydantic_schema(kind)), _reader(kind.model_validate_json))
    try:
        schema, build = _describe(kind, ())
    except _UnknownTypeError as exc:
        return _ask_pydantic(kind, exc)
    answer_format = JsonSchema(schema)
    return AnswerType(answer_format, _reader(lambda text: build(answer_format.read(text))))


def _ask_pydantic(kind: Any, unknown: _UnknownTypeError) -> AnswerType[Any]:
    """The answer type that pydantic knows for a type, whole: dataclasses and lists may hold its models and dates."""
    try:
        from pydantic import PydanticUserError, TypeAdapter
    except ImportError as exc:
        raise OptionError(f"{unknown}. pydantic is not installed; run: {install_line('pydantic')}") from exc
    try:
        adapter: Any = TypeAdapter(kind)
        schema = adapter.json_schema()
    except (PydanticUserError, NameError, TypeError, SyntaxError) as exc:
        raise OptionError(str(unknown)) from exc
    if any(map(_takes_anything, list_subschemas(schema))):
        raise unknown
    return AnswerType(JsonSchema(schema), _reader(adapter.validate_json))


def _takes_anything(schema: Mapping[str, Any]) -> bool:
    """Whether a schema of pydantic's leaves a value open, or a list's items or an object's: Any, bytes, bare list."""
    kind = schema.get("type")
    if kind == "array":
        return not (schema.get("items") or schema.get("prefixItems"))
    if kind == "object":
        return "properties" not in schema and not isinstance(schema.get("additionalProperties"), dict)
    return schema.get("format") == "binary" or not schema.keys() & {
        "type",
        "$ref",
        "anyOf",
        "oneOf",
        "allOf",
        "enum",
        "const",
    }


def _reader(read: Callable[[str], T]) -> Callable[[str], T]:
    def checked(text: str) -> T:
        try:
            return read(text)
        except AnswerError:
            raise
        except (ValueError, TypeError) as exc:
            raise AnswerError(f"the answer {text!r} is refused by its type: {exc}", text) from exc

    return checked


def _pydantic_schema(model: Any) -> dict[str, Any]:
    try:
        schema: dict[str, Any] = model.model_json_schema()
    except (RuntimeError, TypeError) as exc:  # pydantic's user errors are RuntimeErrors
        raise OptionError(f"{model.__name__} has no JSON schema: {str(exc).splitlines()[0]}") from exc
    return schema


def _describe(kind: Any, inside: tuple[Any, ...]) -> tuple[fields.Schema, Build]:
    """A type's schema, and a function that builds its value from JSON. `inside`: the records around it."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    for simple, schema in _SIMPLE:
        if kind is simple:
            return schema, float if kind is float else _unchanged
    if origin is typing.Annotated:
        return _describe(arguments[0], inside)
    if origin is typing.Literal:
        return fields.one_of(arguments), _unchanged
    if origin is list and len(arguments) == 1:
        schema, build = _describe(arguments[0], inside)
        return fields.many(schema), lambda values: [build(value) for value in values]
    if origin in (Union, types.UnionType) and len(arguments) == 2 and type(None) in arguments:
        schema, build = _describe(next(a for a in arguments if a is not type(None)), inside)
        return fields.or_null(schema), lambda value: None if value is None else build(value)
    if isinstance(kind, type) and issubclass(kind, enum.Enum) and len(kind):
        return fields.one_of(tuple(member.value for member in kind)), kind
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        names = [member.name for member in dataclasses.fields(kind) if member.init]
        return _record(kind, names, inside, kind)
    if typing.is_typeddict(kind):
        return _record(kind, list(kind.__annotations__), inside, dict)
    raise _UnknownTypeError(f"{_name(kind)} cannot be an answer{_where(inside)}; allowed: {_ALLOWED}")


def _record(
    kind: Any, names: list[str], inside: tuple[Any, ...], make: Callable[..., Any]
) -> tuple[fields.Schema, Build]:
    """A dataclass or TypedDict of these fields. `make` takes them as keywords."""
    if kind in inside:
        raise OptionError(f"{kind.__name__} holds itself; allowed: types of finite depth, or a JSON schema with $ref")
    try:
        hints = typing.get_type_hints(kind)
    except (NameError, TypeError) as exc:
        raise OptionError(f"the types of {kind.__name__}'s fields cannot be found: {exc}") from exc
    members = {name: _describe(hints[name], (*inside, kind)) for name in names}
    schema = fields.record({name: schema for name, (schema, _) in members.items()})
    return schema, lambda values: make(**{name: build(values[name]) for name, (_, build) in members.items()})


def _unchanged(value: Any) -> Any:
    return value


def _name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else repr(kind)


def _where(inside: tuple[Any, ...]) -> str:
    return f" (in {inside[-1].__name__})" if inside else ""
