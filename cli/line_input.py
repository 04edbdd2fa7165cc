"""The lines of `phi3v chat` as they are typed or piped in: history, completion, questions of several lines."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .notices import tell

_PROMPT, _MORE = "> ", "... "
_BLOCK = '"""'
_MOST_LINES = 1000
"""Lines that the history keeps."""


class LineInput:
    """Reads standard input. `commands` are what a line may begin with; `history` is a file, None for no history.

    A line that ends in a backslash goes on in the next one; everything between lines of three quotes is one question.
    """

    def __init__(self, commands: Sequence[str], history: Path | None = None) -> None:
        self.interactive = sys.stdin.isatty()
        self._edited = self.interactive and sys.stdout.isatty() and _edit_lines(commands, history)
        self._first = True

    def __iter__(self) -> Iterator[str]:
        """Every question. Ctrl-C in a terminal drops the one that is being typed."""
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="replace")
        while True:
            try:
                question = self._read_question()
            except EOFError:
                if self.interactive:
                    tell("")
                return
            except KeyboardInterrupt:
                if not self.interactive:
                    raise
                tell("")
            else:
                yield question

    def _read_question(self) -> str:
        line = self._read_line(_PROMPT)
        if line.strip() == _BLOCK:
            return "\n".join(self._read_block())
        lines = [line]
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1]
            try:
                lines.append(self._read_line(_MORE))
            except EOFError:
                break
        return "\n".join(lines)

    def _read_block(self) -> Iterator[str]:
        with contextlib.suppress(EOFError):
            while (line := self._read_line(_MORE)).strip() != _BLOCK:
                yield line

    def _read_line(self, prompt: str) -> str:
        """Read one line. Raises EOFError after the last."""
        if self._edited:
            return input(prompt)
        if self.interactive:
            print(prompt, end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        if self._first:
            line = line.removeprefix("\ufeff")  # editors of Windows begin a file with it
            self._first = False
        return line.removesuffix("\n").removesuffix("\r")


def _edit_lines(commands: Sequence[str], history: Path | None) -> bool:
    """Let readline edit the lines of this process, if there is one; say whether `input` is to read them."""
    with contextlib.suppress(ImportError):
        import readline

        readline.set_completer_delims(" \t\n")
        readline.set_completer(_make_completer(commands))
        libedit = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
        if history is not None:
            _keep_history(history)
    return True


def _keep_history(file: Path) -> None:
    import atexit
    import readline

    def write() -> None:
        with contextlib.suppress(OSError):
            readline.set_history_length(_MOST_LINES)
            readline.write_history_file(file)
            file.chmod(0o600)

    with contextlib.suppress(OSError):
        readline.read_history_file(file)
    atexit.register(write)


def _make_completer(commands: Sequence[str]) -> Callable[[str, int], str | None]:
    def complete(word: str, number: int) -> str | None:
        found = complete_word(word, commands)
        return found[number] if number < len(found) else None

    return complete


def complete_word(word: str, commands: Sequence[str]) -> list[str]:
    """What a word may become: a command, or the path of a file or folder (which ends in a slash)."""
    named = [f"{command} " for command in commands if word and command.startswith(word)]
    folder, beginning = os.path.split(os.path.expanduser(word))  # noqa: PTH111 - keeps the word as it is typed
    try:
        entries = sorted(os.scandir(folder or "."), key=lambda entry: entry.name) if word else []
    except OSError:
        entries = []
    typed = word[: len(word) - len(beginning)]
    found = [entry for entry in entries if entry.name.startswith(beginning)]
    return named + [f"{typed}{entry.name}{os.sep if entry.is_dir() else ''}" for entry in found]
