"""The results of `phi3v batch` as lines of JSON: what is in this file is done, however the process ended.

A line counts once it ends with its newline. One that a killed process or a full disk cut short is removed, and its
question answered again.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from phi3v.errors import DiskSpaceError, OptionError

from .lines import Line

_HEAD = b'{"id": '
"""How every line begins. A file that holds no line of ours and begins otherwise is somebody else's."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class Done:
    """What was asked in a line, whether that failed, and the bytes of the file where it stands."""

    question: str
    images: tuple[str, ...]
    failed: bool
    at: int
    size: int


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Only one process at a time writes these results. Raises OptionError at once when another one does."""
    try:
        with FileLock(out.with_name(f".{out.name}.lock"), timeout=0):
            yield
    except Timeout as exc:
        raise OptionError(f"another process is writing {out}; wait for it, or give --out another file") from exc


class Journal:
    """An open file of results. `done` holds what was asked in each line, by id."""

    def __init__(self, path: Path, run: str) -> None:
        """Open or create the file and repair its end. Raises OptionError when it is none of ours, or of another run.

        `run` stands for everything that decides the answers; every line carries it.
        """
        self.path, self._run = path, run
        self.done: dict[str, Done] = {}
        self._file, self._end = -1, 0
        self._open()

    def lines(self) -> Iterator[Line]:
        """Every line, in the order of the file."""
        return map(json.loads, self._whole_lines())

    def read(self, names: Iterable[str]) -> Iterator[Line]:
        """The lines with these ids, in this order."""
        for name in names:
            done = self.done[name]
            yield json.loads(os.pread(self._file, done.size, done.at))

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line: all of it, or nothing. Raises DiskSpaceError."""
        whole = {**line, "run": self._run}
        data = _encoded(whole)
        try:
            at = self._end
            while at < self._end + len(data):
                at += os.pwrite(self._file, data[at - self._end :], at)
        except OSError as exc:
            os.ftruncate(self._file, self._end)
            raise disk_error(exc, self.path, len(self.done)) from exc
        self._note(whole, len(data))

    def forget(self, names: Collection[str]) -> None:
        """Take lines out, so that these are answered again: a new file replaces the old one. Raises DiskSpaceError."""
        if self.done.keys().isdisjoint(names):
            return
        with replacing(self.path, len(self.done)) as scratch, scratch.open("wb") as file:
            file.writelines(_encoded(line) for line in self.lines() if line["id"] not in names)
        self.close()
        self._open()

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _open(self) -> None:
        self.done, self._end = {}, 0
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            for number, data in enumerate(self._whole_lines(), start=1):
                self._note(self._parsed(number, data), len(data))
            torn = os.pread(self._file, len(_HEAD), self._end)
            if not self.done and not _HEAD.startswith(torn):
                raise OptionError(f"{self.path} ends in what is not a result of phi3v batch; give --out another file")
            os.ftruncate(self._file, self._end)
        except BaseException:
            self.close()
            raise

    def _note(self, line: Line, size: int) -> None:
        self.done[line["id"]] = Done(
            line["question"], tuple(line["images"]), line["error"] is not None, self._end, size
        )
        self._end += size

    def _whole_lines(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            yield from (line for line in file if line.endswith(b"\n"))

    def _parsed(self, number: int, data: bytes) -> Line:
        try:
            line: Line = json.loads(data)
            run, name, _, _, _ = (line[key] for key in ("run", "id", "question", "images", "error"))
        except (ValueError, KeyError, TypeError) as exc:
            raise OptionError(f"{self.path}:{number} is not a result of phi3v batch; give --out another file") from exc
        if run != self._run:
            raise OptionError(
                f"{self.path} holds answers to other questions, of another model or with other options ({name!r} and "
                "more): repeat the command as it was, give --out another file, or delete this one"
            )
        return line


@contextmanager
def replacing(path: Path, safe: int) -> Iterator[Path]:
    """A file to write within; it then takes the place of `path`, or is removed. Raises DiskSpaceError."""
    scratch = path.with_name(f".{path.name}.partial")
    try:
        yield scratch
        scratch.replace(path)
    except OSError as exc:
        raise disk_error(exc, path, safe) from exc
    finally:
        scratch.unlink(missing_ok=True)


def disk_error(exc: OSError, path: Path, safe: int) -> OSError:
    """A full disk as an error of ours that says what is left; any other as it is."""
    if exc.errno not in _FULL:
        return exc
    return DiskSpaceError(
        f"{path}: {exc.strerror}; {safe} answer(s) are safe. Free some space and run the same command again"
    )


def _encoded(line: Line) -> bytes:
    """JSON and a newline. Half of a surrogate pair (an odd file name) becomes its JSON escape."""
    return json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
