"""The engine: requests in, tokens out. One decode path, `TokenStream`; `generate` drains it."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar, overload

from .answer import Answer
from .answer_format import AnswerFormat
from .backend import Backend, Generation, ModelInputs
from .batch import answer_all
from .closing import Closing
from .errors import BuiltinModelWarning, InferenceError, OptionError, Phi3VError
from .models.folder import BUILTIN, ModelDir
from .models.local import resolve_model, wanted_model
from .prepare import PreparedRequest, attempt, prepare
from .sampling import TokenChooser
from .types import GenerationRequest, GenerationResult, NumCrops, SamplingParams, Token

if TYPE_CHECKING:
    from typing import Any, Unpack

    from .images.load import ImageSource
    from .session import Session
    from .structured.python_types import ExtractOptions

T = TypeVar("T")
Starter = Callable[[ModelInputs, TokenChooser, int], Generation]
"""`Backend.start`, or another that does the same."""


class Engine(Closing):
    """A loaded model. Use it from one thread at a time; close it, or use it as a context manager."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

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
        num_crops: NumCrops | None = None,
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
        `num_crops` 1 to 16: the most 336 px crops a picture is cut into (more detail, more tokens); "auto": the fewest
        that keep each picture's own resolution; None takes the model folder's default. Greedy unless `temperature` is
        set. `answer_format` keeps the answer to a JSON schema, a regular expression or choices (`phi3v.answer_format`).
        Raises only subclasses of Phi3VError.
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
        num_crops: NumCrops | None = None,
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
        from .structured.python_types import answer_type

        answer = answer_type(kind)
        return answer.read(self.generate(prompt, images, answer_format=answer.format, **options).text)

    def stream_request(self, request: GenerationRequest) -> TokenStream:
        """Decode and preprocess the pictures, check that the request fits, and hand back its stream.

        What cannot fit is refused as soon as that is known: by the number of pictures, then by their sizes, then by
        the text too. Vision and prefill run when the first token is asked for.
        """
        return TokenStream(self._backend, prepare(self._backend, request))

    def generate_batch(
        self,
        requests: Iterable[GenerationRequest],
        *,
        batch_size: int | None = None,
        max_memory: int | None = None,
    ) -> list[GenerationResult | Phi3VError]:
        """Answer many requests, several at a time in one decode loop; each answer is the one `generate` gives.
        (To the token in fp32. In int4 several rows are rounded otherwise than one, in the seventh digit, which can tip
        a near tie.)

        The list is in the order of the requests. A request that cannot be answered has its error there, and the others
        their answers. `batch_size` (1 to 32, default 8) is the most answers at a time; fewer when `max_memory`, the
        bytes answering may take beside the loaded model (default: half of what is free), does not hold them.
        In `timings`, prefill and decode are those of the whole batch a row was in.
        """
        prepared = (attempt(self._backend, request) for request in requests)
        return [outcome for _, outcome in sorted(self.answer_prepared(prepared, batch_size, max_memory), key=_index)]

    def answer_prepared(
        self,
        prepared: Iterable[PreparedRequest | Phi3VError],
        batch_size: int | None = None,
        max_memory: int | None = None,
    ) -> Iterator[tuple[int, GenerationResult | Phi3VError]]:
        """Like `generate_batch`, for requests that were prepared elsewhere: (number in the order given, outcome) as
        soon as each is there. Takes no more of `prepared` than it needs to fill the next batches.
        """
        return answer_all(self._backend, prepared, batch_size, max_memory)

    def session(self, images: Sequence[ImageSource] = (), *, num_crops: NumCrops | None = None) -> Session:
        """Ask many questions of the same pictures, or have a conversation about them; close it when done.

        The pictures are read here, and go through the model with the first question only.
        """
        from .session import Session

        return Session(self._backend, images, num_crops)

    def close(self) -> None:
        """Free the model."""
        self._backend.close()


class TokenStream(Closing):
    """The tokens of one answer, as they come.

    with engine.stream("What is this?", ["photo.jpg"]) as stream:
        for token in stream:
            print(token.text, end="", flush=True)
    print(stream.result.usage)

    An answer in a format that `max_new_tokens` cuts off ends with TruncatedAnswerError; `result` holds what there is.
    One thread reads it. `cancel` and `close` may come from any other: they wait for the step that is running, and the
    reader's loop ends there.
    """

    def __init__(self, backend: Backend, prepared: PreparedRequest, start: Starter | None = None) -> None:
        self._answer = Answer(backend, prepared)
        self._generation: Generation | None = (start or backend.start)(
            prepared.inputs, self._answer.chooser, prepared.request.max_new_tokens
        )
        self._lock = threading.RLock()
        self._cancelled = False

    @property
    def result(self) -> GenerationResult:
        """The finished answer. Raises InferenceError while tokens are still to come."""
        if self._answer.finish_reason is None:
            raise InferenceError("the answer is not finished: iterate the stream to its end, or cancel() it, first")
        return self._answer.result()

    def cancel(self) -> None:
        """End the answer here: `finish_reason` is "cancelled" and the text so far is kept."""
        self._cancelled = True  # a quick reader would otherwise hold the lock again and again before we get it
        with self._lock:
            self._answer.cancel()
            self._free()

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
        try:
            return self._answer.push(token_id, time.perf_counter() - began)
        finally:
            if self._answer.finish_reason:
                self._free()

    def _free(self) -> None:
        if self._generation is not None:
            self._generation.close()
            self._generation = None


def load(
    model: str | os.PathLike[str] | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    *,
    processor: Literal["phi3v", "genai"] = "phi3v",
) -> Engine:
    """Load a model: a folder, a pulled one by its name or `name:variant`, or the built-in one, "nano".

    Without one: `PHI3V_MODEL`, else the best pulled model that fits this machine, else, with a BuiltinModelWarning,
    the built-in one. `device` "auto" takes the GPU when the model was built for it and it works. `processor` "genai"
    drives genai's own multimodal processor instead of ours, for comparison only. Raises Phi3VError leaves.
    """
    if processor not in ("phi3v", "genai"):
        raise OptionError(f"processor is {processor!r}; allowed: 'phi3v', 'genai'")
    from .machine.device import choose_device

    folder = ModelDir.open(resolve_model(model, device))
    if folder.path == BUILTIN and wanted_model(model) is None:
        _warn_of_builtin(folder)
    chosen = choose_device(device, folder.built_for)
    from .genai.backend import GenaiBackend, GenaiProcessorBackend

    return Engine((GenaiBackend if processor == "phi3v" else GenaiProcessorBackend)(folder, chosen))


def _warn_of_builtin(folder: ModelDir) -> None:
    warnings.warn(
        f"no model was named, and no pulled one runs here, so the built-in one answers: {folder.name} {folder.about}. "
        f'Fetch Phi-3-vision with `phi3v pull`, or name this one: phi3v.load("{folder.name}")',
        BuiltinModelWarning,
        stacklevel=3,
    )


def _index(found: tuple[int, GenerationResult | Phi3VError]) -> int:
    return found[0]
