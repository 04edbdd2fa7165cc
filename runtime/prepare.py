"""A request made ready for the model: images decoded, prompt tokenised, and checked that it fits.

Needs no engine underneath, so other processes can prepare requests ahead of time (process/engine_process.py).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from . import hd
from .backend import ModelInputs, Preprocessor
from .conversation import ImageStack, Spoken, conversation_inputs
from .errors import ContextLengthError, OptionError, Phi3VError
from .images.cropped import NumCrops, crops_of
from .images.load import read_image
from .machine.device_table import Device, row_of
from .machine.memory import available_memory
from .models.folder import ModelDir
from .prompt import PromptLayout
from .structured.constraint import GrammarConstraint, constraint_for
from .tokenizer import Tokenizer
from .types import GenerationRequest, PastTurn

_MIB = 1 << 20
LEAST_IMAGE_TOKENS = hd.plan(1, 1, num_crops=1).image_tokens
"""Tokens of the smallest image."""


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """A request in tensors, and the seconds that took."""

    request: GenerationRequest
    inputs: ModelInputs
    image_decode_s: float
    preprocess_s: float
    notes: tuple[str, ...] = ()
    """What a person should know of the images."""

    @property
    def most_tokens(self) -> int:
        """Prompt and longest answer together."""
        return len(self.inputs.input_ids) + self.request.max_new_tokens


class HdPreprocessor:
    """A model folder's preprocessing, equal to the reference processor: HD transform and tokenisation.

    For requests that will run on `device`. `tokenizer` is the folder's. Loads no engine.
    """

    def __init__(self, model: ModelDir, device: Device) -> None:
        self._folder = model
        self._device = device
        self.tokenizer = Tokenizer(model.path / "tokenizer.json")

    @property
    def model(self) -> ModelDir:
        """The folder."""
        return self._folder

    @property
    def device(self) -> Device:
        """The device the model runs on."""
        return self._device

    @property
    def num_crops(self) -> int:
        """The folder's own number of crops."""
        return self._folder.num_crops

    def preprocess(
        self, prompt: str, images: Sequence[Image.Image], num_crops: NumCrops, system: str = ""
    ) -> ModelInputs:
        """Turn a prompt and RGB images into tensors."""
        layout = PromptLayout.of(prompt, len(images), system)
        if not images:
            return ModelInputs(int32(layout.input_ids(self.tokenizer, ())), None, None, ())
        dtype = self._folder.crop_dtype
        pixels, sizes, tokens = hd.stack([hd.transform(images[i], num_crops, dtype) for i in layout.order])
        return ModelInputs(int32(layout.input_ids(self.tokenizer, tokens)), pixels, sizes, tuple(tokens))


def int32(ids: Sequence[int] | npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
    """Token ids with the dtype that every backend takes."""
    return np.asarray(ids, dtype=np.int32)


def prepare(source: Preprocessor, request: GenerationRequest, *, waits: bool = False) -> PreparedRequest:
    """Decode and preprocess the images and check that the request fits.

    A request that cannot be answered is refused as early as possible: by the answer's format, by the number of images,
    then by their sizes, then by the text too. A request that `waits` is prepared while other requests still hold
    memory, so the memory is checked only when it runs (`check_memory`). Raises only subclasses of Phi3VError.
    """
    start_constraint(source, request)  # refuses a format that cannot be kept
    check = check_context if waits else check_fits
    began = time.perf_counter()
    num_crops, new = request.num_crops or source.num_crops, request.max_new_tokens
    given = [image for turn in _turns(request) for image in turn.images]
    if given:
        check(source, None, len(given) * LEAST_IMAGE_TOKENS, new)
    crops = [crops_of(image, num_crops) for image in given]
    read = [read_image(image, request.background) for image in given]
    images, notes = [one.image for one in read], tuple(note for one in read for note in one.notes)
    decoded = time.perf_counter()
    if images:
        plans = (hd.plan(*image.size, most) for image, most in zip(images, crops, strict=True))
        check(source, None, sum(plan.image_tokens for plan in plans), new)
    if request.earlier or set(crops) - {num_crops}:
        cut = [hd.transform(image, n, source.model.crop_dtype) for image, n in zip(images, crops, strict=True)]
        inputs = conversation_inputs(source.tokenizer, _spoken(source, request, cut), ImageStack())
    else:
        inputs = source.preprocess(request.prompt, images, num_crops, request.system)
    image_tokens = sum(inputs.image_tokens)
    check(source, len(inputs.input_ids) - image_tokens, image_tokens, new)
    return PreparedRequest(request, inputs, decoded - began, time.perf_counter() - decoded, notes)


def _spoken(source: Preprocessor, request: GenerationRequest, images: Sequence[hd.HdImage]) -> list[Spoken]:
    """All turns of a request, with the images of all."""
    turns, at = list[Spoken](), 0
    for turn in _turns(request):
        shown = tuple(images[at : at + len(turn.images)])
        at += len(shown)
        layout = PromptLayout.of(turn.prompt, len(shown), "" if turns else request.system)
        answer = source.tokenizer.encode_text(turn.answer) if isinstance(turn, PastTurn) else ()
        turns.append(Spoken(layout, shown, tuple(answer)))
    return turns


def _turns(request: GenerationRequest) -> Sequence[PastTurn | GenerationRequest]:
    return (*request.earlier, request)


def start_constraint(source: Preprocessor, request: GenerationRequest) -> GrammarConstraint | None:
    """The constraint that keeps one answer to the request's format; None without a format. Raises OptionError."""
    if request.answer_format is None:
        return None
    model = source.model
    return constraint_for(source.tokenizer, model.vocab_size, model.eos_token_ids, request.answer_format)


def attempt(source: Preprocessor, request: GenerationRequest) -> PreparedRequest | Phi3VError:
    """`prepare` a request that waits; return the error if it cannot be prepared."""
    if not isinstance(request, GenerationRequest):
        return OptionError(f"a request is a {type(request).__name__}; allowed: GenerationRequest")
    try:
        return prepare(source, request, waits=True)
    except Phi3VError as exc:
        return exc


def check_fits(source: Preprocessor, text: int | None, images: int, new: int, kept: int = 0) -> None:
    """Refuse what exceeds the context or this machine's memory.

    `text`, `images` and `new` are tokens (`text` None: not counted yet); `kept` tokens have their memory already.
    Raises ContextLengthError.
    """
    check_context(source, text, images, new)
    check_memory(source, text, images, new, kept)


def check_context(source: Preprocessor, text: int | None, images: int, new: int) -> None:
    """Refuse what exceeds the context. Raises ContextLengthError."""
    model, prompt = source.model, (text or 0) + images
    if prompt + new > model.context_length:
        free = model.context_length - prompt
        lower = f"lower max_new_tokens {'below' if text is None else 'to'} {free}"
        raise ContextLengthError(
            f"{_describe_need(model, text, images, new)} and the model's context is {model.context_length}: "
            f"{lower if free > 0 else 'the prompt is too long'}; fewer images or a lower num_crops free more"
        )


def check_memory(source: Preprocessor, text: int | None, images: int, new: int, kept: int = 0) -> None:
    """Refuse what exceeds the memory that is free now. Raises ContextLengthError."""
    model, memory = source.model, available_memory()
    if memory is None or not row_of(source.device).in_ram:
        return
    memory += model.kv_bytes(kept)
    if model.kv_bytes((text or 0) + images + new) > memory:
        raise ContextLengthError(
            f"{_describe_need(model, text, images, new)} and this machine has {memory / _MIB:.0f} MiB of memory left; "
            "lower max_new_tokens or num_crops, or pass fewer images"
        )


def _describe_need(model: ModelDir, text: int | None, images: int, new: int) -> str:
    total = (text or 0) + images + new
    least, known = ("at least ", "") if text is None else ("", f"{text} of text, ")
    return (
        f"the request needs {least}{total} tokens ({known}{images} of images, {new} new; "
        f"{model.kv_bytes(total) / _MIB:.0f} MiB of KV cache)"
    )
