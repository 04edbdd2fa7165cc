"""The command group and the one place where our errors become messages and exit codes."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from phi3v import Phi3VError, __version__

from .ask import ask
from .bench import bench
from .doctor import doctor
from .export import export
from .info import info
from .models import migrate, models, rm, verify
from .pull import pull

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 + SIGINT, as shells expect."""


class _ErrorEdge(click.Group):
    """Turns Phi3VError into a message on stderr and status 1, Ctrl-C into status 130, a closed pipe into silence."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Phi3VError as exc:
            raise click.ClickException(str(exc)) from exc
        except KeyboardInterrupt:
            click.echo("\ninterrupted", err=True)
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            # The reader of our stdout is gone; keep Python from complaining while it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(1)


@click.group(cls=_ErrorEdge, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="phi3v")
def main() -> None:
    """Ask Phi-3-vision about pictures, locally, without PyTorch.

    Answers go to stdout, everything else to stderr.
    """


for _command in (ask, pull, models, verify, rm, info, doctor, export, migrate, bench):
    main.add_command(_command)
