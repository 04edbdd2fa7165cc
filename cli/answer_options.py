"""The options that keep an answer to a format, for every command that asks a model."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from phi3v.answer_format import AnswerFormat

_OPTIONS = (
    click.option("--json-schema", metavar="FILE", help="Answer with JSON that the schema in FILE describes."),
    click.option(
        "--schema",
        "fields",
        metavar="FIELDS",
        help="Answer with a JSON object: 'title, author, year int?, tags list[str], kind novel|poem'.",
    ),
    click.option("--regex", metavar="PATTERN", help="Answer with text that matches PATTERN as a whole."),
    click.option(
        "--choices", metavar="A,B,...", help="Answer with one of these texts; a JSON list where they hold commas."
    ),
)


def answer_format_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the command gets one parameter for them, `answer_format`."""

    @functools.wraps(command)
    def with_format(**options: Any) -> Any:
        given = {name: options.pop(name) for name in ("json_schema", "fields", "regex", "choices")}
        return command(**options, answer_format=_answer_format(**given))

    return functools.reduce(lambda decorated, option: option(decorated), reversed(_OPTIONS), with_format)


def _answer_format(
    json_schema: str | None, fields: str | None, regex: str | None, choices: str | None
) -> AnswerFormat | None:
    """The format that was asked for, checked as far as that goes without a model."""
    if sum(value is not None for value in (json_schema, fields, regex, choices)) > 1:
        raise click.UsageError("--json-schema, --schema, --regex and --choices exclude each other; give one of them")
    chosen = _chosen(json_schema, fields, regex, choices)
    if chosen is not None:
        from phi3v.structured.constraint import check_answer_format

        check_answer_format(chosen)
    return chosen


def _chosen(json_schema: str | None, fields: str | None, regex: str | None, choices: str | None) -> AnswerFormat | None:
    from phi3v.answer_format import Choices, Regex
    from phi3v.structured.field_syntax import parse_fields

    if json_schema is not None:
        return _schema_file(Path(json_schema))
    if fields is not None:
        return parse_fields(fields)
    if regex is not None:
        return Regex(regex)
    return None if choices is None else Choices(_split(choices))


def _schema_file(path: Path) -> AnswerFormat:
    from phi3v.answer_format import MAX_TEXT, JsonSchema
    from phi3v.errors import OptionError

    with path.open("rb") as file:
        data = file.read(4 * MAX_TEXT + 1)
    try:
        return JsonSchema(data.decode("utf-8-sig"))
    except (OptionError, UnicodeDecodeError) as exc:
        raise OptionError(f"{path}: {exc}") from exc


def _split(choices: str) -> list[str]:
    """`yes, no` is two choices; what holds commas or begins with spaces is written as a JSON list."""
    if not choices.lstrip().startswith("["):
        return [choice.strip() for choice in choices.split(",")]
    try:
        listed: list[str] = json.loads(choices)
    except (ValueError, RecursionError) as exc:
        raise click.UsageError(f"--choices begins with [ and is no JSON list: {exc}") from exc
    return listed
