"""Requests, results, errors and models as JSON messages, and back.

A request that JSON cannot carry raises TypeError; it is then answered without a warm engine.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi3v import GenerationRequest, GenerationResult, Phi3VError, SamplingParams, Timings, Usage, errors
from phi3v.answer_format import AnswerFormat, Choices, JsonSchema, Regex
from phi3v.images.cropped import CroppedImage
from phi3v.images.source import HeldFile, is_http, read_source
from phi3v.models.folder import ModelDir

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .frames import Message

_PLAIN = (str, int, float, bool, type(None))


def request_message(request: GenerationRequest) -> tuple[Message, list[bytes]]:
    """Return a request as a message, and the bytes of its image files. Raises ImageError if one cannot be read."""
    if request.earlier or any(isinstance(image, CroppedImage) for image in request.images):
        raise TypeError("earlier turns and crops of single images are not part of the protocol")
    sources = [read_source(image) for image in request.images]  # type: ignore[arg-type]
    message = _plain_fields(request, without=("images", "sampling", "answer_format", "earlier"))
    images = [
        {"name": name, "bytes": len(data), "from_disk": isinstance(image, str) and not is_http(image)}
        for (data, name), image in zip(sources, request.images, strict=True)
    ]
    nested = {"sampling": _plain_fields(request.sampling), "answer_format": _format_message(request.answer_format)}
    return {**message, **nested, "images": images}, [data for data, _ in sources]


def read_request(message: Message, data: bytes) -> GenerationRequest:
    """Return the request that a client sent. Raises OptionError, also if it is not a request."""
    try:
        values = dict(message)
        images = _hold_images(values.pop("images"), data)
        sampling = SamplingParams(**values.pop("sampling"))
        answer_format = _read_format(values.pop("answer_format"))
        return GenerationRequest(images=images, sampling=sampling, answer_format=answer_format, **values)
    except Phi3VError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise errors.OptionError(f"the message is not a request ({exc!r})") from exc


def _format_message(answer_format: AnswerFormat | None) -> Message | None:
    return None if answer_format is None else {"kind": type(answer_format).__name__, **asdict(answer_format)}


def _read_format(message: Message | None) -> AnswerFormat | None:
    if message is None:
        return None
    values = dict(message)
    kinds: dict[str, Callable[..., AnswerFormat]] = {kind.__name__: kind for kind in (JsonSchema, Regex, Choices)}
    return kinds[values.pop("kind")](**values)


def _hold_images(described: list[Message], data: bytes) -> list[Any]:
    """Cut `data` into the image files that it consists of."""
    sizes = [int(image["bytes"]) for image in described]
    if min(sizes, default=0) < 0 or sum(sizes) != len(data):
        raise ValueError(f"images of {sizes} bytes, and {len(data)} came")
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    return [
        _hold_image(str(image["name"]), data[start : start + size], image["from_disk"] is True)
        for image, start, size in zip(described, starts, sizes, strict=True)
    ]


def _hold_image(name: str, data: bytes, from_disk: bool) -> HeldFile:
    """`from_disk`: the client read it from a path or data: URL, so it is checked before the answer begins."""
    return HeldFile(name, lambda: data, from_disk=from_disk)


def result_message(result: GenerationResult) -> Message:
    """Return a finished answer as a message."""
    return asdict(result)


def read_result(message: Message) -> GenerationResult:
    """Return the finished answer that a server sent."""
    usage, timings, notes = Usage(**message["usage"]), Timings(**message["timings"]), tuple(message["notes"])
    return GenerationResult(
        message["text"], tuple(message["token_ids"]), message["finish_reason"], usage, timings, notes
    )


def error_message(error: Phi3VError) -> Message:
    """Return an error of ours as a message."""
    return {"event": "error", "kind": type(error).__name__, "message": str(error)}


def read_error(message: Message) -> Phi3VError:
    """Return the error that a server sent, of the class it had there."""
    kind = getattr(errors, str(message["kind"]), None)
    leaf = kind if isinstance(kind, type) and issubclass(kind, Phi3VError) else Phi3VError
    return leaf(str(message["message"]))


def model_message(model: ModelDir) -> Message:
    """Return what a client must know of the model."""
    values = {field.name: getattr(model, field.name) for field in fields(model)}
    return {**values, "path": str(model.path), "eos_token_ids": sorted(model.eos_token_ids)}


def read_model(message: Message, path: Path) -> ModelDir:
    """Return the model that a server described. `path` is what its folder is called here."""
    sets = {"eos_token_ids": frozenset(message["eos_token_ids"]), "devices": tuple(message["devices"])}
    return ModelDir(**{**message, "path": path, **sets})


def _plain_fields(value: Any, without: Sequence[str] = ()) -> Message:
    """Return the fields of a dataclass, if JSON can carry them. Raises TypeError."""
    found = {field.name: getattr(value, field.name) for field in fields(value) if field.name not in without}
    for name, given in found.items():
        plain = isinstance(given, _PLAIN) or (
            isinstance(given, tuple) and all(isinstance(item, _PLAIN) for item in given)
        )
        if not plain:
            raise TypeError(f"{name} is a {type(given).__name__}")
    return found
