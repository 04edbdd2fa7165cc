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
    click.option("--json-schema", metavar="FILE", help="Answer with JSON that follows the schema in FILE."),
    click.option(
        "--schema",
        "fields",
        metavar="FIELDS",
        help="Answer with a JSON object: 'title, author, year int?, tags list[str], kind novel|poem'.",
    ),
    click.option("--regex", metavar="PATTERN", help="Answer with text that matches PATTERN as a whole."),
    click.option(
        "--choices", metavar="A,B,...", help="Answer with one of these texts. Give a JSON list if they hold commas."
    ),
)


def answer_format_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options. The command gets one parameter for them all, `answer_format`."""

    @functools.wraps(command)
    def with_format(**options: Any) -> Any:
        given = {name: options.pop(name) for name in ("json_schema", "fields", "regex", "choices")}
        return command(**options, answer_format=_check_format(**given))

    return functools.reduce(lambda decorated, option: option(decorated), reversed(_OPTIONS), with_format)


def _check_format(
    json_schema: str | None, fields: str | None, regex: str | None, choices: str | None
) -> AnswerFormat | None:
    """Return the format that was asked for, checked as far as that is possible without a model."""
    if sum(value is not None for value in (json_schema, fields, regex, choices)) > 1:
        raise click.UsageError("--json-schema, --schema, --regex and --choices exclude each other; give one of them")
    chosen = _choose_format(json_schema, fields, regex, choices)
    if chosen is not None:
        from phi3v.structured.constraint import check_answer_format

        check_answer_format(chosen)
    return chosen


def _choose_format(
    json_schema: str | None, fields: str | None, regex: str | None, choices: str | None
) -> AnswerFormat | None:
    from phi3v.answer_format import Choices, Regex
    from phi3v.structured.field_syntax import parse_fields

    if json_schema is not None:
        return _read_schema(Path(json_schema))
    if fields is not None:
        return parse_fields(fields)
    if regex is not None:
        return Regex(regex)
    return None if choices is None else Choices(_split_choices(choices))


def _read_schema(path: Path) -> AnswerFormat:
    from phi3v.answer_format import MAX_TEXT, JsonSchema
    from phi3v.errors import OptionError

    with path.open("rb") as file:
        data = file.read(4 * MAX_TEXT + 1)
    try:
        return JsonSchema(data.decode("utf-8-sig"))
    except (OptionError, UnicodeDecodeError) as exc:
        raise OptionError(f"{path}: {exc}") from exc


def _split_choices(choices: str) -> list[str]:
    """Split at commas: `yes, no` is two choices. Choices that hold commas or begin with spaces need a JSON list."""
    if not choices.lstrip().startswith("["):
        return [choice.strip() for choice in choices.split(",")]
    try:
        listed: list[str] = json.loads(choices)
    except (ValueError, RecursionError) as exc:
        raise click.UsageError(f"--choices begins with [ and is not a JSON list: {exc}") from exc
    return listed
