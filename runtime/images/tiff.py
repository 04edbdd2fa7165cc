"""The pages of a TIFF, by its directories. Nothing is decoded here."""

from __future__ import annotations

import struct
from dataclasses import dataclass

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""How a TIFF begins; the last two are BigTIFF's."""

DAMAGED = (struct.error, IndexError, ValueError, OverflowError)
"""What reading a damaged TIFF's directories raises; the last for a BigTIFF, whose offsets have 64 bits."""

_MOST_PAGES = 10_000


@dataclass(frozen=True, slots=True)
class TiffLayout:
    """Where the numbers stand, and of which size, in struct's letters."""

    order: str
    header: int
    offset: str
    count: str
    entry: int

    @classmethod
    def of(cls, data: bytes) -> TiffLayout:
        """The layout by a file's first bytes."""
        order = "<" if data[:2] == b"II" else ">"
        if data[2:4] in (b"+\0", b"\0+"):
            return cls(order, 8, f"{order}Q", f"{order}Q", 20)
        return cls(order, 4, f"{order}I", f"{order}H", 12)

    def directories(self, data: bytes) -> list[range]:
        """The bytes of each page's entries, in order; one that leads back ends them. Raises one of DAMAGED."""
        found, (at,) = dict[int, range](), struct.unpack_from(self.offset, data, self.header)
        while at and at not in found and len(found) < _MOST_PAGES:
            (number,) = struct.unpack_from(self.count, data, at)
            begin = at + struct.calcsize(self.count)
            end = begin + number * self.entry
            (following,) = struct.unpack_from(self.offset, data, end)
            found[at] = range(begin, end, self.entry)
            at = following
        return list(found.values())


def tiff_page(data: bytes, page: int) -> bytes:
    """The same TIFF with nothing but its page `page`, counted from 1. Raises one of DAMAGED."""
    layout = TiffLayout.of(data)
    entries = layout.directories(data)[page - 1]
    alone = bytearray(data)
    struct.pack_into(layout.offset, alone, layout.header, entries.start - struct.calcsize(layout.count))
    struct.pack_into(layout.offset, alone, entries.stop, 0)
    return bytes(alone)
