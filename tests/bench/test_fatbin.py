"""A library is trimmed to the device code of one architecture, and nothing else in it changes."""

from pathlib import Path

import pytest
from device_code import PTX, Code, make_container, make_library

from phi3v.bench.fatbin import trim_device_code
from phi3v.errors import OptionError

CONTAINERS = [
    [Code(80, b"eighty" * 10), Code(90, b"ninety" * 10), Code(90, b"source" * 10, PTX)],
    [Code(90, b"ninety alone" * 5)],
    [Code(80, b"eighty alone" * 5), Code(120, b"later" * 8)],
]


def make(*containers: list[Code]) -> bytes:
    return make_library(*(make_container(*entries) for entries in containers))


@pytest.fixture
def library(tmp_path: Path) -> Path:
    path = tmp_path / "libfast.so"
    path.write_bytes(make(*CONTAINERS))
    return path


def blank(*payloads: bytes) -> bytes:
    """The library, with zeros in place of these payloads."""
    content = make(*CONTAINERS)
    for payload in payloads:
        assert content.count(payload) == 1
        content = content.replace(payload, bytes(len(payload)))
    return content


def test_only_the_code_of_one_architecture_stays(library: Path) -> None:
    assert trim_device_code(library, 90) == 120
    others = [b"eighty" * 10, b"source" * 10, b"eighty alone" * 5, b"later" * 8]
    assert library.read_bytes() == blank(*others)


def test_code_for_one_architecture_alone_goes_if_that_is_asked(library: Path) -> None:
    assert trim_device_code(library, 90, drop_exclusive=True) == 60
    others = [b"eighty" * 10, b"source" * 10, b"eighty alone" * 5, b"later" * 8]
    assert library.read_bytes() == blank(*others, b"ninety alone" * 5)


def test_trimming_again_changes_nothing(library: Path) -> None:
    trim_device_code(library, 80)
    trimmed = library.read_bytes()
    assert trim_device_code(library, 80) == 120
    assert library.read_bytes() == trimmed


def test_a_container_inside_of_code_is_not_taken_for_one(library: Path) -> None:
    inner = make_container(Code(80, b"not code"))
    library.write_bytes(make([Code(90, inner), Code(80, b"eighty" * 10)]))
    assert trim_device_code(library, 90) == len(inner)
    assert library.read_bytes() == make([Code(90, inner), Code(80, bytes(60))])


def test_an_architecture_without_code_is_refused_with_those_that_have_some(library: Path) -> None:
    with pytest.raises(OptionError, match=r"libfast.so holds no code for sm_75; it does for 80, 90, 120$"):
        trim_device_code(library, 75)
    assert library.read_bytes() == make(*CONTAINERS)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"#!/bin/sh\n", "no 64-bit ELF file"),
        (make_library(section=".data"), "no section .nv_fatbin"),
        (make_library(make_container(Code(90, b"ninety"), version=2)), "a container of version 2 at 0x50"),
        (make([Code(90, b"ninety", kind=7)]), "an entry of kind 7 at 0x60"),
    ],
)
def test_a_file_built_otherwise_is_refused_and_left_alone(library: Path, content: bytes, found: str) -> None:
    library.write_bytes(content)
    with pytest.raises(OptionError, match=f"libfast.so has {found}: its device code cannot be trimmed"):
        trim_device_code(library, 90)
    assert library.read_bytes() == content
