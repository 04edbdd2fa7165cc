"""Many questions about the same pictures, and conversations: what was read once is not read again.

Knows nothing of KV caches: what the backend's `reuse()` starts takes care of them. Every answer is the one that a fresh
run over the same ids gives.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from . import hd
from .answer_format import AnswerFormat
from .backend import Backend, Generation
from .closing import Closing
from .conversation import PictureStack, Spoken, conversation_inputs
from .engine import TokenStream
from .errors import InferenceError
from .prepare import LEAST_IMAGE_TOKENS, PreparedRequest, check_fits
from .prompt import PromptLayout
from .types import GenerationRequest, GenerationResult, NumCrops, SamplingParams, Token, Turn

if TYPE_CHECKING:
    from .images.load import ImageSource


class AnswerOptions(TypedDict, total=False):
    """What `Engine.generate` takes beside prompt, pictures and crops, with the same defaults."""

    max_new_tokens: int
    stop: Sequence[str]
    temperature: float
    top_k: int
    top_p: float
    repetition_penalty: float
    seed: int | None
    answer_format: AnswerFormat | None


class Session(Closing):
    """Pictures that were read once, and the answers about them.

    with engine.session(["chart.png"]) as session:
        print(session.ask("What is the highest value?").text)  # reads the picture
        print(session.ask("Which year is that?").text)  # reads eight more tokens
        print(session.chat("Explain the chart.").text)
        print(session.chat("Shorter, please.").text)  # knows what was said

    `ask` and `stream` put one question about the session's pictures, and forget it; `chat` and `chat_stream` go on with
    the conversation. One answer at a time: the next question ends an unfinished one. Use it from one thread.
    """

    def __init__(self, backend: Backend, images: Sequence[ImageSource], num_crops: NumCrops | None) -> None:
        opening = GenerationRequest("", images, num_crops=num_crops)
        self._backend = backend
        self._reuse = backend.reuse()
        self._closed = False
        self._images = tuple(opening.images)
        self._num_crops = opening.num_crops
        self._stack = PictureStack()
        self._said: list[tuple[Turn, Spoken]] = []
        self._running: _Running | None = None
        self._opening = self._read(opening)

    def ask(self, prompt: str, **options: Unpack[AnswerOptions]) -> GenerationResult:
        """Answer a question about the session's pictures, whatever was said before. Options as in `Engine.generate`."""
        return _drained(self.stream(prompt, **options))

    def stream(self, prompt: str, **options: Unpack[AnswerOptions]) -> TokenStream:
        """Like `ask`, token by token."""
        self._make_ready()
        request = _request(prompt, self._images, self._num_crops, options)
        return self._start(request, self._opening, chat=False)

    def chat(
        self, prompt: str, images: Sequence[ImageSource] = (), **options: Unpack[AnswerOptions]
    ) -> GenerationResult:
        """Go on with the conversation, with more pictures if there are.

        The first turn shows the session's pictures. The model reads the last answer once more with each turn, and
        everything when there are new pictures, which it takes only in front. A cancelled answer counts as far as it
        came.
        """
        return _drained(self.chat_stream(prompt, images, **options))

    def chat_stream(
        self, prompt: str, images: Sequence[ImageSource] = (), **options: Unpack[AnswerOptions]
    ) -> TokenStream:
        """Like `chat`, token by token."""
        self._make_ready()
        request = _request(prompt, images, self._num_crops, options)
        shown = self._read(request)
        if not self._said:
            request = replace(request, images=(*self._images, *request.images))
            shown = self._opening.and_then(shown)
        return self._start(request, shown, chat=True)

    @property
    def history(self) -> tuple[Turn, ...]:
        """The conversation so far, without turns that failed or were cancelled before their first token."""
        self._remember()
        return tuple(turn for turn, _ in self._said)

    @property
    def context_used(self) -> int:
        """Tokens of the conversation so far, pictures and answers included."""
        history = self.history
        return history[-1].result.usage.total_tokens if history else 0

    @property
    def context_length(self) -> int:
        """The most tokens a conversation may have."""
        return self._backend.model.context_length

    def reset(self) -> None:
        """Forget the conversation; the session's own pictures stay."""
        self._end_running()
        self._said.clear()

    def close(self) -> None:
        """End an unfinished answer and free the KV cache."""
        self._end_running()
        self._closed = True
        self._reuse.close()

    def _read(self, request: GenerationRequest) -> _Shown:
        """Decode and cut a request's pictures; refused as soon as they are known not to fit."""
        from .images.load import load_image

        if not request.images:
            return _Shown()
        crops = request.num_crops or self._backend.num_crops
        self._check(None, len(request.images) * LEAST_IMAGE_TOKENS, 1)
        began = time.perf_counter()
        pictures = [load_image(source) for source in request.images]
        decoded = time.perf_counter()
        self._check(None, sum(hd.plan(*picture.size, crops).image_tokens for picture in pictures), 1)
        cut = tuple(hd.transform(picture, crops) for picture in pictures)
        return _Shown(cut, decoded - began, time.perf_counter() - decoded)

    def _check(self, text: int | None, pictures: int, new: int) -> None:
        check_fits(self._backend, text, pictures, new, self._reuse.kept_tokens)

    def _start(self, request: GenerationRequest, shown: _Shown, *, chat: bool) -> TokenStream:
        began = time.perf_counter()
        spoken = Spoken(PromptLayout.of(request.prompt, len(shown.pictures)), shown.pictures)
        before = [said for _, said in self._said] if chat else []
        inputs = conversation_inputs(self._backend.tokenizer, [*before, spoken], self._stack)
        image_tokens = sum(inputs.image_tokens)
        self._check(len(inputs.input_ids) - image_tokens, image_tokens, request.max_new_tokens)
        prepared = PreparedRequest(request, inputs, shown.decode_s, shown.cut_s + time.perf_counter() - began)
        self._opening = _Shown(self._opening.pictures)  # the first answer about pictures carries what reading them took
        stream = _SessionStream(self._backend, prepared, self._reuse.start)
        self._running = _Running(stream, request, spoken, chat)
        return stream

    def _make_ready(self) -> None:
        if self._closed:
            raise InferenceError("this session is closed; open another with engine.session()")
        self._end_running()

    def _end_running(self) -> None:
        if self._running is not None:
            self._running.stream.cancel()
            self._remember()

    def _remember(self) -> None:
        """Take a finished answer into the conversation."""
        running = self._running
        if running is None or not running.stream.finished:
            return
        self._running = None
        result = running.stream.result
        said_something = bool(result.token_ids) or result.finish_reason != "cancelled"
        if running.chat and not running.stream.failed and said_something:
            spoken = replace(running.spoken, answer_ids=self._answer_ids(result))
            self._said.append((Turn(running.request, result), spoken))

    def _answer_ids(self, result: GenerationResult) -> tuple[int, ...]:
        """The ids as they came where they say just what the answer says, so that its KV cache holds; a stop string and
        what it cut off are no part of it.
        """
        decoder = self._backend.text_stream()
        text = "".join(map(decoder.push, result.token_ids)) + decoder.flush()
        return result.token_ids if text == result.text else tuple(self._backend.tokenizer.encode_text(result.text))


class _SessionStream(TokenStream):
    """A stream that remembers whether it ended with an error."""

    failed = False

    @property
    def finished(self) -> bool:
        """Whether there is a result."""
        return self._answer.finish_reason is not None

    def _next(self, generation: Generation) -> Token:
        try:
            return super()._next(generation)
        except BaseException:
            self.failed = True
            raise


@dataclass(frozen=True, slots=True)
class _Shown:
    """Pictures cut into crops, and the seconds that took."""

    pictures: tuple[hd.HdImage, ...] = ()
    decode_s: float = 0.0
    cut_s: float = 0.0

    def and_then(self, more: _Shown) -> _Shown:
        """Both, in this order."""
        return _Shown((*self.pictures, *more.pictures), self.decode_s + more.decode_s, self.cut_s + more.cut_s)


@dataclass(frozen=True, slots=True)
class _Running:
    """The answer that was asked for last."""

    stream: _SessionStream
    request: GenerationRequest
    spoken: Spoken
    chat: bool


def _request(
    prompt: str, images: Sequence[ImageSource], num_crops: NumCrops | None, options: AnswerOptions
) -> GenerationRequest:
    how: dict[str, Any] = {**options}
    limits = {name: how.pop(name) for name in ("max_new_tokens", "stop", "answer_format") if name in how}
    return GenerationRequest(prompt, images, num_crops=num_crops, sampling=SamplingParams(**how), **limits)


def _drained(stream: TokenStream) -> GenerationResult:
    with stream:
        for _ in stream:
            pass
        return stream.result
