"""Trims a CUDA library to the device code of one GPU architecture, in place: nothing in the file moves.

nvcc keeps device code in the section .nv_fatbin: a container for each source file, and in it an entry for each
architecture. The payloads of unwanted entries are overwritten with zeros, which compress to nothing. The CUDA runtime
reads the entry of its own GPU only. Neither a GPU nor a CUDA toolkit is needed.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import OptionError

_SECTION = b".nv_fatbin"
_MAGIC = struct.pack("<I", 0xBA55ED50)
_CONTAINER = struct.Struct("<IHHQ")
"""Magic, version, bytes of this header, bytes of all entries."""

_ENTRY = struct.Struct("<HHIQ12xI")
"""Kind, version, bytes of this header, bytes of the payload, and the architecture, such as 90."""

_PTX, _MACHINE_CODE = 1, 2


@dataclass(frozen=True, slots=True)
class _Entry:
    """The device code of one source file for one architecture, and where in the library it lies."""

    start: int
    size: int
    kind: int
    arch: int

    def is_for(self, arch: int) -> bool:
        return self.kind == _MACHINE_CODE and self.arch == arch


def trim_device_code(library: Path, arch: int, *, drop_exclusive: bool = False) -> int:
    """Overwrite all device code but that of `arch`, and return the bytes that are left of it.

    With `drop_exclusive`, code of source files that were compiled for `arch` alone goes too. Raises OptionError, and
    changes nothing, if the library holds no code for `arch` or is built in a way that is not known here.
    """
    with library.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        containers = list(_read_containers(content, library.name))
        kept, dropped = list[_Entry](), list[_Entry]()
        for entries in containers:
            exclusive = drop_exclusive and all(entry.arch == arch for entry in entries)
            for entry in entries:
                (kept if entry.is_for(arch) and not exclusive else dropped).append(entry)
        if not kept:
            found = sorted({entry.arch for entries in containers for entry in entries if entry.kind == _MACHINE_CODE})
            raise OptionError(f"{library.name} holds no code for sm_{arch}; it does for {', '.join(map(str, found))}")
        for entry in dropped:
            content[entry.start : entry.start + entry.size] = bytes(entry.size)
        return sum(entry.size for entry in kept)


def _read_containers(content: mmap.mmap, name: str) -> Iterator[list[_Entry]]:
    """Yield the entries of each container."""
    start, stop = _find_section(content, name)
    while (at := content.find(_MAGIC, start, stop)) >= 0:
        _, version, header, size = _CONTAINER.unpack_from(content, at)
        start = at + header + size
        if version != 1 or start > stop:
            raise _unknown(name, f"a container of version {version} at {at:#x}")
        yield list(_read_entries(content, at + header, start, name))


def _read_entries(content: mmap.mmap, at: int, stop: int, name: str) -> Iterator[_Entry]:
    while at < stop:
        kind, _, header, size, arch = _ENTRY.unpack_from(content, at)
        if kind not in (_PTX, _MACHINE_CODE) or header < _ENTRY.size or at + header + size > stop:
            raise _unknown(name, f"an entry of kind {kind} at {at:#x}")
        yield _Entry(at + header, size, kind, arch)
        at += header + size


def _find_section(content: mmap.mmap, name: str) -> tuple[int, int]:
    """Find where the section with device code begins and ends, in a 64-bit little-endian ELF file."""
    if content[:6] != b"\x7fELF\x02\x01":
        raise _unknown(name, "no 64-bit ELF file")
    (table,) = struct.unpack_from("<Q", content, 0x28)
    size, count, names = struct.unpack_from("<HHH", content, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", content, table + number * size) for number in range(count)]
    strings = headers[names][4]
    for header in headers:
        title = strings + header[0]
        if content[title : title + len(_SECTION) + 1] == _SECTION + b"\0":
            return header[4], header[4] + header[5]
    raise _unknown(name, f"no section {_SECTION.decode()}")


def _unknown(name: str, found: str) -> OptionError:
    return OptionError(f"{name} has {found}: its device code cannot be trimmed; give a library that nvcc 13 built")
