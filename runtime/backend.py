"""The seam to the engine underneath: what a backend must do, and nothing about how.

People use `GenaiBackend` (genai/backend.py); the PyTorch reference in bench/ is another backend, and tests use a fake.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from PIL import Image

from .models.folder import ModelDir
from .sampling import TokenChooser
from .tokenizer import Tokenizer
from .types import NumCrops


@dataclass(frozen=True, slots=True)
class ModelInputs:
    """A request in tensors.

    `input_ids`: int32 [L], or [B, L] for a padded batch; a negative id is a slot for one picture token, picture N's
    slots being -N.
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


class Reuse(Protocol):
    """Generations one after the other, each taking over from the last one's KV cache what both begin with.

    One at a time: the cache is there again once a generation is closed. What a generation returns never depends on it.
    """

    @property
    def kept_tokens(self) -> int:
        """Tokens there is memory for already."""
        ...

    def start(self, inputs: ModelInputs, chooser: TokenChooser, max_new_tokens: int) -> Generation:
        """Like `Backend.start`. Pictures are known again by being the same `pixel_values` object."""
        ...

    def close(self) -> None:
        """Free the KV cache."""
        ...


class Preprocessor(Protocol):
    """What makes requests ready for a model; needs no engine."""

    @property
    def model(self) -> ModelDir:
        """The folder the model came from, with its limits."""
        ...

    @property
    def device(self) -> str:
        """Where the model runs: "cpu" or "cuda"."""
        ...

    @property
    def num_crops(self) -> int:
        """Crops a picture is cut into at most when a request does not say."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's own."""
        ...

    def preprocess(self, prompt: str, pictures: Sequence[Image.Image], num_crops: NumCrops) -> ModelInputs:
        """Turn a prompt and RGB pictures into tensors."""
        ...


class Backend(Preprocessor, Protocol):
    """An engine that holds one model."""

    def start(self, inputs: ModelInputs, chooser: TokenChooser, max_new_tokens: int) -> Generation:
        """Prepare a generation; nothing is computed before the first `step`. The chooser serves no other answer."""
        ...

    def reuse(self) -> Reuse:
        """What the answers of one session are generated with."""
        ...

    def text_stream(self) -> TextStream:
        """A fresh detokeniser for one answer."""
        ...

    def close(self) -> None:
        """Free the model."""
        ...


@dataclass(frozen=True, slots=True)
class BatchRow:
    """One answer among those that are generated together."""

    inputs: ModelInputs
    chooser: TokenChooser
    max_new_tokens: int


class BatchGeneration(Protocol):
    """Several running generations, numbered from 0. After an error it must only be closed."""

    def step(self) -> dict[int, int]:
        """The next token id of some of the rows that have not left, at least of one."""
        ...

    def leave(self, row: int) -> None:
        """This row is finished; it takes no more steps."""
        ...

    def close(self) -> None:
        """Free the KV caches. Calling it again does nothing."""
        ...


@runtime_checkable
class BatchBackend(Backend, Protocol):
    """A backend that generates several answers in one loop. Others answer one after the other."""

    @property
    def max_batch_size(self) -> int:
        """Most rows of a batch."""
        ...

    def batch_bytes(self, rows: Sequence[ModelInputs], max_new_tokens: int) -> int:
        """Most bytes of memory a batch of these will take, beside the loaded model and `rows` themselves."""
        ...

    def start_batch(self, rows: Sequence[BatchRow]) -> BatchGeneration:
        """Prepare generations; nothing is computed before the first `step`."""
        ...


class StartsFresh:
    """The `Reuse` of a backend that can take nothing over."""

    kept_tokens = 0

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def start(self, inputs: ModelInputs, chooser: TokenChooser, max_new_tokens: int) -> Generation:
        """What the backend starts."""
        return self._backend.start(inputs, chooser, max_new_tokens)

    def close(self) -> None:
        """Nothing is kept."""
