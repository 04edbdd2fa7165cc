"""The chat template and its ids, exactly as the reference processor makes them.

The reference cuts the templated text at the `<|image_N|>` tags and tokenises each chunk on its own, BOS in front;
between two chunks stand the image's slots, -N repeated. (Phi-3-vision's `processing_phi3_v.py`.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import PromptError

if TYPE_CHECKING:  # laying out needs no tokenizer: `phi3v ask` does it before it loads anything
    from .tokenizer import Tokenizer

_IMAGE_TAG = re.compile(r"<\|image_([0-9]{1,4})\|>")


@dataclass(frozen=True, slots=True)
class Control:
    """A control token of the template, as opposed to text that merely spells one."""

    token: str


Segment = Control | str
_SYSTEM_START: tuple[Segment, ...] = (Control("<|system|>"), "\n")
_TURN_START: tuple[Segment, ...] = (Control("<|user|>"), "\n")
_ANSWER_END: tuple[Segment, ...] = (Control("<|end|>"), "\n")
_TURN_END: tuple[Segment, ...] = (*_ANSWER_END, Control("<|assistant|>"), "\n")


@dataclass(frozen=True, slots=True)
class PromptLayout:
    """A user turn cut at its images: `chunks[0]`, image `order[0]`, `chunks[1]`, image `order[1]`, ...

    `order` holds indices (from 0) into the images as the caller gave them.
    """

    chunks: tuple[tuple[Segment, ...], ...]
    order: tuple[int, ...]

    @classmethod
    def of(cls, prompt: str, image_count: int, system: str = "") -> PromptLayout:
        """Lay out one user turn with `image_count` images, after a turn with instructions if there are any (`system`).

        Images come before the text, unless the text places them itself with `<|image_1|>` ... `<|image_N|>`.
        Raises PromptError when such tags do not name every image exactly once, or `prompt` is not valid Unicode.
        """
        _require_unicode(prompt)
        _require_unicode(system)
        if not prompt.strip() and not image_count:
            raise PromptError("the prompt is empty and there is no image; ask something")
        tags = [int(number) for number in _IMAGE_TAG.findall(prompt)]
        if not tags:
            prompt = "".join(f"<|image_{n}|>\n" for n in range(1, image_count + 1)) + prompt
            tags = list(range(1, image_count + 1))
        elif sorted(tags) != list(range(1, image_count + 1)):
            raise PromptError(_tag_mismatch(tags, image_count))
        texts = _IMAGE_TAG.split(prompt)[::2]
        chunks: list[tuple[Segment, ...]] = [(text,) for text in texts]
        before = _join(_join(_SYSTEM_START, (system,)), _ANSWER_END) if system else ()
        chunks[0] = _join(_join(before, _TURN_START), chunks[0])
        chunks[-1] = _join(chunks[-1], _TURN_END)
        return cls(tuple(chunks), tuple(tag - 1 for tag in tags))

    def text(self) -> str:
        """The whole turn as one string, tags included, as genai's own processor wants it."""
        parts = ["".join(s.token if isinstance(s, Control) else s for s in chunk) for chunk in self.chunks]
        tags = [f"<|image_{n}|>" for n in range(1, len(self.order) + 1)]
        return parts[0] + "".join(tag + part for tag, part in zip(tags, parts[1:], strict=True))

    def input_ids(self, tokenizer: Tokenizer, image_tokens: Sequence[int], earlier: int | None = None) -> list[int]:
        """Ids of the turn; `image_tokens[i]` slots of -(i+1) for the i-th image in slot order.

        `earlier`: number of images in previous turns. If given, close the previous answer, add no BOS, and continue
        numbering.
        """
        first = self.chunks[0]
        ids = _chunk_ids(tokenizer, first) if earlier is None else [*_segment_ids(tokenizer, (*_ANSWER_END, *first))]
        for number, (slots, chunk) in enumerate(zip(image_tokens, self.chunks[1:], strict=True), (earlier or 0) + 1):
            ids += [-number] * slots + _chunk_ids(tokenizer, chunk)
        return ids


def _require_unicode(prompt: str) -> None:
    try:
        prompt.encode()
    except UnicodeEncodeError as exc:
        raise PromptError(
            f"the prompt is not valid Unicode: {exc.object[exc.start]!r} at character {exc.start} is half of a "
            "surrogate pair; decode the text as UTF-8 before passing it"
        ) from exc


def _join(left: tuple[Segment, ...], right: tuple[Segment, ...]) -> tuple[Segment, ...]:
    """Concatenate, merging text that meets text: the tokenizer must see it as one run."""
    if left and right and isinstance(left[-1], str) and isinstance(right[0], str):
        return (*left[:-1], left[-1] + right[0], *right[1:])
    return (*left, *right)


def _chunk_ids(tokenizer: Tokenizer, chunk: tuple[Segment, ...]) -> list[int]:
    return [*tokenizer.bos_ids, *_segment_ids(tokenizer, chunk)]


def _segment_ids(tokenizer: Tokenizer, chunk: Sequence[Segment]) -> Iterator[int]:
    strip = False
    for segment in chunk:
        if isinstance(segment, Control):
            yield tokenizer.control_id(segment.token)
            strip = tokenizer.strips_right(segment.token)
        else:
            yield from tokenizer.encode_text(segment.lstrip() if strip else segment)
            strip = False


def _tag_mismatch(tags: list[int], image_count: int) -> str:
    named = ", ".join(f"<|image_{n}|>" for n in tags)
    if not image_count:
        return f"the prompt names {named} but no image was given; pass the image or drop the tag"
    wanted = f"<|image_1|> to <|image_{image_count}|>" if image_count > 1 else "<|image_1|>"
    return (
        f"the prompt names {named} but {image_count} image(s) were given; "
        f"name {wanted} once each, or no tag at all to put the images first"
    )
