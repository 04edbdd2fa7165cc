"""The image files that an argument of `phi3v batch` stands for, and the files of folders that were passed over."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click

from phi3v.images.suffixes import AVIF_SUFFIXES, HEIC_SUFFIXES, IMAGE_SUFFIXES, readable_suffixes
from phi3v.machine.install import install_line
from phi3v.models.near_miss import suggest

_PDF = ".pdf"
_NO_SUFFIX = "no suffix"


@dataclass(slots=True)
class PassedOver:
    """The files of folders that are not read, counted by suffix, and the folders that links lead to a second time."""

    kinds: Counter[str] = field(default_factory=Counter)
    folders: list[str] = field(default_factory=list)

    def describe(self) -> list[str]:
        """A line for each of them, with what reads such files."""
        lines = [f"{folder} is a link to a folder that is read already" for folder in self.folders]
        if self.kinds:
            ordered = sorted(self.kinds.items(), key=lambda found: (-found[1], found[0]))
            kinds = ", ".join(f"{kind} {count}" for kind, count in ordered)
            lines.append(f"passed over {self.kinds.total()} files that are not images: {kinds}{self._remedies()}")
        return lines

    def _remedies(self) -> str:
        found = [f"--pages all reads {_PDF}"] if self.kinds[_PDF] else []
        if any(self.kinds[suffix] for suffix in HEIC_SUFFIXES):
            found.append(f"{install_line('heic')} lets .heic be read")
        if any(self.kinds[suffix] for suffix in AVIF_SUFFIXES):
            found.append("pip install -U pillow lets .avif be read")
        return "".join(f"; {remedy}" for remedy in found)


class ImageFinder:
    """Finds image files, and PDF files too if their pages are wanted (`pdf`)."""

    def __init__(self, *, pdf: bool) -> None:
        self.passed_over = PassedOver()
        self._suffixes = (*readable_suffixes(), *((_PDF,) if pdf else ()))
        self._seen: set[tuple[int, int]] = set()

    def find(self, given: str) -> list[str]:
        """The images of a folder or of a pattern; what is neither is an image's path.

        Raises click.UsageError where there is none, and for a path that is there under no such name.
        """
        if os.path.isdir(given):  # noqa: PTH112 - the path is printed as it was given
            self._seen.clear()
            found = list(self._walk(given))
        elif glob.has_magic(given) and not os.path.lexists(given):
            found = sorted(path for path in glob.glob(given, recursive=True) if os.path.isfile(path))  # noqa: PTH113, PTH207
        else:
            _check_named(given)
            return [given]
        if not found:
            said = "".join(f"; {line}" for line in self.passed_over.describe())
            raise click.UsageError(f"{given}: contains no images ({', '.join(IMAGE_SUFFIXES)}){said}")
        return found

    def _walk(self, folder: str) -> Iterator[str]:
        """Yield the images below a folder, sorted. Names that start with a dot are skipped; a folder is read once."""
        if not self._is_new(folder):
            self.passed_over.folders.append(folder)
            return
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as exc:
            raise click.UsageError(f"{folder} cannot be read: {exc.strerror}") from exc
        inner = list[str]()
        for entry in entries:
            path = os.path.join(folder, entry.name)  # noqa: PTH118
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                inner.append(path)
            elif entry.name.lower().endswith(self._suffixes):
                yield path
            else:
                self.passed_over.kinds[Path(entry.name).suffix.lower() or _NO_SUFFIX] += 1
        for path in inner:
            yield from self._walk(path)

    def _is_new(self, folder: str) -> bool:
        status = os.stat(folder)  # noqa: PTH116
        place = (status.st_dev, status.st_ino)
        new = place not in self._seen
        self._seen.add(place)
        return new


def _check_named(path: str) -> None:
    """Refuse a path that is nothing, and not named like an image: it is a folder or a table that was mistyped."""
    images = (*IMAGE_SUFFIXES, *AVIF_SUFFIXES, *HEIC_SUFFIXES, _PDF)
    if os.path.lexists(path) or path.partition("#page=")[0].lower().endswith(images):
        return
    folder = Path(path).parent
    beside = [str(folder / name) if path.count(os.sep) else name for name in _names(folder)]
    raise click.UsageError(f"{path}: no such file or folder{suggest(path, beside)}")


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208
    except OSError:
        return []
