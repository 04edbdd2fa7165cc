"""Our values as JSON and back. What it cannot say raises TypeError, and is then answered without a warm engine."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi3v import GenerationRequest, GenerationResult, Phi3VError, SamplingParams, Timings, Usage, errors
from phi3v.answer_format import AnswerFormat, Choices, JsonSchema, Regex
from phi3v.images.source import is_http, read_source
from phi3v.models.folder import ModelDir

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .frames import Message

_PLAIN = (str, int, float, bool, type(None))


class HeldPicture:
    """A picture's file in memory, under the name it has in messages. It reads whole, again and again.

    `from_disk`: it is judged by its first bytes before anything else, as `phi3v ask` does with files.
    """

    def __init__(self, name: str, data: bytes, from_disk: bool) -> None:
        self.name = name
        self.from_disk = from_disk
        self._data = data

    def read(self, _size: int = -1) -> bytes:
        """All of it."""
        return self._data


def request_message(request: GenerationRequest) -> tuple[Message, list[bytes]]:
    """A request, and the bytes of its pictures' files. Raises ImageError for a picture that cannot be read."""
    pictures = [read_source(image) for image in request.images]  # type: ignore[arg-type]
    message = _plain_fields(request, without=("images", "sampling", "answer_format"))
    images = [
        {"name": name, "bytes": len(data), "from_disk": isinstance(image, str) and not is_http(image)}
        for (data, name), image in zip(pictures, request.images, strict=True)
    ]
    how = {"sampling": _plain_fields(request.sampling), "answer_format": _format_message(request.answer_format)}
    return {**message, **how, "images": images}, [data for data, _ in pictures]


def read_request(message: Message, data: bytes) -> GenerationRequest:
    """The request a client sent. Raises OptionError, also for what is none."""
    try:
        values = dict(message)
        images = _held_pictures(values.pop("images"), data)
        sampling = SamplingParams(**values.pop("sampling"))
        answer_format = _read_format(values.pop("answer_format"))
        return GenerationRequest(images=images, sampling=sampling, answer_format=answer_format, **values)
    except Phi3VError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise errors.OptionError(f"what came is no request ({exc!r})") from exc


def _format_message(answer_format: AnswerFormat | None) -> Message | None:
    return None if answer_format is None else {"kind": type(answer_format).__name__, **asdict(answer_format)}


def _read_format(message: Message | None) -> AnswerFormat | None:
    if message is None:
        return None
    values = dict(message)
    kinds: dict[str, Callable[..., AnswerFormat]] = {kind.__name__: kind for kind in (JsonSchema, Regex, Choices)}
    return kinds[values.pop("kind")](**values)


def _held_pictures(described: list[Message], data: bytes) -> list[Any]:
    sizes = [int(image["bytes"]) for image in described]
    if min(sizes, default=0) < 0 or sum(sizes) != len(data):
        raise ValueError(f"pictures of {sizes} bytes, and {len(data)} came")
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    return [
        HeldPicture(str(image["name"]), data[start : start + size], image["from_disk"] is True)
        for image, start, size in zip(described, starts, sizes, strict=True)
    ]


def result_message(result: GenerationResult) -> Message:
    """A finished answer."""
    return asdict(result)


def read_result(message: Message) -> GenerationResult:
    """The finished answer a server sent."""
    usage, timings = Usage(**message["usage"]), Timings(**message["timings"])
    return GenerationResult(message["text"], tuple(message["token_ids"]), message["finish_reason"], usage, timings)


def error_message(error: Phi3VError) -> Message:
    """An error of ours."""
    return {"event": "error", "kind": type(error).__name__, "message": str(error)}


def read_error(message: Message) -> Phi3VError:
    """The error a server sent, as the leaf it was."""
    kind = getattr(errors, str(message["kind"]), None)
    leaf = kind if isinstance(kind, type) and issubclass(kind, Phi3VError) else Phi3VError
    return leaf(str(message["message"]))


def model_message(model: ModelDir) -> Message:
    """What a client must know of the model."""
    values = {field.name: getattr(model, field.name) for field in fields(model)}
    return {**values, "path": str(model.path), "eos_token_ids": sorted(model.eos_token_ids)}


def read_model(message: Message, path: Path) -> ModelDir:
    """The model a server told about; `path` is what its folder is called here."""
    eos = frozenset(message["eos_token_ids"])
    return ModelDir(**{**message, "path": path, "eos_token_ids": eos})


def _plain_fields(value: Any, without: Sequence[str] = ()) -> Message:
    """The fields of a dataclass, all of them plain."""
    found = {field.name: getattr(value, field.name) for field in fields(value) if field.name not in without}
    for name, given in found.items():
        plain = isinstance(given, _PLAIN) or (
            isinstance(given, tuple) and all(isinstance(item, _PLAIN) for item in given)
        )
        if not plain:
            raise TypeError(f"{name} is a {type(given).__name__}")
    return found
