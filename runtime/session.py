"""Many questions about the same images, and conversations: what was read once is not read again.

Knows nothing of KV caches: the streams that `Answerer.open_session` opens take care of them. Every answer is the
one that a fresh run over the same ids gives.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Unpack

from . import hd
from .closing import Closing
from .conversation import ImageStack, Spoken, conversation_inputs
from .errors import InferenceError, OptionError
from .images.background import DEFAULT_BACKGROUND
from .images.cropped import NumCrops, crops_of
from .options import SessionOptions, make_request
from .prepare import LEAST_IMAGE_TOKENS, PreparedRequest, check_context, check_fits
from .prompt import PromptLayout
from .stream import Answerer, TokenStream
from .types import GenerationRequest, GenerationResult, Timings, Turn, Usage

if TYPE_CHECKING:
    from .images.load import ImageSource


_NO_TIME = Timings(0.0, 0.0, 0.0, 0.0, 0)


class Session(Closing):
    """Images that were read once, and the answers about them.

    with engine.session(["chart.png"]) as session:
        print(session.ask("What is the highest value?").text)  # reads the image
        print(session.ask("Which year is that?").text)  # reads eight more tokens
        print(session.chat("Explain the chart.").text)
        print(session.chat("Shorter, please.").text)  # knows what was said

    `ask` and `stream` answer one question about the session's images and forget it; `chat` and `chat_stream` continue
    the conversation. The options are those of `Engine.generate`, except `num_crops`, `background` and `system`, which
    belong to the session. One answer at a time: the next question ends an unfinished one. Use it from one thread.
    """

    def __init__(
        self,
        answerer: Answerer,
        images: Sequence[ImageSource],
        num_crops: NumCrops | None = None,
        background: str = DEFAULT_BACKGROUND,
        system: str = "",
    ) -> None:
        opening = make_request("", images, num_crops=num_crops, background=background, system=system)
        self._source = answerer.source
        self._waits = answerer.waits
        self._streams = answerer.open_session()
        self._closed = False
        self._images = tuple(opening.images)
        self._num_crops, self._background, self._system = opening.num_crops, opening.background, opening.system
        self._stack = ImageStack()
        self._said: list[tuple[Turn, Spoken]] = []
        self._running: _Running | None = None
        self._opening = self._read(opening)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<phi3v.Session on {self._source.model.name}, {len(self._images)} images, {state}>"

    def ask(self, prompt: str, **options: Unpack[SessionOptions]) -> GenerationResult:
        """Answer a question about the session's images, whatever was said before."""
        return self.stream(prompt, **options).drain()

    def stream(self, prompt: str, **options: Unpack[SessionOptions]) -> TokenStream:
        """Like `ask`, token by token."""
        return self.stream_request(make_request(prompt, (), **options))

    def chat(
        self, prompt: str, images: Sequence[ImageSource] = (), **options: Unpack[SessionOptions]
    ) -> GenerationResult:
        """Continue the conversation, with more images if there are any.

        The first turn shows the session's images. With each turn the model reads the last answer once more. If there
        are new images it reads everything again, because images are accepted only at the start of the
        prompt. A cancelled answer stays in the conversation as far as it was generated.
        """
        return self.chat_stream(prompt, images, **options).drain()

    def chat_stream(
        self, prompt: str, images: Sequence[ImageSource] = (), **options: Unpack[SessionOptions]
    ) -> TokenStream:
        """Like `chat`, token by token."""
        return self.stream_request(make_request(prompt, images, **options), chat=True)

    def stream_request(self, request: GenerationRequest, *, chat: bool = False) -> TokenStream:
        """`stream` or, with `chat`, `chat_stream` of a request; in a chat its images are added to the conversation.

        The session's background and instructions stand in place of the request's. Raises OptionError if the request
        has `num_crops` other than the session's, or images outside a chat.
        """
        if self._closed:
            raise InferenceError("this session is closed; open another with engine.session()")
        request = self._with_own_settings(request, chat)
        self._end_running()
        if not chat:
            return self._start(replace(request, images=self._images), self._opening, chat=False)
        shown = self._read(request)
        if not self._said:
            request = replace(request, images=(*self._images, *request.images))
            shown = self._opening.and_then(shown)
        return self._start(request, shown, chat=True)

    def resume(self, turns: Sequence[tuple[str, Sequence[ImageSource], str]]) -> None:
        """Put an earlier conversation in place of this one: each turn's prompt, images and answer.

        The first turn shows the session's own images too. The next `chat` reads all of it. Raises what `chat` does.
        """
        self.reset()
        said: list[tuple[Turn, Spoken]] = []
        for prompt, images, answer in turns:
            request = self._with_own_settings(make_request(prompt, images), chat=True)
            shown = self._read(request)
            if not said:
                request = replace(request, images=(*self._images, *request.images))
                shown = self._opening.and_then(shown)
            layout = PromptLayout.of(prompt, len(shown.images), "" if said else self._system)
            ids = tuple(self._source.tokenizer.encode_text(answer))
            spoken = Spoken(layout, shown.images, ids)
            inputs = conversation_inputs(self._source.tokenizer, [*(one for _, one in said), spoken], self._stack)
            usage = Usage(len(inputs.input_ids) - len(ids), sum(inputs.image_tokens), len(ids))
            said.append((Turn(request, GenerationResult(answer, ids, "stop", usage, _NO_TIME)), spoken))
        self._said = said

    @property
    def history(self) -> tuple[Turn, ...]:
        """The conversation so far, without turns that failed or were cancelled before their first token."""
        self._remember()
        return tuple(turn for turn, _ in self._said)

    @property
    def context_used(self) -> int:
        """Tokens of the conversation so far, images and answers included."""
        history = self.history
        return history[-1].result.usage.total_tokens if history else 0

    @property
    def context_length(self) -> int:
        """The most tokens a conversation may have."""
        return self._source.model.context_length

    def reset(self) -> None:
        """Forget the conversation; the session's own images stay."""
        self._end_running()
        self._said.clear()

    def close(self) -> None:
        """End an unfinished answer and free the KV cache."""
        self._end_running()
        self._closed = True
        self._streams.close()

    def _with_own_settings(self, request: GenerationRequest, chat: bool) -> GenerationRequest:
        """The request with the session's own crops, background and instructions."""
        ours = self._num_crops or self._source.num_crops
        if request.num_crops not in (None, ours):
            raise OptionError(
                f"num_crops is {request.num_crops!r}, and this session was opened with {ours!r}; "
                "open another with engine.session(images, num_crops=...)"
            )
        if request.images and not chat:
            raise OptionError("a question outside a chat has the session's images only; use chat() to show more")
        return replace(request, num_crops=self._num_crops, background=self._background, system=self._system)

    def _read(self, request: GenerationRequest) -> _Shown:
        """Decode a request's images and cut them into crops; refuse them as early as possible if they cannot fit."""
        from .images.load import read_image

        if not request.images:
            return _Shown()
        crops = request.num_crops or self._source.num_crops
        self._check(None, len(request.images) * LEAST_IMAGE_TOKENS, 1)
        began = time.perf_counter()
        read = [read_image(source, request.background) for source in request.images]
        images = [one.image for one in read]
        decoded = time.perf_counter()
        sized = [(image, crops_of(source, crops)) for image, source in zip(images, request.images, strict=True)]
        self._check(None, sum(hd.plan(*image.size, most).image_tokens for image, most in sized), 1)
        cut = tuple(hd.transform(image, most, self._source.model.crop_dtype) for image, most in sized)
        notes = tuple(note for one in read for note in one.notes)
        return _Shown(cut, decoded - began, time.perf_counter() - decoded, notes)

    def _check(self, text: int | None, images: int, new: int) -> None:
        if self._waits:
            check_context(self._source, text, images, new)
        else:
            check_fits(self._source, text, images, new, self._streams.kept_tokens)

    def _start(self, request: GenerationRequest, shown: _Shown, *, chat: bool) -> TokenStream:
        began = time.perf_counter()
        before = [said for _, said in self._said] if chat else []
        system = "" if before else request.system
        spoken = Spoken(PromptLayout.of(request.prompt, len(shown.images), system), shown.images)
        inputs = conversation_inputs(self._source.tokenizer, [*before, spoken], self._stack)
        image_tokens = sum(inputs.image_tokens)
        self._check(len(inputs.input_ids) - image_tokens, image_tokens, request.max_new_tokens)
        prepared = PreparedRequest(
            request, inputs, shown.decode_s, shown.cut_s + time.perf_counter() - began, shown.notes
        )
        # The first answer alone holds the time that reading them took, and what there is to say of them.
        self._opening = _Shown(self._opening.images)
        stream = self._streams.open(prepared)
        self._running = _Running(stream, request, spoken, chat)
        return stream

    def _end_running(self) -> None:
        if self._running is not None:
            self._running.stream.cancel()
            self._remember()

    def _remember(self) -> None:
        """Add a finished answer to the conversation."""
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
        """The generated ids if they decode to the answer's text, so that its KV cache can be reused; otherwise the text
        re-encoded. (A stop string, and the text it cut off, are not part of the answer.)
        """
        decoder = self._source.tokenizer.text_stream()
        text = "".join(map(decoder.push, result.token_ids)) + decoder.flush()
        return (
            result.token_ids
            if text.strip() == result.text.strip()
            else tuple(self._source.tokenizer.encode_text(result.text))
        )


@dataclass(frozen=True, slots=True)
class _Shown:
    """Images cut into crops, the seconds that took, and what a person should know of them."""

    images: tuple[hd.HdImage, ...] = ()
    decode_s: float = 0.0
    cut_s: float = 0.0
    notes: tuple[str, ...] = ()

    def and_then(self, more: _Shown) -> _Shown:
        """Both, in this order."""
        decode_s, cut_s = self.decode_s + more.decode_s, self.cut_s + more.cut_s
        return _Shown((*self.images, *more.images), decode_s, cut_s, (*self.notes, *more.notes))


@dataclass(frozen=True, slots=True)
class _Running:
    """The answer that was asked for last."""

    stream: TokenStream
    request: GenerationRequest
    spoken: Spoken
    chat: bool
