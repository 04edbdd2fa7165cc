"""Small ONNX models written without the onnx package, to try what a provider or a processor computes.

Source of the field numbers: onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

FLOAT, UINT8, INT8, INT32, FLOAT16 = 1, 2, 3, 6, 10
"""Element types."""

_IR_VERSION, _OPSET = 10, 21
_MICROSOFT = b"com.microsoft"


def model(nodes: Iterable[bytes], inputs: Iterable[bytes], outputs: Iterable[bytes]) -> bytes:
    """A model of these `node`s, with these `value`s going in and out."""
    graph = b"".join(
        [
            *(_field(1, each) for each in nodes),
            _field(2, b"check"),
            *(_field(11, each) for each in inputs),
            *(_field(12, each) for each in outputs),
        ]
    )
    opsets = [_field(1, domain) + _field(2, version) for domain, version in ((b"", _OPSET), (_MICROSOFT, 1))]
    return _field(1, _IR_VERSION) + _field(7, graph) + b"".join(_field(8, opset) for opset in opsets)


def node(kind: str, inputs: Sequence[str], outputs: Sequence[str], numbers: dict[str, int] | None = None) -> bytes:
    """A node of one of ONNX Runtime's own operators, with integer attributes."""
    attributes = [
        _field(1, name.encode()) + _field(3, number) + _field(20, 2) for name, number in (numbers or {}).items()
    ]
    return b"".join(
        [
            *(_field(1, name.encode()) for name in inputs),
            *(_field(2, name.encode()) for name in outputs),
            _field(4, kind.encode()),
            *(_field(5, attribute) for attribute in attributes),
            _field(7, _MICROSOFT),
        ]
    )


def value(name: str, element: int, shape: Iterable[int]) -> bytes:
    """What goes in or comes out: a tensor of an element type and a shape."""
    dims = b"".join(_field(1, _field(1, size)) for size in shape)
    return _field(1, name.encode()) + _field(2, _field(1, _field(1, element) + _field(2, dims)))


def _field(number: int, content: bytes | int) -> bytes:
    """A field of a protobuf message: a varint, or bytes behind their length."""
    if isinstance(content, int):
        return _varint(number << 3) + _varint(content)
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])
