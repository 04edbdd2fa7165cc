"""An answer as columns of a table: a name and a type for each, from the format that the answer is kept to."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from ..answer_format import AnswerFormat, JsonSchema
from ..errors import AnswerError
from .json_schema import closed_properties

ColumnType = Literal["string", "int64", "double", "bool", "json"]
"""What a cell holds; "json" is the text of a value that has no type of its own, such as an object."""

WHOLE_ANSWER = "answer"
"""The name of the column that holds an answer without fields."""

_TYPES: dict[str, ColumnType] = {"string": "string", "integer": "int64", "number": "double", "boolean": "bool"}
_MOST_REFERENCES = 20
_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of answers. `many`: its cells are lists of the type. Every cell may be None."""

    name: str
    type: ColumnType
    many: bool = False

    def read(self, value: Any) -> Any:
        """A JSON value as the column's type. Raises AnswerError for an integer beyond 64 bits."""
        if value is None:
            return None
        if self.type == "json":
            return json.dumps(value, ensure_ascii=False)
        return [self._read_one(one) for one in value] if self.many else self._read_one(value)

    def _read_one(self, value: Any) -> Any:
        if value is None:
            return None
        if self.type == "double":
            return float(value)
        if self.type == "int64" and (value := int(value)) not in _INT64:
            raise AnswerError(
                f"{self.name} is {value}, and a column's integers have 64 bits; bound it in the schema", ""
            )
        return value


@dataclass(frozen=True, slots=True)
class AnswerColumns:
    """The columns of the answers in one format: one for each field of an object, else the one column `answer`.

    A JSON object has a column for each of its properties if the schema allows no others.
    """

    columns: tuple[Column, ...]
    are_fields: bool

    @classmethod
    def of(cls, answer_format: AnswerFormat | None) -> AnswerColumns:
        """The columns of a format; None: free text."""
        if not isinstance(answer_format, JsonSchema):
            return cls((Column(WHOLE_ANSWER, "string"),), are_fields=False)
        schema = json.loads(answer_format.schema)
        properties = closed_properties(_resolve(schema, schema)) if isinstance(schema, dict) else None
        if not properties:
            return cls((_column(WHOLE_ANSWER, schema, schema),), are_fields=False)
        return cls(tuple(_column(name, inner, schema) for name, inner in properties.items()), are_fields=True)

    def renamed(self, taken: Collection[str]) -> tuple[Column, ...]:
        """The columns as they stand in a table that has others: `answer_NAME` where a name is taken."""
        names = free_names([column.name for column in self.columns], taken, WHOLE_ANSWER)
        return tuple(Column(names[column.name], column.type, column.many) for column in self.columns)

    def split(self, value: Any) -> dict[str, Any]:
        """A finished answer's value (`AnswerFormat.read`) as cells, by column. Raises AnswerError."""
        if not self.are_fields:
            return {WHOLE_ANSWER: self.columns[0].read(value)}
        return {column.name: column.read(value.get(column.name)) for column in self.columns}


def free_names(names: Iterable[str], taken: Collection[str], prefix: str) -> dict[str, str]:
    """A name for each that is neither taken nor another's: its own, else with the prefix and _ in front."""
    found: dict[str, str] = {}
    wanted = list(names)
    for name in wanted:
        free = name
        while free in taken or (free != name and free in wanted):
            free = f"{prefix}_{free}"
        found[name] = free
    return found


def arrow_type(column: Column) -> Any:
    """A column's type in pyarrow, which must be installed."""
    import pyarrow

    types = {"string": pyarrow.string, "json": pyarrow.string, "int64": pyarrow.int64, "double": pyarrow.float64}
    one = (types | {"bool": pyarrow.bool_})[column.type]()
    return pyarrow.list_(one) if column.many else one


def _column(name: str, schema: Any, root: Any) -> Column:
    resolved = _resolve(schema, root)
    if resolved.get("type") == "array" and "prefixItems" not in resolved:
        inner = _type(resolved.get("items"), root)
        if inner != "json":
            return Column(name, inner, many=True)
    return Column(name, _type(resolved, root))


def _type(schema: Any, root: Any) -> ColumnType:
    """The one type that all values of a schema have, null not counted; "json" if there is none."""
    schema = _resolve(schema, root)
    if "enum" in schema or "const" in schema:
        values = schema["enum"] if "enum" in schema else [schema["const"]]
        return common_type(type_of(value) for value in values if value is not None)
    if branches := schema.get("anyOf") or schema.get("oneOf"):
        return common_type(_type(branch, root) for branch in branches)
    names = schema.get("type")
    names = [names] if isinstance(names, str) else names or ["?"]
    return common_type(_TYPES.get(name, "json") for name in names if name != "null")


def type_of(value: Any) -> ColumnType:
    """The type of a column that holds a JSON value other than null."""
    if type(value) is int and value not in _INT64:
        return "json"
    for kind, name in ((str, "string"), (bool, "bool"), (int, "int64"), (float, "double")):
        if isinstance(value, kind):
            return name  # type: ignore[return-value]
    return "json"


def common_type(types: Iterable[ColumnType]) -> ColumnType:
    """The type of a column that holds values of these."""
    found = set(types)
    if found == {"int64", "double"}:
        return "double"
    return found.pop() if len(found) == 1 else "json"


def _resolve(schema: Any, root: Any) -> dict[str, Any]:
    """Follow references within the document, and take the other branch of "or null"."""
    for _ in range(_MOST_REFERENCES):
        if not isinstance(schema, dict):
            return {}
        branches = [one for one in schema.get("anyOf") or schema.get("oneOf") or () if one != {"type": "null"}]
        if isinstance(reference := schema.get("$ref"), str):
            schema = _look_up(root, reference)
        elif len(branches) == 1:
            schema = branches[0]
        else:
            return schema
    return {}


def _look_up(root: Any, reference: str) -> Any:
    """What `#/$defs/Name` names; None for any other reference."""
    found = root
    for part in reference.removeprefix("#").split("/")[1:]:
        found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    return found if reference.startswith("#") else None
