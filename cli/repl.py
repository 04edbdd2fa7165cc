"""The loop behind `phi3v chat`: lines in, answers out; nothing that is typed ends it but /quit and Ctrl-D."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .ask import write
from .interrupts import Interrupt
from .transcript import save

if TYPE_CHECKING:
    from phi3v import GenerationResult, Session, TokenStream

_PROMPT = "> "
_HELP = """\
/image PATH   show another picture (path or URL) with the next question; the model then reads all of them again
/reset        forget the conversation; the pictures on the command line stay
/save FILE    write the conversation to FILE, Markdown or JSON by its suffix (.md, .json)
/help         this
/quit         leave; so does Ctrl-D
Ctrl-C ends an answer; while the model still reads pictures and prompt, a second one ends the program.
A question that begins with a slash: put a blank in front."""


class Repl:
    """One conversation on standard input and output."""

    def __init__(self, session: Session, model: str, answering: dict[str, Any]) -> None:
        self.on_answer: Callable[[str, GenerationResult], str] | None = None
        """What to print of a finished answer in place of its text as it comes."""
        self._session = session
        self._model = model
        self._answering = answering
        self._interactive = sys.stdin.isatty()
        self._pictures: list[str] = []
        self._saved: set[Path] = set()
        self._failed = False
        self._commands: dict[str, Callable[[str], None]] = {
            "/image": self._image,
            "/reset": self._reset,
            "/save": self._save,
            "/help": lambda _: _say(_HELP),
        }

    def run(self) -> bool:
        """Take turns until the lines end; whether one failed that came from a script."""
        if self._interactive:
            _say("Type a question; /help lists what else there is.")
        for line in _lines(self._interactive):
            if line.strip() == "/quit":
                break
            self._turn(line)
        return self._failed and not self._interactive

    def _turn(self, line: str) -> None:
        from phi3v import Phi3VError
        from phi3v.errors import ContextLengthError

        try:
            if line.startswith("/"):
                self._command(line)
            elif line.strip():
                self._answer(line.strip())
        except Phi3VError as exc:
            hint = "; /reset starts over" if isinstance(exc, ContextLengthError) and self._session.history else ""
            self._refuse(f"{exc}{hint}")
        except KeyboardInterrupt:
            if not self._interactive:
                raise
            _say("interrupted")

    def _command(self, line: str) -> None:
        name, _, rest = line.strip().partition(" ")
        command = self._commands.get(name)
        if command is None:
            self._refuse(f"{name} is no command; /help lists them")
        else:
            command(rest.strip())

    def _answer(self, prompt: str) -> None:
        from phi3v.errors import ImageError

        turns = len(self._session.history)
        try:
            with (
                Interrupt(ends_program=not self._interactive) as interrupt,
                self._session.chat_stream(prompt, self._pictures, **self._answering) as stream,
            ):
                self._print(stream, interrupt)
        except ImageError:
            self._pictures.clear()  # else no later question would be answered
            raise
        result = stream.result
        if self.on_answer is not None:
            write(self.on_answer(prompt, result) + "\n")
        if len(self._session.history) > turns:
            self._pictures.clear()
        used, length = self._session.context_used, self._session.context_length
        ended = "interrupted; " if result.finish_reason == "cancelled" else ""
        rate = f", {result.timings.tokens_per_s:.1f} tokens/s" if result.timings.decode_tokens else ""
        _say(f"[{ended}context {used} of {length} tokens, {100 * used / length:.0f} %{rate}]")

    def _print(self, stream: TokenStream, interrupt: Interrupt) -> None:
        printed = ""
        if interrupt.heard:
            stream.cancel()
        for token in stream:
            interrupt.answering()
            printed += self._show(token.text)
            if interrupt.heard:
                stream.cancel()
        self._show(stream.result.text[len(printed) :] + "\n")

    def _show(self, text: str) -> str:
        if self.on_answer is None:
            write(text)
        return text

    def _image(self, path: str) -> None:
        from phi3v.images.load import check_image

        if not path:
            self._refuse("/image takes a path or URL: /image photo.jpg")
            return
        if len(path) > 1 and path[0] == path[-1] and path[0] in "'\"":
            path = path[1:-1]  # as terminals write a file that is dropped on them
        try:
            if path.startswith("~"):
                path = str(Path(path).expanduser())
            check_image(path)
        except (OSError, ValueError, RuntimeError) as exc:  # a home, a name or a folder that cannot be
            self._refuse(str(exc))
            return
        self._pictures.append(path)
        _say(f"{path} goes with the next question")

    def _reset(self, _: str) -> None:
        self._session.reset()
        self._pictures.clear()
        _say("a new conversation")

    def _save(self, name: str) -> None:
        try:
            path = Path(name).expanduser()
            if path.suffix not in (".md", ".json"):
                self._refuse("/save takes a file name that ends in .md or .json: /save talk.md")
            elif path.exists() and path.resolve() not in self._saved:
                self._refuse(f"{path} is there already; give another name")
            else:
                save(path, self._model, self._session.history)
                self._saved.add(path.resolve())
                _say(f"{path}: {len(self._session.history)} turns")
        except (OSError, ValueError, RuntimeError) as exc:
            self._refuse(f"{name}: {getattr(exc, 'strerror', None) or exc}")

    def _refuse(self, message: str) -> None:
        self._failed = True
        click.echo(f"Error: {message}", err=True)


def _say(message: str) -> None:
    click.echo(message, err=True)


def _lines(interactive: bool) -> Iterator[str]:
    """Lines of standard input as they are typed; Ctrl-C drops what stands in the line."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    while True:
        try:
            line = _read_line(interactive)
        except EOFError:
            if interactive:
                _say("")
            return
        except KeyboardInterrupt:
            if not interactive:
                raise
            _say("")
        else:
            yield line


def _read_line(interactive: bool) -> str:
    """One line, edited by readline where both ends are a terminal. Raises EOFError after the last."""
    if interactive and sys.stdout.isatty():
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  input() uses it: editing, and the arrow keys bring back earlier lines
        return input(_PROMPT)
    if interactive:
        click.echo(_PROMPT, nl=False, err=True)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.removesuffix("\n")
