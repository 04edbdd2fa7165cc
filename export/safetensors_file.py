"""Read and write safetensors files tensor by tensor, in numpy, with bfloat16 (through ml_dtypes).

The format: an 8-byte little-endian length, a JSON header of that length, then the raw tensors. Reading goes by offset
instead of memory mapping, so a tensor costs memory only while it is held, and part of one can be read.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from ..errors import CheckpointError
from ..models.files import HEAD_BYTES, refuse_lfs_pointer

Array = npt.NDArray[Any]

_DTYPES: dict[str, np.dtype[Any]] = {
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype(np.float16),
    "F32": np.dtype(np.float32),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_MAX_HEADER = 100_000_000
_REPAIR = "download the file again"


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where one tensor lies: its file, first byte, size, type (in the format's words, "BF16") and shape."""

    path: Path
    offset: int
    nbytes: int
    kind: str
    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type in numpy's words; raises CheckpointError for a type that is no float this project reads."""
        if self.kind not in _DTYPES:
            raise CheckpointError(
                f"{self.path} holds a tensor of type {self.kind}; only {', '.join(_DTYPES)} are supported: "
                "give the original checkpoint, not a quantised one"
            )
        return _DTYPES[self.kind]

    def read(self, rows: slice | None = None) -> Array:
        """The tensor, or only some rows of its first axis, in the file's own type."""
        first, last, _ = (rows or slice(None)).indices(self.shape[0] if self.shape else 1)
        row = self.nbytes // (self.shape[0] if self.shape else 1)
        count = (last - first) * row // self.dtype.itemsize
        flat = np.fromfile(self.path, dtype=self.dtype, count=count, offset=self.offset + first * row)
        if flat.size != count:
            raise CheckpointError(f"{self.path} ended while a tensor was read; {_REPAIR}")
        return flat.reshape((last - first, *self.shape[1:]) if self.shape else ())


def read_header(path: Path) -> dict[str, TensorEntry]:
    """Name -> place of every tensor in a file; raises CheckpointError for a file that is cut or no safetensors."""
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; {_REPAIR} into that folder")
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        refuse_lfs_pointer(path, head, CheckpointError)
        length = struct.unpack("<Q", head[:8])[0] if len(head) >= 8 else _MAX_HEADER + 1
        if length > _MAX_HEADER:
            raise CheckpointError(f"{path} is no safetensors file ({size} bytes); {_REPAIR}")
        file.seek(8)
        header = file.read(length)
    if len(header) < length:
        raise CheckpointError(f"{path} is truncated: {size} bytes, its header alone takes {8 + length}; {_REPAIR}")
    try:
        entries = json.loads(header)
        found = {name: _entry(path, 8 + length, entry) for name, entry in entries.items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise CheckpointError(f"{path} has a damaged safetensors header ({exc}); {_REPAIR}") from exc
    needed = max((entry.offset + entry.nbytes for entry in found.values()), default=8 + length)
    if needed > size:
        raise CheckpointError(f"{path} is truncated: {size} bytes where its header promises {needed}; {_REPAIR}")
    return found


def _entry(path: Path, data: int, entry: dict[str, Any]) -> TensorEntry:
    begin, end = entry["data_offsets"]
    shape = tuple(int(n) for n in entry["shape"])
    kind = _DTYPES.get(entry["dtype"])
    if kind is not None and end - begin != kind.itemsize * np.prod(shape, dtype=np.int64):
        raise ValueError(f"{end - begin} bytes for a tensor of shape {list(shape)}")
    return TensorEntry(path, data + begin, end - begin, entry["dtype"], shape)


def write_file(
    path: Path, tensors: Iterable[tuple[str, tuple[int, ...], np.dtype[Any]]], make: Callable[[str], Array]
) -> int:
    """Write the listed tensors; `make(name)` gives each one's values when its turn comes. Returns the data's bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    names, end = [], 0
    for name, shape, dtype in tensors:
        begin, end = end, end + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
        names.append((name, shape, dtype))
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for name, shape, dtype in names:
            file.write(np.asarray(make(name), dtype=dtype).reshape(shape).tobytes())
    return end
