"""The loop behind `phi3v chat`: lines in, answers out. A mistake is refused, and the loop goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from phi3v.models.near_miss import suggest

from .chat_state import history_file, save_conversation
from .image_check import check_images
from .interrupts import Interrupt
from .line_input import LineInput
from .notices import report_result, tell
from .output import write
from .transcript import save

if TYPE_CHECKING:
    from phi3v import GenerationRequest, GenerationResult, Session, TokenStream

_HELP = """\
/image PATH   show another image (path or URL) with the next question; the model then reads all of them again
/reset        forget the conversation; the images on the command line stay
/save FILE    write the conversation to FILE, as Markdown or JSON by its suffix (.md, .json)
/help         print this help
/quit         end the chat; so does Ctrl-D
A line that ends in a backslash goes on in the next one; everything between two lines of three quotes is one question.
Ctrl-C ends an answer; while the model still reads images and prompt, a second one ends the program.
To ask a question that begins with a slash, start the line with a space."""


class Repl:
    """One conversation on standard input and output.

    Every question takes its options from `opening`. `format_answer` gets a question and its finished answer, and what
    it returns is printed in place of the text as it comes. `keeps`: lines and conversation are kept for the next run.
    """

    def __init__(
        self,
        session: Session,
        model: str,
        opening: GenerationRequest,
        format_answer: Callable[[str, GenerationResult], str] | None = None,
        *,
        keeps: bool = False,
    ) -> None:
        self._format_answer = format_answer
        self._session = session
        self._model = model
        self._opening = opening
        self._images: list[str] = []
        self._saved: set[Path] = set()
        self._failed = False
        self._commands: dict[str, Callable[[str], None]] = {
            "/image": self._add_image,
            "/reset": self._reset,
            "/save": self._save,
            "/help": lambda _: tell(_HELP),
        }
        self._keeps = keeps
        self._lines = LineInput((*self._commands, "/quit"), history_file() if keeps else None)
        self._interactive = self._lines.interactive

    def show_next(self, images: Sequence[str]) -> None:
        """Show more images with the next question."""
        self._images.extend(images)

    def run(self) -> bool:
        """Take turns until the lines end. Return whether a turn failed that came from a script."""
        if self._interactive:
            tell("Type a question; /help lists what else there is.")
        for line in self._lines:
            if line.strip() == "/quit":
                break
            self._take_turn(line)
        return self._failed and not self._interactive

    def _take_turn(self, line: str) -> None:
        from phi3v import Phi3VError
        from phi3v.errors import ContextLengthError

        try:
            if line.startswith("/"):
                self._run_command(line)
            elif line.strip():
                self._answer(line.strip())
        except Phi3VError as exc:
            hint = "; /reset starts over" if isinstance(exc, ContextLengthError) and self._session.history else ""
            self._refuse(f"{exc}{hint}")
        except KeyboardInterrupt:
            if not self._interactive:
                raise
            tell("interrupted")

    def _run_command(self, line: str) -> None:
        name, _, rest = line.strip().partition(" ")
        command = self._commands.get(name)
        if command is None:
            self._refuse(f"{name} is not a command{suggest(name, (*self._commands, '/quit'))}; /help lists them")
        else:
            command(rest.strip())

    def _answer(self, prompt: str) -> None:
        from phi3v.errors import ImageError

        turns = len(self._session.history)
        request = replace(self._opening, prompt=prompt, images=self._images)
        try:
            with (
                Interrupt(ends_program=not self._interactive) as interrupt,
                self._session.stream_request(request, chat=True) as stream,
            ):
                self._print(stream, interrupt)
        except ImageError:
            self._images.clear()  # else no later question would be answered
            raise
        result = stream.result
        if self._format_answer is not None:
            write(self._format_answer(prompt, result) + "\n")
        report_result(result)
        if self._keeps:
            save_conversation(self._model, self._session.history)
        if len(self._session.history) > turns:
            self._images.clear()
        used, length = self._session.context_used, self._session.context_length
        ended = "interrupted; " if result.finish_reason == "cancelled" else ""
        rate = f", {result.timings.tokens_per_s:.1f} tokens/s" if result.timings.decode_tokens else ""
        tell(f"[{ended}context {used} of {length} tokens, {100 * used / length:.0f} %{rate}]")

    def _print(self, stream: TokenStream, interrupt: Interrupt) -> None:
        printed = ""
        if interrupt.heard:
            stream.cancel()
        for token in stream:
            interrupt.answering()
            self._show(token.text)
            printed += token.text
            if interrupt.heard:
                stream.cancel()
        self._show(stream.result.text[len(printed) :] + "\n")

    def _show(self, text: str) -> None:
        if self._format_answer is None:
            write(text)

    def _add_image(self, path: str) -> None:
        if not path:
            self._refuse("/image takes a path or URL: /image photo.jpg")
            return
        if len(path) > 1 and path[0] == path[-1] and path[0] in "'\"":
            path = path[1:-1]  # terminals quote a file that is dropped on them
        try:
            if path.startswith("~"):
                path = str(Path(path).expanduser())
            check_images([path])
        except (OSError, ValueError, RuntimeError) as exc:  # RuntimeError: ~name of nobody
            self._refuse(str(exc))
            return
        self._images.append(path)
        tell(f"{path} will be shown with the next question")

    def _reset(self, _: str) -> None:
        self._session.reset()
        self._images.clear()
        tell("a new conversation")

    def _save(self, name: str) -> None:
        try:
            path = Path(name).expanduser()
            if path.suffix not in (".md", ".json"):
                self._refuse("/save takes a file name that ends in .md or .json: /save talk.md")
            elif path.exists() and path.resolve() not in self._saved:
                self._refuse(f"{path} already exists; give another name")
            else:
                save(path, self._model, self._session.history)
                self._saved.add(path.resolve())
                tell(f"{path}: {len(self._session.history)} turns")
        except (OSError, ValueError, RuntimeError) as exc:
            self._refuse(f"{name}: {getattr(exc, 'strerror', None) or exc}")

    def _refuse(self, message: str) -> None:
        self._failed = True
        click.echo(f"Error: {message}", err=True)
