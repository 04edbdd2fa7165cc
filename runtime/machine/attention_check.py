"""Whether a plugin's attention computes what it should: 64 tokens against numpy.

A software adapter was seen to be off by half a standard deviation from 33 tokens on, where ONNX Runtime takes its
tiled kernels, and nothing else about it was wrong. So each adapter shows once in a process that it can do it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .onnx_bytes import FLOAT, FLOAT16, INT32, model, node, value

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_TOKENS, _HEADS, _HEAD_SIZE = 64, 2, 96
_WIDTH = _HEADS * _HEAD_SIZE
_TOLERANCE = {"float32": 1e-3, "float16": 2e-2}
_ELEMENT = {"float32": FLOAT, "float16": FLOAT16}
_NAMES = ("causal", "plain")


@dataclass(frozen=True, slots=True)
class AttentionFault:
    """What is wrong, as a clause. `runs`: there are results, and they are wrong."""

    text: str
    runs: bool


def find_attention_fault(devices: Iterable[Any], dtype: str) -> AttentionFault | None:
    """How ONNX Runtime's attention differs on the first of its devices from numpy's; None if it does not.

    Both kinds that a model has are tried: GroupQueryAttention in the decoder, MultiHeadAttention in the vision tower.
    """
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_provider_for_devices(list(devices)[:1], {})
    inputs = _inputs(np.dtype(dtype))
    try:
        session = onnxruntime.InferenceSession(attention_graph(dtype), options)
        outputs = session.run(list(_NAMES), inputs)
    except Exception as exc:  # ONNX Runtime's errors have no class of their own to name
        reason = (str(exc).strip() or type(exc).__name__).splitlines()[0].rpartition("Status Message: ")[2].rstrip(".")
        return AttentionFault(f"attention in {dtype} does not run: {reason}", runs=False)
    worst = max(
        float(np.abs(found.astype(np.float32) - attend(inputs, causal=name == "causal")).max())
        for name, found in zip(_NAMES, outputs, strict=True)
    )
    if worst <= _TOLERANCE[dtype]:  # not so for NaN
        return None
    return AttentionFault(f"attention over {_TOKENS} tokens in {dtype} is off by {worst:.2g}", runs=True)


def attend(inputs: dict[str, npt.NDArray[Any]], *, causal: bool) -> npt.NDArray[np.float32]:
    """The same attention in numpy, float32 [1, tokens, heads * head size]."""
    import numpy as np

    q, k, v = (inputs[name].astype(np.float32).reshape(_TOKENS, _HEADS, _HEAD_SIZE) for name in "qkv")
    scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(np.float32(_HEAD_SIZE))
    if causal:
        scores[:, np.triu(np.ones((_TOKENS, _TOKENS), dtype=bool), 1)] = -np.inf
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    summed: npt.NDArray[np.float32] = np.einsum("hqk,khd->qhd", weights, v)
    return summed.reshape(1, _TOKENS, _WIDTH)


def _inputs(dtype: np.dtype[Any]) -> dict[str, npt.NDArray[Any]]:
    import numpy as np

    random = np.random.default_rng(0)
    inputs: dict[str, npt.NDArray[Any]] = {
        name: random.standard_normal((1, _TOKENS, _WIDTH)).astype(dtype) for name in "qkv"
    }
    nothing = np.zeros((1, _HEADS, 0, _HEAD_SIZE), dtype)
    lengths = {"last": np.array([_TOKENS - 1], np.int32), "all": np.array(_TOKENS, np.int32)}
    return inputs | {"past_k": nothing, "past_v": nothing} | lengths


def attention_graph(dtype: str) -> bytes:
    """An ONNX model with one causal and one plain attention over the inputs q, k and v."""
    element, cache = _ELEMENT[dtype], (1, _HEADS, 0, _HEAD_SIZE)
    grown = (1, _HEADS, _TOKENS, _HEAD_SIZE)
    rows = (1, _TOKENS, _WIDTH)
    heads = {"num_heads": _HEADS}
    causal = node(
        "GroupQueryAttention",
        [*"qkv", "past_k", "past_v", "last", "all"],
        ["causal", "k_out", "v_out"],
        heads | {"kv_num_heads": _HEADS},
    )
    plain = node("MultiHeadAttention", [*"qkv"], ["plain"], heads)
    inputs = [value(name, element, rows) for name in "qkv"]
    inputs += [value(name, element, cache) for name in ("past_k", "past_v")]
    inputs += [value("last", INT32, (1,)), value("all", INT32, ())]
    outputs = [value(name, element, rows) for name in _NAMES]
    outputs += [value(name, element, grown) for name in ("k_out", "v_out")]
    return model((causal, plain), inputs, outputs)
