"""What each matrix of a model folder loses where a prompt is multiplied: `phi3v bench parity --matrices`.

The checkpoint runs in float32, a layer at a time, and each matrix is multiplied again as the folder's kernels do, on
the inputs that it meets there. So one matrix's loss says nothing of those before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import OptionError
from ..export.calibrate import sample_matrices
from ..export.calibration import prepare_calibration
from ..export.checkpoint import Checkpoint
from ..export.dims import vision_shapes
from ..export.matrix_plan import measure_outlier_ratio, multiply_in_blocks, multiply_rows
from ..export.precision import Recipe, recipe
from ..models.files import name_in_errors
from ..models.manifest import MANIFEST, Manifest

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class MatrixLoss:
    """A matrix's outputs for a prompt against those in float32, on a sample of its outputs and tokens.

    `name`: the first checkpoint tensor of what is multiplied at once. `kernel`: "int8" (row-wise) or "blocks".
    `outliers`: input columns in float32. `cosine`: mean over the tokens. `largest_error`: relative to the standard
    deviation of the outputs. `outlier_ratio`: largest over median of the input columns' largest magnitudes.
    """

    name: str
    kernel: str
    outliers: int
    cosine: float
    largest_error: float
    outlier_ratio: float


def measure_matrices(checkpoint: Path, model: Path, prompt: str, images: Sequence[Image.Image]) -> list[MatrixLoss]:
    """Measure every matrix but the head, in running order; images are cut into one crop beside the global one.

    Without an image the vision tower is left out. Raises OptionError for a folder that phi3v did not export from a
    checkpoint, or that holds nothing quantised.
    """
    source, (how, plans) = Checkpoint.open(checkpoint), _read_plans(model)
    vision, found = vision_shapes(source.dims), list[MatrixLoss]()

    def look(name: str, weight: Array, x: Array) -> None:
        outliers, blocks = plans.get(name), how.vision if name in vision else how.decoder
        if outliers is not None:
            product = multiply_rows(weight, x, np.array(outliers, dtype=np.intp))
        elif blocks is not None:
            product = multiply_in_blocks(weight, x, blocks)
        else:
            return
        kernel = "blocks" if outliers is None else "int8"
        found.append(_compare(x @ weight.T, product, name, kernel, len(outliers or ()), measure_outlier_ratio(x)))

    sample_matrices(source, prepare_calibration(source, [(prompt, list(images))]), look)
    return found


def _read_plans(model: Path) -> tuple[Recipe, dict[str, list[int]]]:
    """The folder's recipe, and the outlier columns of each matrix that is multiplied in rows."""
    manifest = Manifest.find(model)
    if manifest is None or not manifest.precision or not manifest.device or not manifest.extra.get("block_size"):
        raise OptionError(
            f"{model} has no quantised matrices that phi3v exported from a checkpoint; make such a folder with "
            "`phi3v export CHECKPOINT OUT`"
        )
    with name_in_errors(model / MANIFEST):
        how = recipe(manifest.precision, manifest.device, manifest.extra["block_size"])
        plans = manifest.extra.get("prefill") or {}
        return how, {name: plan["outliers"] for name, plan in plans.items() if plan["rows"]}


def _compare(exact: Array, product: Array, name: str, kernel: str, outliers: int, ratio: float) -> MatrixLoss:
    lengths = np.linalg.norm(exact, axis=1) * np.linalg.norm(product, axis=1)
    cosines = (exact * product).sum(axis=1) / np.where(lengths == 0, 1, lengths)
    largest = float(np.abs(product - exact).max() / max(float(exact.std()), float(np.finfo(np.float32).tiny)))
    return MatrixLoss(name, kernel, outliers, float(cosines.mean()), largest, ratio)
