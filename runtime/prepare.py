"""A request made ready for the model: pictures read, prompt tokenised, and checked that it fits.

Needs no engine underneath, so that other processes can do it ahead of time (process/engine_process.py).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from . import hd
from .backend import ModelInputs, Preprocessor
from .errors import ContextLengthError, Phi3VError
from .images.load import load_image
from .machine.memory import available_memory
from .models.folder import ModelDir
from .structured.constraint import constraint_for
from .types import GenerationRequest

_MIB = 1 << 20
LEAST_IMAGE_TOKENS = hd.plan(1, 1, num_crops=1).image_tokens
"""What the smallest picture takes."""


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """A request in tensors, and the seconds that took."""

    request: GenerationRequest
    inputs: ModelInputs
    image_decode_s: float
    preprocess_s: float

    @property
    def most_tokens(self) -> int:
        """Prompt and longest answer together."""
        return len(self.inputs.input_ids) + self.request.max_new_tokens


def prepare(source: Preprocessor, request: GenerationRequest, *, waits: bool = False) -> PreparedRequest:
    """Decode and preprocess the pictures and check that the request fits.

    What cannot be kept or cannot fit is refused as soon as that is known: by the answer's format, by the number of
    pictures, then by their sizes, then by the text too. A request that `waits` is prepared while others run, which hold
    memory that it may have later: whoever runs it checks that (`check_memory`). Raises Phi3VError leaves.
    """
    if request.answer_format is not None:
        constraint_for(source.tokenizer, source.model, request.answer_format)
    check = check_context if waits else check_fits
    began = time.perf_counter()
    num_crops, new = request.num_crops or source.num_crops, request.max_new_tokens
    if request.images:
        check(source, None, len(request.images) * LEAST_IMAGE_TOKENS, new)
    pictures = [load_image(image) for image in request.images]
    decoded = time.perf_counter()
    if pictures:
        check(source, None, sum(hd.plan(*p.size, num_crops).image_tokens for p in pictures), new)
    inputs = source.preprocess(request.prompt, pictures, num_crops)
    image_tokens = sum(inputs.image_tokens)
    check(source, len(inputs.input_ids) - image_tokens, image_tokens, new)
    return PreparedRequest(request, inputs, decoded - began, time.perf_counter() - decoded)


def attempt(source: Preprocessor, request: GenerationRequest) -> PreparedRequest | Phi3VError:
    """`prepare` for a request that waits, with the error in place of what could not be prepared."""
    try:
        return prepare(source, request, waits=True)
    except Phi3VError as exc:
        return exc


def check_fits(source: Preprocessor, text: int | None, pictures: int, new: int, kept: int = 0) -> None:
    """Refuse what exceeds the context or this machine's memory, given tokens of text (None: not counted yet); `kept`
    tokens have their memory already. Raises ContextLengthError.
    """
    check_context(source, text, pictures, new)
    check_memory(source, text, pictures, new, kept)


def check_context(source: Preprocessor, text: int | None, pictures: int, new: int) -> None:
    """Refuse what exceeds the context. Raises ContextLengthError."""
    model, prompt = source.model, (text or 0) + pictures
    if prompt + new > model.context_length:
        free = model.context_length - prompt
        raise ContextLengthError(
            f"{_asked(model, text, pictures, new)} and the model's context is {model.context_length}: "
            + (
                f"lower max_new_tokens {'below' if text is None else 'to'} {free}"
                if free > 0
                else "the prompt is too long"
            )
            + "; fewer pictures or a lower num_crops free more"
        )


def check_memory(source: Preprocessor, text: int | None, pictures: int, new: int, kept: int = 0) -> None:
    """Refuse what exceeds the memory that is free now. Raises ContextLengthError."""
    model, memory = source.model, available_memory()
    if source.device != "cpu" or memory is None:
        return
    memory += model.kv_bytes(kept)
    if model.kv_bytes((text or 0) + pictures + new) > memory:
        raise ContextLengthError(
            f"{_asked(model, text, pictures, new)} and this machine has {memory / _MIB:.0f} MiB of memory left; "
            "lower max_new_tokens or num_crops, or pass fewer pictures"
        )


def _asked(model: ModelDir, text: int | None, pictures: int, new: int) -> str:
    total = (text or 0) + pictures + new
    least, known = ("at least ", "") if text is None else ("", f"{text} of text, ")
    return (
        f"the request needs {least}{total} tokens ({known}{pictures} of pictures, {new} new; "
        f"{model.kv_bytes(total) / _MIB:.0f} MiB of KV cache)"
    )
