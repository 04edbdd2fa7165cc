"""Whether the check of int8 products tells processors apart."""

import platform
from pathlib import Path

import pytest

from phi3v.machine import int8_check
from phi3v.machine.int8_check import find_int8_fault

CPUINFO = Path("/proc/cpuinfo")


@pytest.mark.skipif(not CPUINFO.exists() or platform.machine() != "x86_64", reason="reads x86 flags from /proc/cpuinfo")
def test_products_are_exact_where_the_processor_says_that_it_has_vnni() -> None:
    flags = set(CPUINFO.read_text().split())
    assert (find_int8_fault() is None) is bool(flags & {"avx512_vnni", "avx_vnni"})


@pytest.mark.parametrize(
    ("machine", "found", "fault"),
    [
        ("x86_64", 127 * 127 * 128, None),
        ("AMD64", 16320, "this processor has no VNNI: products of int8 saturate"),  # seen on an emulated Haswell
        ("aarch64", 127 * 127 * 128, "int8 prefill is for x86 processors, and this is aarch64"),
    ],
)
def test_saturated_products_and_other_processors_are_told(
    monkeypatch: pytest.MonkeyPatch, machine: str, found: float, fault: str | None
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(int8_check, "_multiply_largest", lambda: found)
    find_int8_fault.cache_clear()
    try:
        assert find_int8_fault() == fault
    finally:
        find_int8_fault.cache_clear()
