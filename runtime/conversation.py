"""A conversation in tensors: turns of images, text and answers -> ids and crops."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from . import hd
from .backend import ModelInputs
from .prompt import PromptLayout
from .tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, eq=False)
class Spoken:
    """One turn of a prompt: text, images as they were given, and the answer's ids once it has one."""

    layout: PromptLayout
    images: tuple[hd.HdImage, ...]
    answer_ids: tuple[int, ...] = ()

    @property
    def in_order(self) -> list[hd.HdImage]:
        """The images as the text places them."""
        return [self.images[i] for i in self.layout.order]


class ImageStack:
    """The images of a prompt stacked; the same arrays for the same images, by which a KV cache recognises them."""

    def __init__(self) -> None:
        self._images: list[hd.HdImage] = []
        self._arrays: tuple[hd.Pixels, npt.NDArray[np.int64]] | None = None

    def of(self, images: list[hd.HdImage]) -> tuple[hd.Pixels, npt.NDArray[np.int64]] | tuple[None, None]:
        """`pixel_values` and `image_sizes` as in ModelInputs."""
        if not images:
            return None, None
        same = len(images) == len(self._images) and all(map(operator.is_, images, self._images))
        if self._arrays is None or not same:
            pixels, sizes, _ = hd.stack(images)
            self._images, self._arrays = images, (pixels, sizes)
        return self._arrays


def conversation_inputs(tokenizer: Tokenizer, turns: Sequence[Spoken], stack: ImageStack) -> ModelInputs:
    """The prompt for the last of `turns`, with all turns before it."""
    ids: list[int] = []
    images: list[hd.HdImage] = []
    for turn in turns:
        slots = [image.plan.image_tokens for image in turn.in_order]
        ids += turn.layout.input_ids(tokenizer, slots, earlier=len(images) if ids else None)
        ids += turn.answer_ids
        images += turn.in_order
    tokens = tuple(image.plan.image_tokens for image in images)
    pixels, sizes = stack.of(images)
    return ModelInputs(np.asarray(ids, dtype=np.int32), pixels, sizes, tokens)
