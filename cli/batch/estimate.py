"""What `phi3v batch --dry-run` says: the rows, images and tokens of a job, and about how long they take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from phi3v.errors import ImageError, PromptError

from .item import Item
from .lines import Line
from .progress import format_time

if TYPE_CHECKING:
    from phi3v.images.cropped import NumCrops
    from phi3v.models.folder import ModelDir


@dataclass(frozen=True, slots=True)
class Size:
    """A job's size. `read_tokens`: the prompts' tokens, those of an image once however many questions it has.

    `unknown`: images that are not here yet (URLs) or cannot be read; their tokens are not counted.
    """

    rows: int
    images: int
    prompt_tokens: int
    read_tokens: int
    unknown: int


def measure(items: Sequence[Item], folder: ModelDir, num_crops: NumCrops, system: str) -> Size:
    """Measure a job by its images' headers; nothing is decoded, fetched or loaded."""
    from phi3v.prompt import PromptLayout
    from phi3v.tokenizer import Tokenizer

    tokenizer = Tokenizer(folder.path / "tokenizer.json")
    images: dict[str, int | None] = {}
    prompt_tokens = read_tokens = 0
    before: tuple[str, ...] | None = None
    for item in items:
        for image in item.images:
            if image not in images:
                images[image] = _image_tokens(image, num_crops)
        of_images = sum(images[image] or 0 for image in item.images)
        try:
            layout = PromptLayout.of(item.question, len(item.images), system)
        except PromptError:  # a row that will fail
            continue
        text = len(layout.input_ids(tokenizer, [0] * len(item.images)))
        prompt_tokens += of_images + text
        read_tokens += text + (of_images if item.key != before else 0)
        before = item.key
    unknown = sum(tokens is None for tokens in images.values())
    return Size(len(items), len(images), prompt_tokens, read_tokens, unknown)


def _image_tokens(image: str, num_crops: NumCrops) -> int | None:
    from phi3v.hd import plan
    from phi3v.images.load import image_size
    from phi3v.images.source import is_http

    if is_http(image):
        return None
    try:
        return plan(*image_size(image), num_crops).image_tokens
    except ImageError:
        return None


def describe(size: Size, answered: Iterable[Line]) -> str:
    """The size, and the time by the lines that were answered before."""
    unknown = f" ({size.unknown} not readable yet, not counted)" if size.unknown else ""
    return (
        f"{size.rows} rows, {size.images} images{unknown}, {size.prompt_tokens} prompt tokens "
        f"({size.read_tokens} to read), {_describe_time(size, answered)}"
    )


def _describe_time(size: Size, answered: Iterable[Line]) -> str:
    read = decode_s = prefill_s = 0.0
    rows = 0
    for line in answered:
        if line["error"] is None:
            rows += 1
            read += line["usage"]["prompt_tokens"] - line["usage"]["cached_tokens"]
            prefill_s += line["timings"]["prefill_s"]
            decode_s += line["timings"]["decode_s"]
    if not rows or not read:
        return "time unknown: answer some with --limit 10, then ask again"
    seconds = size.read_tokens * prefill_s / read + size.rows * decode_s / rows
    return f"at most {format_time(seconds)} after loading, by the {rows} answered before"
