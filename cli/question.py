"""The words after `phi3v ask`: which of them is the question, and which are images.

A question may come from a file (@FILE) or from standard input (@-); @@ stands for a question that begins with @.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from phi3v.images.local_file import is_pipe
from phi3v.images.source import is_http
from phi3v.images.suffixes import IMAGE_SUFFIXES

_MOST_BYTES = 4 << 20
"""More than any context takes."""

_WORD = re.compile(r"[^\s\"'`<>|()\[\]{}]+")


def split_words(prompt: str, images: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Tell the question from the images, which may stand in front of it.

    Raises click.UsageError where an image stands in the question's place and no question among the images, or where the
    question names an image's file that is not given: the model would answer all the same, about nothing.
    """
    if _is_image(prompt):
        questions = [number for number, word in enumerate(images) if not _is_image(word)]
        if len(questions) == 1 and (prompt != "-" or images):
            (at,) = questions
            return images[at], (prompt, *images[:at], *images[at + 1 :])
        shown = " ".join(map(shlex.quote, (prompt, *(word for word in images if _is_image(word)))))
        raise click.UsageError(
            f'{prompt} is an image and stands where the question belongs; type: phi3v ask "What is this?" {shown}'
        )
    if not images and (named := _find_image_in(prompt)):
        raise click.UsageError(
            f"the question names {named}, and no image is given; type: phi3v ask {shlex.quote(prompt)} "
            f"{shlex.quote(named)}"
        )
    return prompt, tuple(images)


def read_prompt(word: str, images: Sequence[str] = ()) -> str:
    """The question that a word stands for: itself, or what the file behind @ holds."""
    if not word.startswith("@"):
        return word
    if word.startswith("@@"):
        return word[1:]
    name = word[1:]
    if name == "-" and "-" in images:
        raise click.UsageError(
            "standard input cannot be the question (@-) and an image (-) at once; give one as a file"
        )
    if name == "-" and sys.stdin is None:
        raise click.UsageError("@- is standard input, which is closed; give the question itself")
    try:
        data = sys.stdin.buffer.read(_MOST_BYTES + 1) if name == "-" else _read_file(Path(name).expanduser())
    except (OSError, ValueError, RuntimeError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise click.UsageError(
            f"{word}: {name} cannot be read ({reason}); a question that begins with @ is written @@"
        ) from exc
    if len(data) > _MOST_BYTES:
        raise click.UsageError(f"{word} is larger than the {_MOST_BYTES >> 20} MiB allowed for a question")
    return decode_text(data, word).removesuffix("\n").removesuffix("\r")


def decode_text(data: bytes, name: str) -> str:
    """Text that people's editors and shells write: UTF-8, or UTF-16 with its mark. Raises click.UsageError."""
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as exc:
        raise click.UsageError(
            f"{name} is not UTF-8 text ({exc.reason} at byte {exc.start}); save it as UTF-8"
        ) from exc


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MOST_BYTES + 1)


def _is_image(word: str) -> bool:
    """Whether a word can only be an image: standard input, a URL, a pipe, a file that is there, or a file's name."""
    one_word = not any(character.isspace() for character in word)
    named = is_http(word) or word[:11].lower() == "data:image/" or word.lower().endswith(IMAGE_SUFFIXES)
    return word == "-" or (one_word and named) or is_pipe(word) or _is_file(word)


def _is_file(word: str) -> bool:
    try:
        return os.path.isfile(word)  # noqa: PTH113 - False for what is no name at all
    except ValueError:
        return False


def _find_image_in(prompt: str) -> str | None:
    """A word of the question that is an image's file on this machine."""
    for word in _WORD.findall(prompt):
        name = word.rstrip(".,;:!?")
        if name.lower().endswith(IMAGE_SUFFIXES) and _is_file(name):
            return str(name)
    return None
