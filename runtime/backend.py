"""The seam to the engine underneath: what a backend must do, and nothing about how.

`GenaiBackend` (genai.py) is the one people use; the PyTorch reference in bench/ is another, and tests write fakes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from .model_dir import ModelDir
from .sampling import TokenChooser

if TYPE_CHECKING:
    from .tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class ModelInputs:
    """A request in tensors.

    `input_ids`: int32 [L]; a negative id is a slot for one picture token, picture N's slots being -N.
    `pixel_values`: float32 [N, K, 3, 336, 336], the global crop first, zero crops as padding; None without pictures.
    `image_sizes`: int64 [N, 2], padded height and width in pixels; None without pictures.
    `image_tokens`: slots of each picture.
    """

    input_ids: npt.NDArray[np.int32]
    pixel_values: npt.NDArray[np.float32] | None
    image_sizes: npt.NDArray[np.int64] | None
    image_tokens: tuple[int, ...]


class TextStream(Protocol):
    """Turns token ids into text, one by one; holds back bytes that do not end a character yet."""

    def push(self, token_id: int) -> str:
        """Text that this token completed, possibly empty."""
        ...

    def flush(self) -> str:
        """Text still held back; undecodable bytes become U+FFFD."""
        ...


class Generation(Protocol):
    """One running generation. After an error it must only be closed."""

    def step(self) -> int:
        """Next token id. The first call runs vision and prefill."""
        ...

    def close(self) -> None:
        """Free the KV cache. Calling it again does nothing."""
        ...


class Backend(Protocol):
    """An engine that holds one model."""

    @property
    def model(self) -> ModelDir:
        """The folder the model came from, with its limits."""
        ...

    @property
    def device(self) -> str:
        """Where it runs: "cpu" or "cuda"."""
        ...

    @property
    def num_crops(self) -> int:
        """Crops a picture is cut into at most when a request does not say."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """The model folder's tokenizer."""
        ...

    def preprocess(self, prompt: str, pictures: Sequence[Image.Image], num_crops: int) -> ModelInputs:
        """Turn a prompt and RGB pictures into tensors."""
        ...

    def start(self, inputs: ModelInputs, chooser: TokenChooser, max_new_tokens: int) -> Generation:
        """Prepare a generation; nothing is computed before the first `step`. The chooser serves no other answer."""
        ...

    def text_stream(self) -> TextStream:
        """A fresh detokeniser for one answer."""
        ...

    def close(self) -> None:
        """Free the model."""
        ...
