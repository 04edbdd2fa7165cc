"""What "int4", "fp16" and "fp32" mean on each device: types, quantisation, and the bytes a model folder will take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..errors import OptionError
from ..machine.device_table import TABLE, suited_devices
from ..machine.int8_check import find_int8_fault
from ..machine.memory import total_memory
from .dims import EMBED, LM_HEAD, VISION, ModelDims, tensor_shapes, vision_shapes
from .quantize import BlockQuantization

PRECISIONS = ("int4", "int8", "fp16", "fp32")
DEVICES = tuple(TABLE)
BLOCK_SIZES = (16, 32, 64, 128, 256)
PREFILLS = ("auto", "int4", "int8")
"""What int4 folders for the CPU multiply a prompt in: the blocks that a token takes too, or row-wise int8.

auto: int8 where this machine can use it (`choose_prefill`).
"""

OUTLIER_COUNTS = (0, 8, 16, 32, 64)
"""How many columns row-wise int8 may leave in float32, the fewest first: 64 of 3072 add a fifth to a product's time."""

_COLUMNS_PER_OUTLIER = 8
"""An eighth of the columns at most: float32 is eight times as slow as int8, so more would take longer than blocks."""

_BESIDE_WEIGHTS = 4 << 30

_REFUSED = {
    ("int8", "cuda"): "row-wise int8 is for processors: use int4 or fp16 on a GPU",
    ("int8", "webgpu"): "row-wise int8 is for processors: use int4 or fp16 on a GPU",
    ("int8", "openvino"): "OpenVINO does not know row-wise int8: use int4 or fp32",
    ("fp32", "cuda"): "ONNX Runtime's fused CUDA attention takes float16 only: use fp16 or int4 on a GPU",
    ("fp16", "openvino"): "OpenVINO cannot convert the vision tower's QuickGelu in float16: use int4 or fp32",
}
"""Why the table of devices leaves a precision out."""

# Measured at real width, four layers, two CPU threads: 8 bits in blocks of 128 is as fast as 4 bits (1.7 times fp32)
# at a hundredth of its error (cosine to fp32 0.9998 against 0.978). A GPU gains nothing from a quantised tower.
_CPU_INT8 = BlockQuantization(bits=8, block_size=128, accuracy_level=4)
# Measured likewise (docs/benchmarks.md): blocks of 128 and an 8-bit head decode 1.3 and prefill 1.14 times as fast as
# blocks of 32, and come nearer to fp32 on average (cosine 0.9934 against 0.9916).
_DEFAULT_BLOCK_SIZE = {"cpu": 128, "cuda": 32, "webgpu": 32}
# On the CPU and through WebGPU, activations are rounded to 8 bits for int4 matrices, and integers are multiplied.
_ACCURACY_LEVEL = {"cpu": 4, "cuda": 0, "webgpu": 4}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one build stores and computes; None means unquantised. `head`: the matrix before the logits.

    `device` is what the graphs are made for, `devices` the kinds of devices that the build runs on. `rows` is what is
    multiplied in row-wise int8 where that loses little enough (calibrate.py): prompts and images, their weights then
    lying beside those in blocks, or everything.
    """

    precision: str
    device: str
    devices: tuple[str, ...]
    dtype: np.dtype[Any]
    table_dtype: np.dtype[Any]
    decoder: BlockQuantization | None
    head: BlockQuantization | None
    vision: BlockQuantization | None
    rows: Literal["nothing", "prompts", "everything"] = "nothing"


def recipe(precision: str, device: str, block_size: int | None = None, prefill: str = "int4") -> Recipe:
    """The build for a precision and a device, which may be another's; raises OptionError naming what can be had."""
    choices = ((precision, PRECISIONS, "precision"), (device, DEVICES, "device"), (prefill, PREFILLS, "prefill"))
    for given, allowed, option in choices:
        if given not in allowed:
            raise OptionError(f"{option} is {given!r}; use one of {', '.join(allowed)}")
    if prefill == "int8" and (precision, device) not in (("int4", "cpu"), ("int8", "cpu")):
        raise OptionError(f"prefill is int8, which int4 for the CPU can have, and this is {precision} for {device}")
    if prefill == "int4" and precision == "int8":
        raise OptionError("prefill is int4, and precision is int8, which has no int4 weights; leave one of them out")
    wanted, device = device, TABLE[device].builds[0]
    block_size = _DEFAULT_BLOCK_SIZE[device] if block_size is None else block_size
    if block_size not in BLOCK_SIZES:
        raise OptionError(f"block_size is {block_size}; use one of {', '.join(map(str, BLOCK_SIZES))}")
    if precision not in TABLE[wanted].precisions:
        raise OptionError(f"{precision} cannot run on {wanted}. {_REFUSED[precision, wanted]}")
    # A decoder for CUDA would do for WebGPU, but vision and embedding are tied to CUDA (config_files.py).
    on_cpu, devices = device == "cpu", (device,) if device == "cuda" else suited_devices(device, precision)
    # On the CPU fp16 halves the files and the KV cache; ONNX Runtime widens the weights as it loads them.
    dtype = np.dtype(np.float32 if precision == "fp32" or (on_cpu and precision in ("int4", "int8")) else np.float16)
    table = np.dtype(np.float32 if precision == "fp32" else np.float16)
    if precision == "int8":
        return Recipe(precision, device, ("cpu",), dtype, table, *(_CPU_INT8,) * 3, rows="everything")
    if precision != "int4":
        return Recipe(precision, device, devices, dtype, table, None, None, None)
    decoder = BlockQuantization(4, block_size, accuracy_level=_ACCURACY_LEVEL[device])
    head, vision = (_CPU_INT8, _CPU_INT8) if on_cpu else (decoder, None)
    if prefill == "int8":
        return Recipe(precision, device, devices, dtype, table, decoder, head, vision, rows="prompts")
    return Recipe(precision, device, devices, dtype, table, decoder, head, vision)


def choose_prefill(dims: ModelDims, precision: str, device: str) -> str:
    """What prefill "auto" is here: int8 where the build can have it, the processor multiplies it, and it fits.

    "int4" else. It fits where this machine's whole memory holds the weights and as much again as 16 crops take beside
    them: 4 GB of KV cache and activations, measured at the real size.
    """
    if (precision, device) != ("int4", "cpu"):
        return "int8" if precision == "int8" else "int4"
    total = total_memory()
    fits = total is None or folder_bytes(dims, recipe(precision, device, prefill="int8")) + _BESIDE_WEIGHTS <= total
    return "int8" if fits and find_int8_fault() is None else "int4"


def outlier_counts(columns: int) -> list[int]:
    """The numbers of outlier columns that a matrix of so many columns may have, ascending."""
    return [count for count in OUTLIER_COUNTS if count * _COLUMNS_PER_OUTLIER <= columns]


def folder_bytes(dims: ModelDims, how: Recipe) -> int:
    """Upper estimate of the bytes a build writes, within a few per cent."""
    vision = vision_shapes(dims)
    total = 0
    for name, shape in (tensor_shapes(dims) | {LM_HEAD: (dims.decoder.vocab_size, dims.decoder.hidden_size)}).items():
        values = int(np.prod(shape, dtype=np.int64))
        if name == EMBED:
            total += values * how.table_dtype.itemsize
            continue
        quantization = how.vision if name in vision else how.head if name == LM_HEAD else how.decoder
        plain = quantization is None or len(shape) != 2 or name.startswith(f"{VISION}img_processor.vision_model.emb")
        total += values * how.dtype.itemsize if plain else _quantized_bytes(values, quantization, how)
        if how.rows != "nothing" and not plain and name != LM_HEAD:
            # Of row-wise weights, outlier columns in float32 too.
            total += (values if how.rows == "prompts" else 0) + 4 * shape[0] * outlier_counts(shape[1])[-1]
    rotary = dims.decoder.head_size * how.dtype.itemsize  # cosines and sines of half the head, for every position
    decoders = 2 if how.rows == "prompts" else 1  # each graph file has them
    return int(1.02 * (total + decoders * rotary * dims.decoder.max_position_embeddings)) + (4 << 20)


def _quantized_bytes(values: int, quantization: BlockQuantization | None, how: Recipe) -> int:
    assert quantization is not None
    return values * quantization.bits // 8 + values // quantization.block_size * how.dtype.itemsize
