"""How one matrix is multiplied in prefill, decided by the loss measured on inputs that it sees."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..errors import OptionError
from .precision import outlier_counts
from .quantize import BlockQuantization, dequantize_rows, quantize_rows

Array = npt.NDArray[np.float32]

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

    def in_blocks(self) -> MatrixPlan:
        """The same matrix left in blocks."""
        return replace(self, rows=False, outliers=(), loss=self.loss_in_blocks)


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


# Shares of what rounding to blocks has cost already, as estimated from the scales. Errors that know nothing of each
# other add as squares: a quarter makes 4 bits 3 % worse. Of 8 bits, which lose little, 2.5 times as much is not seen.
_SHARE_OF_ROUNDING, _TIMES_FOR_WORST = {4: 0.25, 8: 2.5}, 3.0


def plan_matrix(weight: Array, x: Array, blocks: BlockQuantization) -> MatrixPlan:
    """Plan a weight [outputs, columns] on inputs [tokens, columns]; both may be samples."""
    today = _measure(x @ weight.T, multiply_in_blocks(weight, x, blocks))
    return _choose(weight, x, today.mean, lambda found: found.within(today, blocks.bits))


def plan_stored_matrix(weight: Array, x: Array, bits: int, rounding_loss: float) -> MatrixPlan:
    """Plan a weight that is known only as blocks of so many bits hold it, and what rounding to them has cost."""
    most = _SHARE_OF_ROUNDING[bits] * rounding_loss

    def is_near(found: _Loss) -> bool:
        return max(found.mean, found.varying) <= most and found.worst <= _TIMES_FOR_WORST * most

    return _choose(weight, x, rounding_loss, is_near)


def _choose(weight: Array, x: Array, loss_in_blocks: float, is_near: Callable[[_Loss], bool]) -> MatrixPlan:
    """Take the fewest outlier columns with which rows are near enough, or blocks."""
    exact, order, ratio = x @ weight.T, _rank_columns(x), measure_outlier_ratio(x)
    for count in outlier_counts(x.shape[1]):
        outliers = np.sort(order[:count])
        found = _measure(exact, multiply_rows(weight, x, outliers))
        if is_near(found):
            return MatrixPlan(True, tuple(outliers.tolist()), found.mean, loss_in_blocks, ratio)
    return MatrixPlan(False, (), loss_in_blocks, loss_in_blocks, ratio)


def measure_outlier_ratio(x: Array) -> float:
    """The largest over the median of the columns' largest magnitudes."""
    maxima = np.abs(x).max(axis=0)
    return float(maxima.max()) / max(float(np.median(maxima)), float(np.finfo(np.float32).tiny))


def keep_in_blocks(plans: Mapping[str, MatrixPlan], patterns: Sequence[str]) -> dict[str, MatrixPlan]:
    """The plans with the matrices left in blocks whose names match. Raises OptionError for a pattern that none does."""
    kept = dict(plans)
    for pattern in patterns:
        names = fnmatch.filter(plans, pattern)
        if not names:
            some = ", ".join(list(plans)[-4:])
            raise OptionError(f"no matrix matches {pattern!r}; their names are like {some}; * stands for any letters")
        kept |= {name: plans[name].in_blocks() for name in names}
    return kept


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


def sample_outputs(count: int) -> npt.NDArray[np.intp]:
    """Which of a matrix's outputs its loss is measured on."""
    return _spread(count, _SAMPLED_OUTPUTS)


def sample_tokens(count: int, firsts: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Which tokens it is measured on; those that begin a sequence are always among them."""
    return np.union1d(_spread(count, _SAMPLED_TOKENS), firsts)


def _spread(count: int, most: int) -> npt.NDArray[np.intp]:
    """At most `most` numbers from 0 to `count` - 1, evenly spread, both ends among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.intp))


def describe_plans(plans: Mapping[str, MatrixPlan]) -> dict[str, dict[str, float | bool | list[int]]]:
    """What a manifest says of each matrix, by its name in the checkpoint."""
    return {
        name: {
            "rows": plan.rows,
            "outliers": list(plan.outliers),
            "loss": float(f"{plan.loss:.3g}"),
            "loss_in_blocks": float(f"{plan.loss_in_blocks:.3g}"),
            "outlier_ratio": float(f"{plan.outlier_ratio:.3g}"),
        }
        for name, plan in plans.items()
    }
