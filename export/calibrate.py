"""Decides by measured loss how each matrix is multiplied in prefill on a CPU: in blocks as in decode, or row-wise.

Row-wise int8 has one scale a token and one an output, so one large input channel costs all the others their precision.
Trained models have such outlier columns. They are multiplied in float32 beside the int8 product: the fewest that bring
the loss below a share of today's, and a matrix that no number of them helps stays in blocks. Runs the model in float32
through the checkpoint, a layer at a time, and no graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ..errors import OptionError
from .calibration import Calibration, CalibrationInputs, prepare_calibration
from .checkpoint import Checkpoint
from .dims import EMBED, FINAL_NORM, LM_HEAD, tensor_shapes, vision_shapes
from .forward_decoder import Array, run_decoder
from .forward_vision import run_vision
from .matrix import Matrix
from .matrix_plan import MatrixPlan, keep_in_blocks, plan_matrix, sample_outputs, sample_tokens
from .quantize import BlockQuantization


def plan_prefill(
    checkpoint: Checkpoint,
    *,
    decoder: BlockQuantization,
    vision: BlockQuantization | None,
    calibration: Calibration,
    keep: Sequence[str] = (),
) -> dict[str, MatrixPlan]:
    """Plan every matrix of the decoder's layers and, unless `vision` is None, of the vision tower, in running order.

    A plan's key is the first checkpoint tensor of what is multiplied at once; the head has none. `decoder` and `vision`
    are today's blocks. Matrices whose key matches a pattern of `keep` stay in them; OptionError for a pattern that none
    matches. Reports its reading through `checkpoint.on_read`, `planned_bytes` in all. Raises OptionError for
    a calibration that is empty, too long, or without the image that the vision tower needs, PromptError for a prompt
    that does not name its images, and CheckpointError for a tokenizer that has more tokens than the model.
    """
    inputs = prepare_calibration(checkpoint, calibration)
    if vision is not None and not inputs.images:
        raise OptionError("no calibration prompt has an image, and the vision tower needs one; add an image")
    plans: dict[str, MatrixPlan] = {}

    def look(name: str, weight: Array, x: Array) -> None:
        blocks = vision if name in vision_names else decoder
        if blocks is not None:
            plans[name] = plan_matrix(weight, x, blocks)

    vision_names = vision_shapes(checkpoint.dims)
    sample_matrices(checkpoint, inputs, look)
    return keep_in_blocks(plans, keep)


def sample_matrices(
    checkpoint: Checkpoint, inputs: CalibrationInputs, look: Callable[[str, Array, Array], None]
) -> None:
    """Run the model in float32 and call `look(name, weight, x)` for every matrix but the head, in running order.

    `name` is the first checkpoint tensor of what is multiplied at once, `weight` [outputs, columns] a sample of its
    rows, and `x` [tokens, columns] a sample of the inputs that it meets.
    """
    features = run_vision(checkpoint, inputs.images, _Sampler(look)) if inputs.images else []
    run_decoder(checkpoint, list(embed(checkpoint, inputs, features)), _Sampler(look))


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


class _Sampler:
    """Multiplies in float32, and shows samples of the weight and of the inputs that it sees."""

    def __init__(self, look: Callable[[str, Array, Array], None]) -> None:
        self._look = look

    def __call__(self, matrix: Matrix, x: Array, firsts: npt.NDArray[np.intp]) -> Array:
        wanted = sample_outputs(matrix.rows)
        out, sampled, begin = np.empty((len(x), matrix.rows), dtype=np.float32), [], 0
        for chunk in matrix.chunks():
            end = begin + len(chunk)
            np.matmul(x, chunk.T, out=out[:, begin:end])
            sampled.append(chunk[wanted[(begin <= wanted) & (wanted < end)] - begin])
            begin = end
        self._look(matrix.parts[0][0], np.concatenate(sampled), x[sample_tokens(len(x), firsts)])
        return out
