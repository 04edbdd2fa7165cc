"""What the process that holds a model and the one that asks it say to each other: pickles on two pipes."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from ..errors import InferenceError, Phi3VError

if TYPE_CHECKING:
    from ..prepare import PreparedRequest
    from ..types import GenerationResult, Token
    from .crops import CropsFile


@dataclass(frozen=True, slots=True)
class Load:
    """The first message: what to load, as of `phi3v.load`, and the limits of `Scheduler`."""

    model: str
    device: str
    options: dict[str, Any]
    batch_size: int | None
    max_memory: int | None
    parent: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded, on this device, after so many seconds."""

    device: str
    load_s: float


@dataclass(frozen=True, slots=True)
class Ask:
    """A request: its images are in `crops`. `batch_size` and `max_memory` as of `Engine.generate_batch`."""

    number: int
    prepared: PreparedRequest
    crops: CropsFile | None
    batch_size: int | None = None
    max_memory: int | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody waits for this answer any more."""

    number: int


@dataclass(frozen=True, slots=True)
class Begun:
    """The model begins to read so many tokens of the prompts that run together with this one."""

    number: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Step:
    """One token of an answer, and the seconds the model took for it."""

    number: int
    token: Token
    seconds: float


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of an answer: its result, its error, or both if the answer was cut off and may not be."""

    number: int
    result: GenerationResult | None
    error: Phi3VError | None = None


Event = Begun | Step | Ended


@dataclass(frozen=True, slots=True)
class Sealed:
    """An `Ask` in a message of its own, so that one that cannot be read there ends alone."""

    number: int
    content: bytes

    def open(self) -> Ask:
        """The request. Raises InferenceError for one that holds what only the other process knows."""
        try:
            found: Ask = pickle.loads(self.content)
        except Exception as exc:  # unpickling raises whatever the classes in it raise
            raise InferenceError(f"the process that holds the model cannot read the request: {exc}") from exc
        return found


def seal(ask: Ask) -> bytes:
    """A request as it is sent. Raises InferenceError as `encode` does."""
    return encode(Sealed(ask.number, encode(ask)))


def encode(message: object) -> bytes:
    """A message as it is sent. Raises InferenceError for what cannot be, such as an object of a local class."""
    try:
        return pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, TypeError, AttributeError) as exc:
        raise InferenceError(f"the request cannot be sent to the process that holds the model: {exc}") from exc


def write_message(to: IO[bytes], message: object) -> None:
    """Send a message. Raises OSError if the other end is gone."""
    to.write(encode(message))
    to.flush()


def read_message(source: IO[bytes]) -> Any:
    """The next message. Raises EOFError if the other end is gone, however that happened."""
    try:
        return pickle.load(source)
    except (OSError, ValueError, pickle.UnpicklingError) as exc:  # broken off in the middle, or closed here
        raise EOFError from exc
