"""The engine: requests in, answers out. `load` makes one."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar, overload

from .backend import Backend, Reuse
from .batch import answer_all
from .closing import Closing
from .errors import BuiltinModelWarning, OptionError, Phi3VError
from .images.background import DEFAULT_BACKGROUND
from .models.folder import BUILTIN, ModelDir
from .models.local import resolve_model, wanted_model
from .options import ExtractOptions, GenerationOptions, make_request
from .prepare import PreparedRequest, attempt, prepare
from .stream import Answerer, SessionStreams, TokenStream

if TYPE_CHECKING:
    from typing import Any, Unpack

    from .images.cropped import NumCrops
    from .images.load import ImageSource
    from .machine.device_table import DeviceName
    from .process.model_process import ModelProcess
    from .session import Session
    from .structured.python_types import AnswerType
    from .types import GenerationRequest, GenerationResult

T = TypeVar("T")


class Engine(Closing):
    """A loaded model. Use it from one thread at a time, unless it is in a process of its own; close it, or use it as a
    context manager.
    """

    def __init__(self, backend: Backend | Answerer) -> None:
        self.answerer = backend if isinstance(backend, Answerer) else _LocalAnswerer(backend)
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "loaded"
        return f"<phi3v.Engine {self.model.name} on {self.device}, {state}>"

    @property
    def model(self) -> ModelDir:
        """The model folder and its limits."""
        return self.answerer.source.model

    @property
    def device(self) -> str:
        """The device the model runs on, such as "cpu" or "openvino:gpu"; the folder may have been built for another."""
        return self.answerer.source.device

    def generate(
        self, prompt: str, images: Sequence[ImageSource] = (), **options: Unpack[GenerationOptions]
    ) -> GenerationResult:
        """Answer a question about any number of images.

        `images`: paths, bytes, PIL images, uint8 arrays [H, W(, 3|4)], http(s) or `data:` URLs, binary files.
        `options`: `max_new_tokens`, `num_crops`, `stop`, `temperature`, `top_k`, `top_p`, `repetition_penalty`, `seed`,
        `answer_format`, `background`, `system`, `logprobs`; `phi3v.GenerationOptions` describes each. Raises only
        subclasses of Phi3VError, and TypeError for an option that does not exist. Ctrl-C (SIGINT) arrives when vision
        and prefill are over, which takes a minute with long prompts, unless the model is in a process of its own: genai
        does not let Python run meanwhile.
        """
        return self.stream(prompt, images, **options).drain()

    def stream(
        self, prompt: str, images: Sequence[ImageSource] = (), **options: Unpack[GenerationOptions]
    ) -> TokenStream:
        """Like `generate`, token by token. Iterate it, then read `.result`; closing it early frees the KV cache."""
        return self.stream_request(make_request(prompt, images, **options))

    @overload
    def extract(
        self, kind: type[T], prompt: str, images: Sequence[ImageSource] = (), **options: Unpack[ExtractOptions]
    ) -> T: ...

    @overload
    def extract(
        self, kind: Any, prompt: str, images: Sequence[ImageSource] = (), **options: Unpack[ExtractOptions]
    ) -> Any: ...

    def extract(
        self, kind: Any, prompt: str, images: Sequence[ImageSource] = (), **options: Unpack[ExtractOptions]
    ) -> Any:
        """Answer with a value: an instance of a dataclass or a pydantic model, a list of them, an int, ...

        `kind`: str, int, float, bool, list[...], X | None, Literal, an Enum, a dataclass, a TypedDict; with
        pydantic installed also its models, date, datetime, dict[str, ...], tuple[...], other unions, and each of these
        inside another.

            @dataclass
            class Book:
                title: str
                year: int | None

            engine.extract(Book, "Title and year of this book?", ["cover.jpg"])

        A JSON schema (a mapping) gives what `json.loads` makes of the answer; Regex and Choices give the text. The
        answer always has the format, but the model does not see it: say in the prompt what is wanted. The options are
        those of `generate`, except `stop` and `answer_format`. Raises TruncatedAnswerError if `max_new_tokens` ended
        the answer too early.
        """
        answer = read_answer_type(kind, options)
        return answer.read(self.generate(prompt, images, answer_format=answer.format, **options).text)

    def stream_request(self, request: GenerationRequest) -> TokenStream:
        """Decode and preprocess the images, check that the request fits, and return its stream.

        A request that cannot fit is refused as early as possible: by the number of images, then by their sizes, then
        by the text too. Vision and prefill run when the first token is asked for.
        """
        return self.answerer.open(prepare(self.answerer.source, request, waits=self.answerer.waits))

    def generate_batch(
        self,
        requests: Iterable[GenerationRequest],
        *,
        batch_size: int | None = None,
        max_memory: int | None = None,
    ) -> list[GenerationResult | Phi3VError]:
        """Answer many requests, several at a time in one decode loop; each answer is the one that `generate` gives.

        (To the token in fp32. In int4, several rows round differently from one row in the seventh digit, which can tip
        a near tie.)

        The list is in the order of the requests. A request that cannot be answered has its error there, and the others
        their answers. `batch_size` (1 to 32, default 8) is the most answers at a time. Fewer run together if they would
        take more than `max_memory` bytes beside the loaded model (default: half of what is free). In `timings`, prefill
        and decode are those of the whole batch that a row was in.
        """
        prepared = (attempt(self.answerer.source, request) for request in requests)
        return [outcome for _, outcome in sorted(self.answer_prepared(prepared, batch_size, max_memory), key=_number)]

    def answer_prepared(
        self,
        prepared: Iterable[PreparedRequest | Phi3VError],
        batch_size: int | None = None,
        max_memory: int | None = None,
    ) -> Iterator[tuple[int, GenerationResult | Phi3VError]]:
        """Like `generate_batch`, for requests that were prepared elsewhere: yields (number in the order given, outcome)
        as soon as each is known. Takes no more of `prepared` than it needs to fill the next batches.
        """
        return self.answerer.answer_all(prepared, batch_size, max_memory)

    def session(
        self,
        images: Sequence[ImageSource] = (),
        *,
        num_crops: NumCrops | None = None,
        background: str = DEFAULT_BACKGROUND,
        system: str = "",
    ) -> Session:
        """Ask many questions about the same images, or have a conversation about them; close it when done.

        `num_crops`, `background` and `system` as in `GenerationOptions`. The images are decoded here, and go through
        the model with the first question only.
        """
        from .session import Session

        return Session(self.answerer, images, num_crops, background, system)

    def close(self) -> None:
        """Free the model."""
        self._closed = True
        self.answerer.close()


def read_answer_type(kind: Any, options: ExtractOptions) -> AnswerType[Any]:
    """What `extract` is to return, and the format that an answer must have for it. Raises OptionError."""
    from .structured.python_types import answer_type

    if refused := options.keys() - ExtractOptions.__annotations__.keys() & GenerationOptions.__annotations__.keys():
        raise OptionError(f"extract takes no {min(refused)}: its first argument is the format; leave it out")
    return answer_type(kind)


class _LocalAnswerer(Answerer):
    """A model in this process."""

    waits = False

    def __init__(self, backend: Backend) -> None:
        self.source = self._backend = backend

    def open(self, prepared: PreparedRequest) -> TokenStream:
        return TokenStream(self._backend, prepared)

    def open_session(self) -> SessionStreams:
        return _LocalSessionStreams(self._backend)

    def answer_all(
        self, prepared: Iterable[PreparedRequest | Phi3VError], batch_size: int | None, max_memory: int | None
    ) -> Iterator[tuple[int, GenerationResult | Phi3VError]]:
        return answer_all(self._backend, prepared, batch_size, max_memory)

    def close(self) -> None:
        self._backend.close()


class _LocalSessionStreams:
    """Streams of one session, which reuse each other's KV cache."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._reuse: Reuse = backend.reuse()

    @property
    def kept_tokens(self) -> int:
        return self._reuse.kept_tokens

    def open(self, prepared: PreparedRequest) -> TokenStream:
        return TokenStream(self._backend, prepared, self._reuse)

    def close(self) -> None:
        self._reuse.close()


def load(
    model: str | os.PathLike[str] | None = None,
    device: DeviceName | None = None,
    *,
    threads: int | None = None,
    prefill: Literal["auto", "int8", "int4"] | None = None,
    cuda_graph: bool = False,
    processor: Literal["phi3v", "genai"] = "phi3v",
    process: bool = False,
    batch_size: int | None = None,
    max_memory: int | None = None,
) -> Engine:
    """Load a model: a folder, a pulled one by its name or `name:variant`, or the built-in one, "nano".

    Without one: `PHI3V_MODEL`, else the best pulled model that fits this machine, else, with a BuiltinModelWarning,
    the built-in one. `device` is "auto", "cpu", "cuda" ("cuda:1" is the second GPU), "webgpu" or "openvino"
    ("openvino:cpu", "openvino:gpu", "openvino:npu"); without one `PHI3V_DEVICE`, else "auto": the first that works of
    those the model is for. `threads` is how many compute on the CPU; without it `PHI3V_THREADS`, else one a core.
    `prefill` "int4" does without the int8 weights of a folder that has them, which saves their memory; without it
    `PHI3V_PREFILL`, else "auto": int8 where the folder and the processor can.
    `cuda_graph` replays each token on an NVIDIA GPU as one recorded graph, which is faster; answers are then given one
    after the other, and sessions read their images again.
    `processor` "genai" drives genai's own multimodal processor instead of ours, for comparison only.
    `process` loads the model in a process of its own: this one stays free while it computes, several threads may ask
    at the same time, and images that were read are not read again; `batch_size` and `max_memory` are then the limits of
    all that runs there, as of `phi3v.AsyncEngine`, which is the same for asyncio.
    Raises only subclasses of Phi3VError.
    """
    if processor not in ("phi3v", "genai"):
        raise OptionError(f"processor is {processor!r}; allowed: 'phi3v', 'genai'")
    if processor == "genai" and (cuda_graph or process):
        named = "cuda_graph" if cuda_graph else "process"
        raise OptionError(f"{named}=True needs processor='phi3v'; leave one of the two out")
    if process:
        from .process.process_engine import ProcessAnswerer

        limits = {"batch_size": batch_size, "max_memory": max_memory}
        held = begin_process(model, device, threads=threads, prefill=prefill, cuda_graph=cuda_graph, **limits)
        return Engine(ProcessAnswerer(held.wait_until_loaded()))
    if batch_size is not None or max_memory is not None:
        raise OptionError("batch_size and max_memory need process=True; `generate_batch` takes them for one call")
    from .machine.device import choose_device, select_device, wanted_device
    from .machine.threads import wanted_threads

    computing = wanted_threads(threads)
    wanted = wanted_device(device)
    select_device(wanted)
    folder = _find_model(model, wanted)
    chosen = choose_device(wanted, folder)
    if processor == "genai":
        from .genai.processor import GenaiProcessorBackend

        return Engine(GenaiProcessorBackend(folder, chosen, computing, prefill))
    from .genai.backend import GenaiBackend

    return Engine(GenaiBackend(folder, chosen, threads=computing, prefill=prefill, cuda_graph=cuda_graph))


def begin_process(
    model: str | os.PathLike[str] | None,
    device: DeviceName | None,
    *,
    threads: int | None = None,
    prefill: Literal["auto", "int8", "int4"] | None = None,
    cuda_graph: bool = False,
    batch_size: int | None = None,
    max_memory: int | None = None,
) -> ModelProcess:
    """Begin to load a model in a process of its own; the arguments of `load`. Raises only subclasses of Phi3VError."""
    from .machine.device import wanted_device
    from .machine.threads import wanted_threads
    from .process.model_process import ModelProcess

    wanted = wanted_device(device)
    options = {"threads": wanted_threads(threads), "prefill": prefill, "cuda_graph": cuda_graph}
    return ModelProcess(_find_model(model, wanted), wanted, batch_size=batch_size, max_memory=max_memory, **options)


def _find_model(model: str | os.PathLike[str] | None, device: str) -> ModelDir:
    folder = ModelDir.open(resolve_model(model, device))
    if folder.path == BUILTIN and wanted_model(model) is None:
        _warn_of_builtin(folder)
    return folder


def _warn_of_builtin(folder: ModelDir) -> None:
    warnings.warn(
        f"no model was named, and no pulled one runs here, so the built-in one answers: {folder.name} {folder.about}. "
        f'Fetch Phi-3-vision with `phi3v pull`, or name this one: phi3v.load("{folder.name}")',
        BuiltinModelWarning,
        stacklevel=4,
    )


def _number(found: tuple[int, GenerationResult | Phi3VError]) -> int:
    return found[0]
