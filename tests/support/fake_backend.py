"""A backend that says what it was told to: deterministic, in microseconds, without an engine or an export.

The folder, the tokenizer and preprocessing are those of the built-in model; only the generations are made up. What the
engine, the session and the batch asked of it is counted, so that tests see what was read, freed and run together.
"""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import numpy.typing as npt

from phi3v.backend import BatchRow, ModelInputs
from phi3v.errors import InferenceError
from phi3v.models.folder import BUILTIN, ModelDir
from phi3v.prepare import HdPreprocessor
from phi3v.sampling import TokenChooser
from phi3v.tokenizer import Tokenizer

IMAGE_TOKENS = 313
"""What one small image costs with one crop, which is the built-in model's default."""


@cache
def builtin_model() -> ModelDir:
    return ModelDir.open(BUILTIN)


@cache
def builtin_tokenizer() -> Tokenizer:
    return Tokenizer(BUILTIN / "tokenizer.json")


EOS = min(builtin_model().eos_token_ids)


@dataclass(frozen=True, slots=True)
class Script:
    """One answer to give: its ids, after them the end of the turn or, when `endless`, the same ids again.

    `error` is raised in place of the token number `at` (0 is the first), in place of a prefill too. `pauses` seconds
    go by before each token. `reached` is set when token number `at` is asked for, which then waits for `released`.
    """

    ids: tuple[int, ...]
    endless: bool = False
    at: int = 0
    error: BaseException | None = None
    pauses: float = 0.0
    reached: threading.Event | None = None
    released: threading.Event | None = None

    def token(self, number: int) -> int:
        """The token of this number, after whatever is to happen in front of it."""
        if number == self.at:
            if self.reached is not None and self.released is not None:
                self.reached.set()
                assert self.released.wait(20), "nobody released the answer"
            if self.error is not None:
                raise self.error
        if self.pauses:
            time.sleep(self.pauses)
        if self.endless:
            return self.ids[number % len(self.ids)]
        return self.ids[number] if number < len(self.ids) else EOS


def says(text: str, **how: object) -> Script:
    """An answer of this text, token by token as the built-in model's tokenizer has it."""
    return Script(tuple(builtin_tokenizer().encode_text(text)), **how)  # type: ignore[arg-type]


def fails(at: int, error: BaseException | None = None, text: str = "never said to its end") -> Script:
    """An answer that ends with an error in place of token number `at`; by default with the engine's own."""
    return says(text, at=at, error=error or InferenceError("the fake engine broke"))


def echo(inputs: ModelInputs) -> Script:
    """An answer that is decided by the prompt alone, and differs with it."""
    text = inputs.input_ids[inputs.input_ids >= 0]
    return says(f"answer {zlib.crc32(text.tobytes()) % 1000}")


def by_word(scripts: dict[str, Script]) -> Callable[[ModelInputs], Script]:
    """An answer that is decided by the first of these words that the prompt holds."""

    def answer(inputs: ModelInputs) -> Script:
        text = text_of(inputs.input_ids)
        return next(script for word, script in scripts.items() if word in text)

    return answer


def text_of(ids: Iterable[int]) -> str:
    """Ids as text, control tokens and slots of images left out."""
    decoder = builtin_tokenizer().text_stream()
    return "".join(decoder.push(int(token)) for token in ids if token >= 0) + decoder.flush()


@dataclass(slots=True)
class Log:
    """What was asked of the backend."""

    prompts: list[ModelInputs] = field(default_factory=list)
    """Of every generation and row that was started."""
    prefills: list[int] = field(default_factory=list)
    """Tokens read in front of each answer's first token."""
    batches: list[int] = field(default_factory=list)
    """Rows of each batch."""
    steps: int = 0
    running: int = 0
    """Generations and rows that were started and hold a KV cache."""
    closed: bool = False


class FakeBackend(HdPreprocessor):
    """One answer after the other: the given scripts in order, then `echo`'s.

    `changes` replace values of the model folder, such as `context_length`.
    """

    def __init__(
        self, *scripts: Script | str, answer: Callable[[ModelInputs], Script] = echo, **changes: object
    ) -> None:
        able: dict[str, object] = {"needs_image": False, "knows_formats": True} | changes
        super().__init__(dataclasses.replace(builtin_model(), **able), "cpu")  # type: ignore[arg-type]
        self._scripts: Iterator[Script] = (says(s) if isinstance(s, str) else s for s in scripts)
        self._answer = answer
        self.log = Log()

    @property
    def prompts(self) -> list[str]:
        """The text of every prompt that was read."""
        return [text_of(inputs.input_ids) for inputs in self.log.prompts]

    def start(self, inputs: ModelInputs, chooser: TokenChooser, max_new_tokens: int) -> FakeGeneration:
        """The next answer."""
        return self.start_behind(0, inputs, chooser, max_new_tokens)

    def start_behind(
        self, kept: int, inputs: ModelInputs, chooser: TokenChooser, max_new_tokens: int
    ) -> FakeGeneration:
        """The next answer, `kept` tokens of whose prompt were read before."""
        if self.log.closed:
            raise InferenceError("this engine is closed; load the model again")
        self.log.prompts.append(inputs)
        return FakeGeneration(self, self.next_script(inputs), inputs, chooser, max_new_tokens, kept)

    def next_script(self, inputs: ModelInputs) -> Script:
        """What to answer to a prompt."""
        return next(self._scripts, None) or self._answer(inputs)

    def reuse(self) -> FakeReuse:
        """Generations that take over what they have in common."""
        return FakeReuse(self)

    def close(self) -> None:
        """Take no more requests."""
        self.log.closed = True


class FakeGeneration:
    """One answer. Its KV cache is there from the first step to `close`; no more steps than tokens were asked for."""

    def __init__(
        self,
        backend: FakeBackend,
        script: Script,
        inputs: ModelInputs,
        chooser: TokenChooser,
        max_new_tokens: int,
        kept: int,
    ) -> None:
        self._backend, self._script, self._chooser = backend, script, chooser
        self._room, self._kept = max_new_tokens, kept
        self.ids = inputs.input_ids.tolist()
        """The prompt and what was generated behind it."""
        self.failed = False
        self._steps = 0
        self._closed = False
        self.on_close: Callable[[FakeGeneration], None] = lambda _: None

    def step(self) -> int:
        """The next token of the script, as the chooser takes it."""
        assert not self._closed, "a step of a closed generation"
        assert not self.failed, "a step after an error"
        assert self._steps < self._room, "a step beyond max_new_tokens"
        log = self._backend.log
        if self._steps == 0:
            log.running += 1
            log.prefills.append(len(self.ids) - self._kept)
        try:
            token = self._chosen(self._script.token(self._steps))
        except BaseException:
            self.failed = True
            raise
        finally:
            self._steps += 1
            log.steps += 1
        self.ids.append(token)
        return token

    def close(self) -> None:
        """Free the KV cache."""
        if self._closed:
            return
        self._closed = True
        if self._steps:
            self._backend.log.running -= 1
        self.on_close(self)

    def _chosen(self, token: int) -> int:
        """The scripted token, or the chooser's choice from logits whose highest it is."""
        if self._chooser.is_argmax:
            return token
        logits: npt.NDArray[np.float32] = np.zeros(self._backend.model.vocab_size, dtype=np.float32)
        logits[token] = 100.0
        return self._chooser.choose(logits)


class FakeReuse:
    """Keeps the ids of the last answer as a KV cache would: what the next prompt begins with is not read again."""

    def __init__(self, backend: FakeBackend) -> None:
        self._backend = backend
        self._ids: list[int] = []
        self._last: ModelInputs | None = None
        self.reused_tokens = 0
        self.closed = False

    @property
    def kept_tokens(self) -> int:
        """Tokens of the last answer and its prompt."""
        return len(self._ids)

    def shared_tokens(self, inputs: ModelInputs, max_new_tokens: int) -> int:
        """How many of the kept ids a prompt begins with; none for other images."""
        if self._last is None or not self._last.shows_same(inputs):
            return 0
        pairs = zip(self._ids, inputs.input_ids[:-1].tolist(), strict=False)
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))

    def start(self, inputs: ModelInputs, chooser: TokenChooser, max_new_tokens: int) -> FakeGeneration:
        """An answer that reads what the kept ids do not begin with."""
        self.reused_tokens = self.shared_tokens(inputs, max_new_tokens)
        self._ids = []
        generation = self._backend.start_behind(self.reused_tokens, inputs, chooser, max_new_tokens)
        self._last = inputs
        generation.on_close = self._keep
        return generation

    def close(self) -> None:
        """Keep nothing."""
        self._ids, self.closed = [], True

    def _keep(self, generation: FakeGeneration) -> None:
        self._ids = [] if generation.failed or self.closed else generation.ids


class FakeBatchBackend(FakeBackend):
    """The same, several answers at a time. A token takes `token_bytes` of memory in a batch, in every padded row.

    `max_batch_size` may be set lower; `batch_error` is raised by every batch of several rows in place of its step
    number `batch_fails_at`.
    """

    max_batch_size = 32
    token_bytes = 1
    batch_error: BaseException | None = None
    batch_fails_at = 0

    def batch_bytes(self, rows: Sequence[ModelInputs], max_new_tokens: int) -> int:
        """Rows are padded to the longest."""
        return len(rows) * (max(len(row.input_ids) for row in rows) + max_new_tokens) * self.token_bytes

    def start_batch(self, rows: Sequence[BatchRow]) -> FakeBatch:
        """The next answers together."""
        assert 2 <= len(rows) <= self.max_batch_size
        return FakeBatch(self, [self.start(row.inputs, row.chooser, row.max_new_tokens) for row in rows])


class FakeBatch:
    """Rows in one loop."""

    def __init__(self, backend: FakeBatchBackend, generations: Sequence[FakeGeneration]) -> None:
        self._backend = backend
        self._running = dict(enumerate(generations))
        self._steps = 0
        backend.log.batches.append(len(generations))

    def step(self) -> dict[int, int]:
        """A token of every row that has not left."""
        if self._backend.batch_error is not None and self._steps == self._backend.batch_fails_at:
            raise self._backend.batch_error
        self._steps += 1
        return {row: generation.step() for row, generation in self._running.items()}

    def leave(self, row: int) -> None:
        """This row is finished."""
        self._running.pop(row).close()

    def close(self) -> None:
        """Free what has not left."""
        for row in list(self._running):
            self.leave(row)
