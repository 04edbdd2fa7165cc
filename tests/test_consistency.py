"""What several places say, each in its own words, is the same: a forgotten one of them fails here by name."""

import hashlib
import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import click
import pytest
from PIL import Image
from places import ROOT

from phi3v import GenerationRequest, GenerationResult, SamplingParams, Timings, Usage
from phi3v.answer_format import Choices, JsonSchema, Regex
from phi3v.bench import run as bench_run
from phi3v.bench.subjects import SUBJECTS
from phi3v.cli.ask import ask
from phi3v.cli.batch.command import batch
from phi3v.cli.chat import chat
from phi3v.cli.options import (
    background_option,
    build_device_option,
    device_option,
    generation_options,
    num_crops_option,
    system_option,
)
from phi3v.cli.warm.frames import MESSAGE_FIELDS
from phi3v.cli.warm.wire import request_message
from phi3v.engine import Engine
from phi3v.errors import ImageError, OptionError
from phi3v.export.hub.catalog import BUILDS
from phi3v.export.precision import _REFUSED, PRECISIONS
from phi3v.export.precision import DEVICES as BUILD_DEVICES
from phi3v.images.load import FORMATS, load_image
from phi3v.images.suffixes import IMAGE_SUFFIXES
from phi3v.machine.device import _NAMES
from phi3v.machine.device_table import PREFERENCE, SPELLINGS, TABLE, Device, DeviceKind, DeviceName, Kind, split_device
from phi3v.models import local
from phi3v.models.folder import ModelDir
from phi3v.options import GenerationOptions, make_request

OPTIONS = set(GenerationOptions.__annotations__)
ON_THE_COMMAND_LINE = OPTIONS - {"answer_format", "logprobs"}
"""A format has several options there; log probabilities are for programs."""


def test_the_suffixes_that_batch_searches_for_cover_every_format_that_is_decoded() -> None:
    decoders = Image.registered_extensions()
    assert {decoders[suffix] for suffix in IMAGE_SUFFIXES} == set(FORMATS)


def test_the_error_for_a_file_that_is_no_image_names_every_format() -> None:
    with pytest.raises(ImageError) as raised:
        load_image(b"no image")
    assert [form for form in FORMATS if form not in str(raised.value).upper()] == []


def command_with(*options: Any) -> click.Command:
    """A command that has what these decorators add to one."""

    def nothing() -> None: ...

    command = click.command()(nothing)
    for option in options:
        option(command)
    return command


def test_the_command_line_has_every_option_of_an_answer_with_its_default() -> None:
    values = (
        command_with(generation_options, num_crops_option, background_option, system_option)
        .make_context("ask", [])
        .params
    )
    assert set(values) == ON_THE_COMMAND_LINE
    assert make_request("hi", **values) == GenerationRequest("hi")


@pytest.mark.parametrize("command", [ask, batch, chat], ids=lambda command: command.name)
def test_every_command_that_answers_takes_every_option(command: click.Command) -> None:
    assert ON_THE_COMMAND_LINE - {parameter.name for parameter in command.params} == set()


def test_generate_names_every_option() -> None:
    named = set(re.findall(r"`(\w+)`", Engine.generate.__doc__ or ""))
    assert OPTIONS - named == set()


def device_choices(command: click.Command) -> tuple[Any, ...]:
    parameter = next(parameter for parameter in command.params if parameter.name == "device")
    assert isinstance(parameter.type, click.Choice)
    return tuple(parameter.type.choices)


def test_every_list_of_devices_is_the_same() -> None:
    kinds = get_args(Kind)
    assert kinds == tuple(TABLE) == tuple(_NAMES) == BUILD_DEVICES == device_choices(command_with(build_device_option))
    assert set(PREFERENCE) < set(kinds)
    parts = {f"{row.kind}:{part}" for row in TABLE.values() for part in row.parts}
    assert set(get_args(Device)) == {kind for kind in kinds if not TABLE[kind].parts} | parts
    numbered = {f"{row.kind}:{number}" for row in TABLE.values() if row.numbered for number in range(8)}
    assert set(get_args(DeviceName)) == {"auto", *kinds} | parts | numbered


@pytest.mark.parametrize("name", get_args(DeviceName))
def test_every_name_of_a_device_that_type_checkers_know_is_taken(name: str) -> None:
    assert ":".join(filter(None, split_device(name))) == name
    assert command_with(device_option).make_context("ask", ["--device", name]).params == {"device": name}


def test_the_help_shows_every_spelling() -> None:
    (option,) = command_with(device_option).params
    assert option.metavar == "|".join(SPELLINGS)


def test_what_the_table_leaves_out_of_a_devices_precisions_has_its_reason() -> None:
    left_out = {(precision, row.kind) for row in TABLE.values() for precision in PRECISIONS} - {
        (precision, row.kind) for row in TABLE.values() for precision in row.precisions
    }
    assert left_out == set(_REFUSED)


@pytest.mark.parametrize("row", TABLE.values(), ids=lambda row: row.kind)
def test_every_device_has_an_extra_that_brings_its_packages(row: DeviceKind) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    brought = {re.match(r"[\w.-]+", line)[0] for line in extras[row.extra]}  # type: ignore[index]
    assert set(row.packages) <= brought


@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.full_name)
def test_every_published_variant_has_its_rank_among_pulled_models(build: Any) -> None:
    assert build.device in build.devices
    assert build.device in PREFERENCE
    assert build.precision in PRECISIONS
    assert set(local._PRECISIONS) == {*PRECISIONS, f"int4-{local.INT8_PREFILL}"}


def test_every_bench_subject_has_its_share_of_memory() -> None:
    assert set(bench_run._BYTES_IN_MEMORY) == set(SUBJECTS)


def test_a_subject_without_a_share_of_memory_is_an_error_that_says_where_to_add_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(bench_run._BYTES_IN_MEMORY, "ours")
    with pytest.raises(OptionError, match=r"add it to _BYTES_IN_MEMORY in bench/run\.py"):
        bench_run._fit_together({"a": {"subject": "ours", "bytes": 1}}, "cpu")


def test_the_warm_protocol_is_raised_when_the_fields_of_its_messages_change(tmp_path: Path) -> None:
    kinds = (GenerationRequest, SamplingParams, JsonSchema, Regex, Choices, GenerationResult, Usage, Timings, ModelDir)
    carried = [f"{kind.__name__}.{field.name}: {field.type}" for kind in kinds for field in fields(kind)]
    Image.new("RGB", (1, 1)).save(tmp_path / "a.png")
    message, _ = request_message(GenerationRequest("hi", [tmp_path / "a.png"]))
    carried += [f"request: {sorted(message)}", f"image: {sorted(message['images'][0])}"]
    found = hashlib.sha256("\n".join(sorted(carried)).encode()).hexdigest()[:16]
    assert found == MESSAGE_FIELDS, (
        "a field that warm engines and their clients send each other was added, removed, renamed or given another "
        "type: increase PROTOCOL in cli/warm/frames.py, so that an engine of before is not asked, and set "
        f"MESSAGE_FIELDS there to {found!r} (that alone, if only a type is spelled differently)"
    )
