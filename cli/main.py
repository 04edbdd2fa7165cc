"""The command group and the one place where our errors become messages and exit codes."""

from __future__ import annotations

import errno
import io
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import click

from phi3v import Phi3VError, __version__
from phi3v.errors import BuiltinModelWarning

from .ask import ask
from .batch.command import batch
from .bench.command import bench
from .chat import chat
from .doctor import doctor
from .exit_status import FAILED, INTERRUPTED
from .export import export
from .info import info
from .mcp.command import mcp_command
from .migrate import migrate
from .models import models
from .pull import pull
from .rm import rm
from .serve.command import serve_command
from .verify import verify
from .warm_command import warm

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class _ErrorEdge(click.Group):
    """Turns errors into messages and exit statuses.

    Phi3VError and OSError become a message on stderr and status 1, as does a lack of memory. Ctrl-C becomes status
    130, and a closed pipe ends the command silently.
    """

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program; also what is printed before a command begins, such as --help, may not fit on its disk."""
        try:
            return super().main(*args, **kwargs)
        except OSError as exc:
            _drop_stdout()
            click.echo(f"Error: {_describe_os_error(exc)}", err=True)
            sys.exit(FAILED)

    def invoke(self, ctx: click.Context) -> Any:
        _prepare_stdout()
        try:
            return super().invoke(ctx)
        except Phi3VError as exc:
            raise click.ClickException(str(exc)) from exc
        except KeyboardInterrupt:
            click.echo("\ninterrupted", err=True)
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:  # the reader of our stdout is gone
            _drop_stdout()
            ctx.exit(FAILED)
        except OSError as exc:
            _drop_stdout()
            raise click.ClickException(_describe_os_error(exc)) from exc
        except (MemoryError, ImportError, RuntimeError) as exc:
            if (reason := _describe_shortage(exc)) is None:
                raise
            raise click.ClickException(reason) from exc


def _describe_os_error(exc: OSError) -> str:
    if exc.filename:
        return f"{exc.filename}: {exc.strerror}"
    return f"standard output cannot be written ({exc.strerror})" if exc.errno in _DISK_ERRORS else str(exc)


def _describe_shortage(exc: Exception) -> str | None:
    """Say that there is too little memory, if an error means that; a library that does not fit fails to load."""
    limited = "close other programs, or raise the limit that `ulimit -v` shows"
    if isinstance(exc, MemoryError):
        return f"there is not enough memory; {limited}"
    if "start new thread" in str(exc):
        return f"no thread can be started; {limited}, or that of `ulimit -u`"
    if isinstance(exc, ImportError):
        reason = next((line for line in str(exc).splitlines() if "failed to map" in line or "allocate" in line), "")
        return f"a library does not fit into memory ({reason.strip()}); {limited}" if reason else None
    return None


def _prepare_stdout() -> None:
    """Let every answer be printed: characters that the terminal lacks become escapes; a closed stdout takes nothing."""
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _drop_stdout() -> None:
    """Keep Python from failing a second time at exit, where it flushes a stdout that takes nothing any more."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(cls=_ErrorEdge, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="phi3v")
def main() -> None:
    """Ask Phi-3-vision about images, locally, without PyTorch.

    Answers go to stdout, everything else to stderr.
    """
    warnings.simplefilter("ignore", BuiltinModelWarning)  # notices.py says it in other words


_COMMANDS = (
    ask, chat, batch, warm, serve_command, mcp_command, pull, models, verify, rm, info, doctor, export, migrate, bench
)  # fmt: skip
for _command in _COMMANDS:
    main.add_command(_command)
