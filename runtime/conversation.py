"""A conversation in tensors: turns of pictures, text and answers -> ids and crops."""

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
    """One turn as it stands in a prompt: text, pictures as they were given, and the answer's ids once it has one."""

    layout: PromptLayout
    pictures: tuple[hd.HdImage, ...]
    answer_ids: tuple[int, ...] = ()

    @property
    def in_order(self) -> list[hd.HdImage]:
        """The pictures as the text places them."""
        return [self.pictures[i] for i in self.layout.order]


class PictureStack:
    """The pictures of a prompt side by side; the same arrays for the same pictures, by which a KV cache knows them."""

    def __init__(self) -> None:
        self._pictures: list[hd.HdImage] = []
        self._arrays: tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]] | None = None

    def of(
        self, pictures: list[hd.HdImage]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]] | tuple[None, None]:
        """`pixel_values` and `image_sizes` as in ModelInputs."""
        if not pictures:
            return None, None
        same = len(pictures) == len(self._pictures) and all(map(operator.is_, pictures, self._pictures))
        if self._arrays is None or not same:
            pixels, sizes, _ = hd.stack(pictures)
            self._pictures, self._arrays = pictures, (pixels, sizes)
        return self._arrays


def conversation_inputs(tokenizer: Tokenizer, turns: Sequence[Spoken], stack: PictureStack) -> ModelInputs:
    """The prompt that the last of `turns` asks, everything before it included."""
    ids: list[int] = []
    pictures: list[hd.HdImage] = []
    for turn in turns:
        slots = [picture.plan.image_tokens for picture in turn.in_order]
        ids += turn.layout.input_ids(tokenizer, slots, earlier=len(pictures) if ids else None)
        ids += turn.answer_ids
        pictures += turn.in_order
    tokens = tuple(picture.plan.image_tokens for picture in pictures)
    pixels, sizes = stack.of(pictures)
    return ModelInputs(np.asarray(ids, dtype=np.int32), pixels, sizes, tokens)
