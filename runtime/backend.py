"""The seam to the engine underneath: what a backend must do, and nothing about how.

People use `GenaiBackend` (genai/backend.py); the PyTorch reference in bench/ is another backend, and tests use a fake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from PIL import Image

from .images.cropped import NumCrops
from .models.folder import ModelDir
from .sampling import TokenChooser
from .tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class ModelInputs:
    """A request in tensors.

    `input_ids`: int32 [L], or [B, L] for a padded batch; a negative id is a slot for one image token; the slots of
    image N are -N.
    `pixel_values`: float32 or float16 [N, K, 3, 336, 336], the global crop first, zero crops as padding; None without
    images.
    `image_sizes`: int64 [N, 2], padded height and width in pixels; None without images.
    `image_tokens`: number of slots of each image.
    `images_key`: equal for equal images, so that a KV cache recognises images that are not the same arrays; None: by
    the arrays.
    """

    input_ids: npt.NDArray[np.int32]
    pixel_values: npt.NDArray[np.float32] | npt.NDArray[np.float16] | None
    image_sizes: npt.NDArray[np.int64] | None
    image_tokens: tuple[int, ...]
    images_key: str | None = None

    def shows_same(self, other: ModelInputs) -> bool:
        """Whether both are about the same images."""
        if self.images_key is not None and other.images_key is not None:
            return self.images_key == other.images_key
        return self.pixel_values is other.pixel_values


class Generation(Protocol):
    """One running generation. After an error it must only be closed."""

    def step(self) -> int:
        """Next token id. The first call runs vision and prefill."""
        ...

    def close(self) -> None:
        """Free the KV cache. Calling it again does nothing."""
        ...


class Reuse(Protocol):
    """Generations one after the other, each reusing the KV cache of the prefix it shares with the last one.

    One at a time: the cache can be reused once a generation is closed. What a generation returns never depends on it.
    """

    @property
    def kept_tokens(self) -> int:
        """Number of tokens whose KV memory is already allocated."""
        ...

    @property
    def reused_tokens(self) -> int:
        """Tokens of the last prompt that were read for an earlier one; known after the first step."""
        ...

    def shared_tokens(self, inputs: ModelInputs, max_new_tokens: int) -> int:
        """How many tokens of a prompt would not be read again if it were started now."""
        ...

    def start(self, inputs: ModelInputs, chooser: TokenChooser, max_new_tokens: int) -> Generation:
        """Like `Backend.start`. `ModelInputs.shows_same` says whether images are the same."""
        ...

    def close(self) -> None:
        """Free the KV cache."""
        ...


class Preprocessor(Protocol):
    """Makes requests ready for a model; needs no engine."""

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
        """The most crops an image is cut into when a request does not say."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's own tokenizer."""
        ...

    def preprocess(
        self, prompt: str, images: Sequence[Image.Image], num_crops: NumCrops, system: str = ""
    ) -> ModelInputs:
        """Turn a prompt, behind the instructions `system`, and RGB images into tensors."""
        ...


class Backend(Preprocessor, Protocol):
    """An engine that holds one model."""

    def start(self, inputs: ModelInputs, chooser: TokenChooser, max_new_tokens: int) -> Generation:
        """Prepare a generation; nothing is computed before the first `step`. The chooser is for this answer only."""
        ...

    def reuse(self) -> Reuse:
        """Starts the generations of one session, which reuse each other's KV cache."""
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
        """Upper bound in bytes for a batch of these rows, beside the loaded model and `rows` themselves."""
        ...

    def start_batch(self, rows: Sequence[BatchRow]) -> BatchGeneration:
        """Prepare generations; nothing is computed before the first `step`."""
        ...


class StartsFresh:
    """The `Reuse` of a backend that cannot reuse a KV cache."""

    kept_tokens = reused_tokens = 0

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def shared_tokens(self, inputs: ModelInputs, max_new_tokens: int) -> int:
        """None."""
        return 0

    def start(self, inputs: ModelInputs, chooser: TokenChooser, max_new_tokens: int) -> Generation:
        """A fresh generation of the backend."""
        return self._backend.start(inputs, chooser, max_new_tokens)

    def close(self) -> None:
        """Nothing is kept."""


class InTurn:
    """Rows of a batch that run alone: the next one starts when the one before has left.

    `rows`: each row's number, and a function that starts its generation.
    """

    def __init__(self, rows: Iterable[tuple[int, Callable[[], Generation]]]) -> None:
        self._waiting = dict(rows)
        self._running: tuple[int, Generation] | None = None

    def step(self) -> dict[int, int]:
        """The next token id of the row whose turn it is."""
        if self._running is None:
            row = next(iter(self._waiting))
            self._running = row, self._waiting.pop(row)()
        row, generation = self._running
        return {row: generation.step()}

    def leave(self, row: int) -> None:
        """This row is finished."""
        self._waiting.pop(row, None)
        if self._running is not None and self._running[0] == row:
            self._running[1].close()
            self._running = None

    def close(self) -> None:
        """Free the KV cache; nothing starts any more."""
        self._waiting.clear()
        if self._running is not None:
            self.leave(self._running[0])
