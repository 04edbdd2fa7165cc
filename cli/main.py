"""The command group and the one place where our errors become messages and exit codes."""

from __future__ import annotations

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
from .export import export
from .info import info
from .migrate import migrate
from .models import models
from .pull import pull
from .rm import rm
from .verify import verify
from .warm_command import warm

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 + SIGINT, as shells expect."""


class _ErrorEdge(click.Group):
    """Turns errors into messages and exit statuses.

    Phi3VError and OSError become a message on stderr and status 1, Ctrl-C becomes status 130, and a closed pipe ends
    the command silently.
    """

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
            ctx.exit(1)
        except OSError as exc:
            _drop_stdout()
            raise click.ClickException(f"{exc.filename}: {exc.strerror}" if exc.filename else str(exc)) from exc


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


for _command in (ask, chat, batch, warm, pull, models, verify, rm, info, doctor, export, migrate, bench):
    main.add_command(_command)
