"""Decides by measured loss how each matrix is multiplied in prefill on a CPU: in blocks as in decode, or row-wise.

Row-wise int8 has one scale a token and one an output, so one large input channel costs all the others their precision.
Trained models have such outlier columns. They are multiplied in float32 beside the int8 product: the fewest that bring
the loss below a share of today's, and a matrix that no number of them helps stays in blocks. Runs the model in float32
through the checkpoint, a layer at a time, and no graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import OptionError
from .calibration import Calibration, CalibrationInputs, prepare_calibration
from .checkpoint import Checkpoint
from .dims import EMBED, FINAL_NORM, LM_HEAD, tensor_shapes, vision_shapes
from .forward_decoder import Array, run_decoder
from .forward_vision import run_vision
from .matrix import Matrix
from .precision import outlier_counts
from .quantize import BlockQuantization, dequantize_rows, quantize_rows

_SAMPLED_TOKENS, _SAMPLED_OUTPUTS = 512, 256


@dataclass(frozen=True, slots=True)
class MatrixPlan:
    """How a matrix is multiplied in prefill.

    `rows`: row-wise int8 (False: it stays in blocks), with the input columns `outliers` (ascending) in float32.
    `loss`: relative error of the outputs on the calibration tokens, as chosen; `loss_in_blocks`: that of today's
    kernel, weights and activations rounded in blocks. `outlier_ratio`: largest over median column maximum of the input.
    """

    rows: bool
    outliers: tuple[int, ...]
    loss: float
    loss_in_blocks: float
    outlier_ratio: float


def plan_prefill(
    checkpoint: Checkpoint,
    *,
    decoder: BlockQuantization,
    vision: BlockQuantization | None,
    calibration: Calibration,
) -> dict[str, MatrixPlan]:
    """Plan every matrix of the decoder's layers and, unless `vision` is None, of the vision tower, in running order.

    A plan's key is the first checkpoint tensor of what is multiplied at once; the head has none. `decoder` and `vision`
    are today's blocks. Reports its reading through `checkpoint.on_read`, `planned_bytes` in all. Raises OptionError for
    a calibration that is empty, too long, or without the image that the vision tower needs, PromptError for a prompt
    that does not name its images, and CheckpointError for a tokenizer that has more tokens than the model.
    """
    inputs = prepare_calibration(checkpoint, calibration)
    if vision is not None and not inputs.images:
        raise OptionError("no calibration prompt has an image, and the vision tower needs one; add an image")
    plans: dict[str, MatrixPlan] = {}
    features = run_vision(checkpoint, inputs.images, _Planner(plans, vision)) if inputs.images else []
    run_decoder(checkpoint, list(embed(checkpoint, inputs, features)), _Planner(plans, decoder))
    return plans


def planned_bytes(checkpoint: Checkpoint, *, images: bool) -> int:
    """The bytes that `plan_prefill` reads, but for a few tokens' embeddings; `images`: whether it is given any."""
    vision = vision_shapes(checkpoint.dims)
    names = (name for name in tensor_shapes(checkpoint.dims) if name not in (EMBED, FINAL_NORM, LM_HEAD))
    return sum(checkpoint.tensors[name].nbytes for name in names if images or name not in vision)


def embed(checkpoint: Checkpoint, inputs: CalibrationInputs, features: list[Array]) -> Iterator[Array]:
    """The decoder's input for each prompt, [length, hidden]; `features` fill the image slots in order."""
    remaining = iter(features)
    for ids in inputs.ids:
        hidden = np.empty((len(ids), checkpoint.dims.decoder.hidden_size), dtype=np.float32)
        for token in np.unique(ids):
            if token >= 0:
                hidden[ids == token] = checkpoint.float32(EMBED, slice(int(token), int(token) + 1))
        for image in range(1, int(-ids.min(initial=0)) + 1):
            hidden[ids == -image] = next(remaining)
        yield hidden


class _Planner:
    """Multiplies in float32 and, unless `blocks` is None, plans the matrix on the inputs that it sees."""

    def __init__(self, plans: dict[str, MatrixPlan], blocks: BlockQuantization | None) -> None:
        self._plans, self._blocks = plans, blocks

    def __call__(self, matrix: Matrix, x: Array, firsts: npt.NDArray[np.intp]) -> Array:
        wanted = _spread(matrix.rows, _SAMPLED_OUTPUTS)
        out, sampled, begin = np.empty((len(x), matrix.rows), dtype=np.float32), [], 0
        for chunk in matrix.chunks():
            end = begin + len(chunk)
            np.matmul(x, chunk.T, out=out[:, begin:end])
            sampled.append(chunk[wanted[(begin <= wanted) & (wanted < end)] - begin])
            begin = end
        if self._blocks is not None:
            tokens = np.union1d(_spread(len(x), _SAMPLED_TOKENS), firsts)
            self._plans[matrix.parts[0][0]] = plan_matrix(np.concatenate(sampled), x[tokens], self._blocks)
        return out


@dataclass(frozen=True, slots=True)
class _Loss:
    """Relative error of a matrix's outputs: `mean` over the tokens, of the `worst`, and `varying` from token to token.

    `varying` leaves out what the tokens have in common. An outlier channel is often nearly constant: its output dwarfs
    the rest and tells nothing, and neither does an error that is small beside it.
    """

    mean: float
    worst: float
    varying: float

    def within(self, today: _Loss, bits: int) -> bool:
        """Whether prefill may compute so where blocks of that many bits lose `today`."""
        share, share_of_worst = _ALLOWED[bits]
        near = self.mean <= share * today.mean and self.varying <= share * today.varying
        return near and self.worst <= share_of_worst * today.worst


# Shares of today's loss: of the mean and the varying one, and of the worst token's. Measured at the real width, with
# and without planted outliers, half of what 4 bits lose brings a prompt's logits to a tenth of today's divergence
# from fp32. Random weights need a quarter, so no column is paid for without need. The worst token is a prompt's
# first: it may lose more, since what is huge there is the same in every prompt. The tower's 8 bits lose a tenth of 4:
# twice that is not seen in the logits, and less asks for columns where no outliers are, one scale a row losing 1.3
# times as much.
_ALLOWED = {4: (0.5, 1.5), 8: (2.0, 2.0)}


def plan_matrix(weight: Array, x: Array, blocks: BlockQuantization) -> MatrixPlan:
    """Plan a weight [outputs, columns] on inputs [tokens, columns]; both may be samples."""
    exact = x @ weight.T
    today = _measure(exact, multiply_in_blocks(weight, x, blocks))
    order, maxima = _rank_columns(x), np.abs(x).max(axis=0)
    ratio = float(maxima.max()) / max(float(np.median(maxima)), float(np.finfo(np.float32).tiny))
    for count in outlier_counts(x.shape[1]):
        outliers = np.sort(order[:count])
        found = _measure(exact, multiply_rows(weight, x, outliers))
        if found.within(today, blocks.bits):
            return MatrixPlan(True, tuple(outliers.tolist()), found.mean, today.mean, ratio)
    return MatrixPlan(False, (), today.mean, today.mean, ratio)


def multiply_in_blocks(weight: Array, x: Array, blocks: BlockQuantization) -> Array:
    """What MatMulNBits computes at accuracy level 4: stored weights, each token rounded to int8 in the same blocks."""
    columns, padding = x.shape[1], -x.shape[1] % blocks.block_size
    cut = np.pad(x, ((0, 0), (0, padding))).reshape(len(x), -1, blocks.block_size)
    integers, scales = _round(cut)
    rounded = (integers * scales).reshape(len(x), -1)[:, :columns]
    stored = dequantize_rows(*quantize_rows(weight, blocks), blocks, columns)
    return np.asarray(rounded @ stored.T)


def multiply_rows(weight: Array, x: Array, outliers: npt.NDArray[np.intp]) -> Array:
    """What row-wise int8 computes: a scale a token, a scale an output, the columns `outliers` in float32 beside it."""
    inner, inner_weight = x.copy(), weight.copy()
    inner[:, outliers] = 0
    inner_weight[:, outliers] = 0
    (integers, scales), (weights, weight_scales) = _round(inner), _round(inner_weight)
    product = (integers @ weights.T) * scales * weight_scales.T
    return np.asarray(product + x[:, outliers] @ weight[:, outliers].T)


def _round(values: Array) -> tuple[Array, Array]:
    """The integers, -127 to 127, nearest to the last axis's values, and the scale they stand for."""
    scales = np.abs(values).max(axis=-1, keepdims=True) / np.float32(127)
    scales[scales == 0] = 1
    return np.rint(values / scales), scales


def _measure(exact: Array, found: Array) -> _Loss:
    error = found - exact
    errors = _lengths(error) / _lengths(exact)
    varying = _lengths(_centre(error)) / _lengths(_centre(exact))
    return _Loss(float(errors.mean()), float(errors.max()), float(varying.mean()))


def _centre(rows: Array) -> Array:
    """Without what the rows have in common; their median, which a huge first token does not move."""
    centred: Array = rows - np.median(rows, axis=0).astype(np.float32)
    return centred


def _lengths(rows: Array) -> Array:
    """The length of each row; that of a row of zeros, whose error is zero too, is 1."""
    lengths: Array = np.sqrt(np.square(rows).sum(axis=1))
    lengths[lengths == 0] = 1
    return lengths


def _rank_columns(x: Array) -> npt.NDArray[np.intp]:
    """The columns, first those that stand out most from the rest of their tokens.

    The mean of eighth powers is nearly a maximum, and counts besides in how many tokens a column stands out: measured,
    the columns that it finds take more of the loss. Each token is first divided by its size, or the huge first ones of
    trained models would choose for all.
    """
    sizes = np.sqrt(np.square(x).mean(axis=1, keepdims=True))
    relative = np.abs(x) / np.where(sizes == 0, 1, sizes)
    return np.argsort(-(relative.astype(np.float64) ** 8).mean(axis=0), kind="stable")


def _spread(count: int, most: int) -> npt.NDArray[np.intp]:
    """At most `most` numbers from 0 to `count` - 1, evenly spread, both ends among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.intp))


def describe_plans(plans: Mapping[str, MatrixPlan]) -> dict[str, dict[str, float | int | bool]]:
    """What a manifest says of each matrix, by its name in the checkpoint; the outlier columns as a number."""
    return {
        name: {
            "rows": plan.rows,
            "outliers": len(plan.outliers),
            "loss": float(f"{plan.loss:.3g}"),
            "loss_in_blocks": float(f"{plan.loss_in_blocks:.3g}"),
            "outlier_ratio": float(f"{plan.outlier_ratio:.3g}"),
        }
        for name, plan in plans.items()
    }
