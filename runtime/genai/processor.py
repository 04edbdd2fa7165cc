"""genai's own multimodal processor in place of ours, for comparison only."""

from __future__ import annotations

import io
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..backend import ModelInputs, Reuse
from ..errors import OptionError, PromptError
from ..images.cropped import MAX_CROPS, NumCrops
from ..machine.device_table import Device
from ..models.folder import ModelDir
from ..prepare import int32
from ..prompt import PromptLayout
from .backend import GenaiBackend
from .model import mapped_errors
from .prefill import Prefill


class GenaiProcessorBackend(GenaiBackend):
    """The same model behind genai's own multimodal processor.

    Differs from the reference: no BOS, always 16 crops, the global crop antialiased. Images reach it as PNGs that
    Pillow encoded.
    """

    def __init__(
        self, folder: ModelDir, device: Device, threads: int | None = None, prefill: Prefill | None = None
    ) -> None:
        # Not rewindable: genai finds its processor by the model's type.
        super().__init__(folder, device, threads=threads, prefill=prefill, rewindable=False)
        with mapped_errors("loading"):
            self._processor = self.loaded.handle.create_multimodal_processor()

    @property
    def num_crops(self) -> int:
        """Always 16, whatever the folder says."""
        return MAX_CROPS

    def preprocess(
        self, prompt: str, images: Sequence[Image.Image], num_crops: NumCrops, system: str = ""
    ) -> ModelInputs:
        """Drive genai's processor. Raises OptionError or PromptError for what it cannot do."""
        if num_crops != MAX_CROPS:
            raise OptionError(f'num_crops is {num_crops}; with processor="genai" it is always {MAX_CROPS}')
        layout = PromptLayout.of(prompt, len(images), system)
        if self.tokenizer.has_control_text(prompt) or self.tokenizer.has_control_text(system):
            raise PromptError('processor="genai" would read a control token spelled in the prompt as control; rephrase')
        model, og = self.loaded.handle, self.loaded.og
        with mapped_errors("preprocessing"):
            if not images:
                return ModelInputs(int32(og.Tokenizer(model).encode(layout.text())), None, None, ())
            made = _run_processor(og, self._processor, layout.text(), [images[i] for i in layout.order])
        tokens = tuple(int(n) for n in np.ravel(made["num_image_tokens"]))
        return ModelInputs(int32(made["input_ids"][0]), made["pixel_values"], made["image_sizes"], tokens)

    def reuse(self) -> Reuse:
        """Refused: a session prepares its images and prompts with our processor."""
        raise OptionError('processor="genai" does not support sessions; load the model without it')

    def close(self) -> None:
        """Drop the model, and the processor, which holds it too."""
        super().close()
        self._processor = None


def _run_processor(
    og: ModuleType, processor: Any, text: str, images: Sequence[Image.Image]
) -> dict[str, npt.NDArray[Any]]:
    opened = og.Images.open_bytes(*(_encode_png(image) for image in images))
    made = processor(text, images=opened)
    arrays = {name: np.array(made[name].as_numpy()) for name in ("input_ids", "pixel_values", "num_image_tokens")}
    # genai returns int64 as C's long long, which it refuses to take back.
    return arrays | {"image_sizes": np.array(made["image_sizes"].as_numpy().tolist(), dtype=np.int64)}


def _encode_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()
