"""Whether this processor multiplies int8 as int8 prefill needs it: exactly, in 32 bits.

x86 processors with VNNI add four products of 8 bits at once in 32 bits. On older ones ONNX Runtime adds pairs in 16
bits, which saturate: wrong, and no faster than 4-bit blocks. The largest values tell the one from the other.
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

from .onnx_bytes import FLOAT, INT8, UINT8, model, node, value

_CPUINFO = Path("/proc/cpuinfo")
_X86 = ("x86_64", "AMD64")
_ROWS, _COLUMNS, _OUTPUTS = 8, 128, 32
_LARGEST = 127


@cache
def find_int8_fault() -> str | None:
    """Why prompts are not to be multiplied in int8 here, as a clause; None if they may be."""
    if platform.machine() not in _X86:
        return f"int8 prefill is for x86 processors, and this is {platform.machine() or 'unknown'}"
    if _multiply_largest() != _LARGEST * _LARGEST * _COLUMNS:
        return "this processor has no VNNI: products of int8 saturate"
    return None


def find_int8_units() -> list[str]:
    """What multiplies int8 here, by the kernel's names of x86 flags; nothing on systems other than Linux."""
    try:
        flags = set(_CPUINFO.read_text(encoding="utf-8").split())
    except OSError:
        return []
    return sorted(flags & {"avx_vnni", "avx512_vnni", "amx_int8"})


def _multiply_largest() -> float:
    """A sum of the largest products, as ONNX Runtime computes it: the one furthest from the first, if they differ."""
    import numpy as np
    import onnxruntime

    shapes = {"a": (_ROWS, _COLUMNS), "b": (_COLUMNS, _OUTPUTS)}
    scalars = {"a_scale": FLOAT, "b_scale": FLOAT, "a_zero": UINT8}
    product = node("MatMulIntegerToFloat", ["a", "b", "a_scale", "b_scale", "a_zero"], ["product"])
    inputs = [value("a", UINT8, shapes["a"]), value("b", INT8, shapes["b"])]
    inputs += [value(name, element, ()) for name, element in scalars.items()]
    graph = model([product], inputs, [value("product", FLOAT, (_ROWS, _OUTPUTS))])
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    one, zero = np.float32(1), np.uint8(128)
    given = {
        "a": np.full(shapes["a"], zero + _LARGEST, dtype=np.uint8),
        "b": np.full(shapes["b"], _LARGEST, dtype=np.int8),
    }
    scales = {"a_scale": np.array(one), "b_scale": np.array(one), "a_zero": np.array(zero)}
    (found,) = session.run(None, given | scales)
    return float(np.min(found))
