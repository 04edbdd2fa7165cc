"""The images that tools may read: files under one folder, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from phi3v.errors import ImageError
from phi3v.images.pages import join_page, split_page
from phi3v.images.source import is_http


@dataclass(frozen=True, slots=True)
class Root:
    """A folder, without links in its path."""

    path: Path

    @classmethod
    def of(cls, folder: Path) -> Root:
        """The folder that a person named."""
        return cls(folder.resolve())

    def find(self, given: str) -> str:
        """The image that a tool was called with: a path under the root, relative to it or absolute.

        `scan.pdf#page=2` is a page. Links are followed, and must end under the root. Raises ImageError.
        """
        if is_http(given) or given[:5].lower() == "data:":
            raise ImageError(f"{given[:60]} is a URL; allowed: the path of an image under {self.path}")
        name, page = split_page(given)
        try:
            path = (self.path / Path(name).expanduser()).resolve()
            inside = path.is_relative_to(self.path)
            there = inside and path.is_file()
        except (OSError, ValueError, RuntimeError) as exc:  # too long, a zero byte, links in a circle, no such user
            raise ImageError(f"{given[:200]!r} is not a path; allowed: the path of an image under {self.path}") from exc
        if not inside:
            raise ImageError(f"{given} is outside {self.path}; allowed: images in that folder and the folders in it")
        if not there:
            raise ImageError(f"there is no file {given} in {self.path}; give its path relative to that folder")
        return str(path) if page is None else join_page(str(path), page)
