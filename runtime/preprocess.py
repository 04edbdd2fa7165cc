"""Preprocessing of one model folder, equal to the reference processor: HD transform and tokenisation.

No engine underneath is loaded: a process that only prepares requests needs nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from . import hd
from .backend import ModelInputs, TextStream
from .machine.device import Device
from .models.folder import ModelDir
from .prompt import PromptLayout
from .tokenizer import Tokenizer
from .types import NumCrops


class HdPreprocessor:
    """A folder's preprocessing, for requests that will run on `device`. `tokenizer` is the folder's."""

    def __init__(self, model: ModelDir, device: Device) -> None:
        self._model_dir = model
        self._device = device
        self.tokenizer = Tokenizer(model.path / "tokenizer.json")

    @property
    def model(self) -> ModelDir:
        """The folder."""
        return self._model_dir

    @property
    def device(self) -> Device:
        """The device the model runs on."""
        return self._device

    @property
    def num_crops(self) -> int:
        """The folder's own number of crops."""
        return self._model_dir.num_crops

    def preprocess(self, prompt: str, pictures: Sequence[Image.Image], num_crops: NumCrops) -> ModelInputs:
        """HD transform and tokenisation, equal to the reference processor."""
        layout = PromptLayout.of(prompt, len(pictures))
        if not pictures:
            return ModelInputs(int32(layout.input_ids(self.tokenizer, ())), None, None, ())
        pixels, sizes, tokens = hd.stack([hd.transform(pictures[i], num_crops) for i in layout.order])
        return ModelInputs(int32(layout.input_ids(self.tokenizer, tokens)), pixels, sizes, tuple(tokens))

    def text_stream(self) -> TextStream:
        """A fresh detokeniser."""
        return self.tokenizer.text_stream()


def int32(ids: Sequence[int] | npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
    """Token ids as every backend takes them."""
    return np.asarray(ids, dtype=np.int32)
