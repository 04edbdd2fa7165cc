"""Small libraries with a section of device code, laid out as nvcc's."""

import struct
from dataclasses import dataclass

PTX, MACHINE_CODE = 1, 2


@dataclass(frozen=True)
class Code:
    """One entry of a container: the code of one source file for one architecture."""

    arch: int
    payload: bytes
    kind: int = MACHINE_CODE


def make_container(*entries: Code, version: int = 1) -> bytes:
    """The device code of one source file."""
    packed = b""
    for entry in entries:
        header = struct.pack("<HHIQIIHHI", entry.kind, 0x101, 64, len(entry.payload), 0, 0, 3, 1, entry.arch)
        packed += header.ljust(64, b"\0") + entry.payload
    return struct.pack("<IHHQ", 0xBA55ED50, version, 16, len(packed)) + packed


def make_library(*containers: bytes, section: str = ".nv_fatbin") -> bytes:
    """A 64-bit ELF file with such a section, some zeros between its containers, and one of text before it."""
    contents = {".text": b"host code", section: bytes(8).join(containers)}
    names = b"\0" + b"".join(name.encode() + b"\0" for name in (*contents, ".shstrtab"))
    body, headers = b"", [bytes(64)]
    for name, content in {**contents, ".shstrtab": names}.items():
        body += bytes(-len(body) % 8)
        kind, flags = (3, 0) if name == ".shstrtab" else (1, 2)  # SHT_STRTAB; SHT_PROGBITS, SHF_ALLOC
        place = (names.index(name.encode() + b"\0"), kind, flags, 0, 64 + len(body), len(content), 0, 0, 8, 0)
        headers.append(struct.pack("<IIQQQQIIQQ", *place))
        body += content
    body += bytes(-len(body) % 8)
    kind, machine = 1, 62  # ET_REL, EM_X86_64
    sizes = (64, 0, 0, 64, len(headers), len(headers) - 1)
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", kind, machine, 1, 0, 0, 64 + len(body), 0, *sizes)
    return head + body + b"".join(headers)
