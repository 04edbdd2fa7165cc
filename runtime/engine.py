"""The engine: requests in, tokens out. One decode path, `TokenStream`; `generate` drains it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, TypeVar, overload

from . import hd
from .answers import AnswerFormat, truncated
from .backend import Backend, Generation, ModelInputs
from .errors import ContextLengthError, InferenceError, OptionError
from .local_models import resolve_model
from .memory import available_memory
from .model_dir import ModelDir
from .sampling import TokenChooser, TokenConstraint
from .stop_strings import StopStrings
from .types import FinishReason, GenerationRequest, GenerationResult, SamplingParams, Timings, Token, Usage

if TYPE_CHECKING:
    from typing import Any, Unpack

    from .answer_types import ExtractOptions
    from .constraint import Constraints
    from .images import ImageSource

T = TypeVar("T")

_MIB = 1 << 20
_LEAST_IMAGE_TOKENS = hd.plan(1, 1, num_crops=1).image_tokens


class Engine:
    """A loaded model. Use it from one thread at a time; close it, or use it as a context manager."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._constraints: Constraints | None = None

    @property
    def model(self) -> ModelDir:
        """The model folder and its limits."""
        return self._backend.model

    @property
    def device(self) -> str:
        """Where the model runs, "cpu" or "cuda"; it may have been built for the other one."""
        return self._backend.device

    def generate(
        self,
        prompt: str,
        images: Sequence[ImageSource] = (),
        *,
        max_new_tokens: int = 512,
        num_crops: int | None = None,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        answer_format: AnswerFormat | None = None,
    ) -> GenerationResult:
        """Answer a question about any number of pictures.

        `images`: paths, bytes, PIL images, uint8 arrays [H, W(, 3|4)], http(s) or `data:` URLs, binary files.
        `num_crops` 1 to 16: the most 336 px crops a picture is cut into (more detail, more tokens); None takes the
        model folder's default. Greedy unless `temperature` is set. `answer_format` keeps the answer to a JSON schema, a
        regular expression or choices (phi3v.answers). Raises Phi3VError leaves only.
        """
        sampling = SamplingParams(temperature, top_k, top_p, repetition_penalty, seed)
        request = GenerationRequest(prompt, images, max_new_tokens, num_crops, stop, sampling, answer_format)
        with self.stream_request(request) as stream:
            for _ in stream:
                pass
            return stream.result

    def stream(
        self,
        prompt: str,
        images: Sequence[ImageSource] = (),
        *,
        max_new_tokens: int = 512,
        num_crops: int | None = None,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        answer_format: AnswerFormat | None = None,
    ) -> TokenStream:
        """Like `generate`, token by token. Iterate it, then read `.result`; closing it early frees the KV cache."""
        sampling = SamplingParams(temperature, top_k, top_p, repetition_penalty, seed)
        return self.stream_request(
            GenerationRequest(prompt, images, max_new_tokens, num_crops, stop, sampling, answer_format)
        )

    @overload
    def extract(
        self, kind: type[T], prompt: str, images: Sequence[ImageSource] = (), **options: Unpack[ExtractOptions]
    ) -> T: ...

    @overload
    def extract(
        self,
        kind: Mapping[str, Any] | AnswerFormat,
        prompt: str,
        images: Sequence[ImageSource] = (),
        **options: Unpack[ExtractOptions],
    ) -> Any: ...

    def extract(
        self, kind: Any, prompt: str, images: Sequence[ImageSource] = (), **options: Unpack[ExtractOptions]
    ) -> Any:
        """Answer with a value: an instance of a dataclass or a pydantic model, a list of them, an int, ...

            @dataclass
            class Book:
                title: str
                year: int | None

            engine.extract(Book, "Title and year of this book?", ["cover.jpg"])

        A JSON schema (a mapping) gives what `json.loads` makes of the answer, Regex and Choices give the text. The
        format binds the answer, but the model does not see it: say in the prompt what is wanted. The options are those
        of `generate`. Raises TruncatedAnswerError when `max_new_tokens` ended the answer.
        """
        from .answer_types import answer_type

        answer = answer_type(kind)
        return answer.read(self.generate(prompt, images, answer_format=answer.format, **options).text)

    def stream_request(self, request: GenerationRequest) -> TokenStream:
        """Decode and preprocess the pictures, check that the request fits, and hand back its stream.

        What cannot fit is refused as soon as that is known: by the number of pictures, then by their sizes, then by
        the text too. Vision and prefill run when the first token is asked for.
        """
        from .images import load_image

        constraint = self._constraint(request.answer_format)
        began = time.perf_counter()
        num_crops, new = request.num_crops or self._backend.num_crops, request.max_new_tokens
        if request.images:
            _check_fits(self._backend, None, len(request.images) * _LEAST_IMAGE_TOKENS, new)
        pictures = [load_image(source) for source in request.images]
        decoded = time.perf_counter()
        if pictures:
            _check_fits(self._backend, None, sum(hd.plan(*p.size, num_crops).image_tokens for p in pictures), new)
        inputs = self._backend.preprocess(request.prompt, pictures, num_crops)
        image_tokens = sum(inputs.image_tokens)
        _check_fits(self._backend, len(inputs.input_ids) - image_tokens, image_tokens, new)
        preprocessed = time.perf_counter()
        stages = _Stages(image_decode_s=decoded - began, preprocess_s=preprocessed - decoded)
        return TokenStream(self._backend, inputs, request, stages, constraint)

    def _constraint(self, answer_format: AnswerFormat | None) -> TokenConstraint | None:
        """A fresh constraint for one answer; the vocabulary is prepared for the first one."""
        if answer_format is None:
            return None
        if self._constraints is None:
            from .constraint import Constraints

            model = self._backend.model
            self._constraints = Constraints(self._backend.tokenizer, model.vocab_size, model.eos_token_ids)
        return self._constraints.start(answer_format)

    def close(self) -> None:
        """Free the model."""
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(slots=True)
class _Stages:
    """Seconds spent so far in each stage; only model time is added, never the reader's."""

    image_decode_s: float
    preprocess_s: float
    prefill_s: float = 0.0
    decode_s: float = 0.0
    steps: int = 0

    def add_step(self, seconds: float) -> None:
        if self.steps == 0:
            self.prefill_s = seconds
        else:
            self.decode_s += seconds
        self.steps += 1

    def timings(self) -> Timings:
        return Timings(self.image_decode_s, self.preprocess_s, self.prefill_s, self.decode_s, max(0, self.steps - 1))


class TokenStream:
    """The tokens of one answer, as they come.

    with engine.stream("What is this?", ["photo.jpg"]) as stream:
        for token in stream:
            print(token.text, end="", flush=True)
    print(stream.result.usage)

    An answer in a format that `max_new_tokens` cuts off ends with TruncatedAnswerError; `result` holds what there is.
    One thread reads it. `cancel` and `close` may come from any other: they wait for the step that is running, and the
    reader's loop ends there.
    """

    def __init__(
        self,
        backend: Backend,
        inputs: ModelInputs,
        request: GenerationRequest,
        stages: _Stages,
        constraint: TokenConstraint | None = None,
    ) -> None:
        self._chooser = TokenChooser(request.sampling, inputs.input_ids, constraint)
        self._must_complete = constraint is not None
        self._generation: Generation | None = backend.start(inputs, self._chooser, request.max_new_tokens)
        self._eos = backend.model.eos_token_ids
        self._decoder = backend.text_stream()
        self._stop = StopStrings(request.stop)
        self._inputs = inputs
        self._max_new_tokens = request.max_new_tokens
        self._stages = stages
        self._ids: list[int] = []
        self._pieces: list[str] = []
        self._finish_reason: FinishReason | None = None
        self._lock = threading.RLock()
        self._cancelled = False

    @property
    def result(self) -> GenerationResult:
        """The finished answer. Raises InferenceError while tokens are still to come."""
        if self._finish_reason is None:
            raise InferenceError("the answer is not finished: iterate the stream to its end, or cancel() it, first")
        usage = Usage(len(self._inputs.input_ids), sum(self._inputs.image_tokens), len(self._ids))
        return GenerationResult(
            "".join(self._pieces), tuple(self._ids), self._finish_reason, usage, self._stages.timings()
        )

    def cancel(self) -> None:
        """End the answer here: `finish_reason` is "cancelled" and the text so far is kept."""
        self._cancelled = True  # a quick reader would otherwise hold the lock again and again before we get it
        with self._lock:
            if self._finish_reason is None:
                self._pieces.append(self._held_back())
                self._finish("cancelled")

    def close(self) -> None:
        """Free the KV cache; an unfinished answer counts as cancelled."""
        self.cancel()

    def __iter__(self) -> Iterator[Token]:
        while (token := self._locked_next()) is not None:
            yield token

    def _locked_next(self) -> Token | None:
        """The next token, None after the last."""
        with self._lock:
            if self._cancelled:
                self.cancel()
            return None if self._generation is None else self._next(self._generation)

    def _next(self, generation: Generation) -> Token:
        began = time.perf_counter()
        try:
            token_id = generation.step()
        except BaseException:
            self.cancel()
            raise
        self._stages.add_step(time.perf_counter() - began)
        if token_id in self._eos:
            return self._last(token_id, "stop")
        self._ids.append(token_id)
        text = self._stop.push(self._decoder.push(token_id))
        if self._stop.hit or self._chooser.finished:
            return self._last(token_id, "stop", text)
        if len(self._ids) == self._max_new_tokens:
            last = self._last(token_id, "length", text)
            if self._must_complete:
                raise truncated(self.result.text, self._max_new_tokens)
            return last
        self._pieces.append(text)
        return Token(token_id, text)

    def _last(self, token_id: int, reason: FinishReason, text: str = "") -> Token:
        text += self._held_back()
        self._pieces.append(text)
        self._finish(reason)
        return Token(token_id, text)

    def _held_back(self) -> str:
        """Text that waited for the rest of a character or of a stop string, and is the answer's if none came."""
        if self._stop.hit:
            return ""
        return self._stop.push(self._decoder.flush()) + self._stop.flush()

    def _finish(self, reason: FinishReason) -> None:
        self._finish_reason = reason
        if self._generation is not None:
            self._generation.close()
            self._generation = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load(
    model: str | os.PathLike[str] | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    *,
    processor: Literal["phi3v", "genai"] = "phi3v",
) -> Engine:
    """Load a model: a folder, or a pulled one by its name or `name:variant`.

    Without one: `PHI3V_MODEL`, else the best pulled model that fits this machine, else the built-in one. `device`
    "auto" takes the GPU when the model was built for it and it works. `processor` "genai" drives genai's own
    multimodal processor instead of ours, for comparison only. Raises Phi3VError leaves.
    """
    if processor not in ("phi3v", "genai"):
        raise OptionError(f"processor is {processor!r}; allowed: 'phi3v', 'genai'")
    from .device import choose_device

    folder = ModelDir.open(resolve_model(model, device))
    chosen = choose_device(device, folder.built_for)
    from .genai import GenaiBackend, GenaiProcessorBackend

    return Engine((GenaiBackend if processor == "phi3v" else GenaiProcessorBackend)(folder, chosen))


def _check_fits(backend: Backend, text: int | None, pictures: int, new: int) -> None:
    """Refuse what exceeds the context or this machine's memory, given tokens of text (None: not counted yet)."""
    model = backend.model
    prompt = (text or 0) + pictures
    total, kv = prompt + new, model.kv_bytes(prompt + new)
    least, known = ("at least ", "") if text is None else ("", f"{text} of text, ")
    asked = (
        f"the request needs {least}{total} tokens ({known}{pictures} of pictures, {new} new; "
        f"{kv / _MIB:.0f} MiB of KV cache)"
    )
    if total > model.context_length:
        free = model.context_length - prompt
        raise ContextLengthError(
            f"{asked} and the model's context is {model.context_length}: "
            + (f"lower max_new_tokens {'below' if least else 'to'} {free}" if free > 0 else "the prompt is too long")
            + "; fewer pictures or a lower num_crops free more"
        )
    memory = available_memory()
    if backend.device == "cpu" and memory is not None and kv > memory:
        raise ContextLengthError(
            f"{asked} and this machine has {memory / _MIB:.0f} MiB of memory left; "
            "lower max_new_tokens or num_crops, or pass fewer pictures"
        )
