"""Reads facts off an ONNX graph's protobuf bytes: its data files, the type of its pixels, control flow.

Finds them by pattern in the mapped file, so that opening a model folder needs no onnx package and little time.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .files import name_in_errors, require_file

# Source: onnx.proto, StringStringEntryProto {key = 1; value = 2}: the key, the value's field number, its length.
_LOCATION = re.compile(rb"\x0a\x08location\x12(.)", re.DOTALL)
# Source: onnx.proto, ValueInfoProto {name = 1; type = 2}, TypeProto {tensor_type = 1}, Tensor {elem_type = 1}.
_PIXEL_INPUT = re.compile(rb"\x0a\x0cpixel_values\x12.{1,2}?\x0a.{1,2}?\x08([\x01\x0a])", re.DOTALL)
# Source: onnx.proto, NodeProto {op_type = 4}: the key, the length of the name, the name.
_CONTROL_FLOW = re.compile(rb"\x22(?:\x02If|\x04Loop|\x04Scan)")
# Source: onnx.proto, NodeProto {name = 3; op_type = 4}: the keys, each length, the name of at most 127 bytes.
_NAMED_NODE = rb"\x1a([\x01-\x7f])([^\x22]{1,127})\x22%c%s"
_PIXEL_DTYPES = {b"\x01": "float32", b"\x0a": "float16"}


def count_bytes(graph: Path) -> int:
    """Bytes of a graph and of the data files it names. Raises ModelFolderError when one is missing or empty."""
    require_file(graph)
    with name_in_errors(graph):
        files = [graph.parent / name for name in sorted(find_data_files(graph))]
    for file in files:
        require_file(file)
    return sum(file.stat().st_size for file in (graph, *files))


def find_data_files(graph: Path) -> set[str]:
    """Names of the files that hold a graph's tensors."""
    names = set()
    with _map(graph) as content:
        for found in _LOCATION.finditer(content):
            length, start = found.group(1)[0], found.end()
            if length >= 0x80:  # a varint of two bytes; no file name needs three
                length, start = length - 0x80 + (content[start] << 7), start + 1
            names.add(content[start : start + length].decode(errors="replace"))
    return names


def find_pixel_dtype(graph: Path) -> str | None:
    """The type of a vision graph's `pixel_values`; None when it is neither float32 nor float16."""
    with _map(graph) as content:
        found = _PIXEL_INPUT.search(content)
        return _PIXEL_DTYPES[found.group(1)] if found else None


def has_control_flow(graph: Path) -> bool:
    """Whether a graph branches or loops; bytes of weights that look like it count too."""
    with _map(graph) as content:
        return _CONTROL_FLOW.search(content) is not None


def find_nodes(graph: Path, kinds: Iterable[str]) -> list[str]:
    """Names of a graph's nodes of these kinds."""
    with _map(graph) as content:
        return [
            found.group(2).decode(errors="replace")
            for kind in kinds
            for found in re.finditer(_NAMED_NODE % (len(kind), kind.encode()), content, re.DOTALL)
            if found.group(1)[0] == len(found.group(2))
        ]


@contextmanager
def _map(graph: Path) -> Iterator[mmap.mmap]:
    with graph.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content
