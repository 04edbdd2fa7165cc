"""What a command's exit status means; docs/usage.md has the table. One number means the same in all commands."""

from __future__ import annotations

FAILED = 1
"""Nothing was answered, or what was asked for could not be done; the reason is on stderr."""

USAGE = 2
"""The command line, or a file of questions that it names, is wrong. click's own status for it."""

SOME_FAILED = 3
"""Some rows of a job were answered, and some failed."""

INTERRUPTED = 130
"""Ctrl-C: 128 + SIGINT, as shells expect."""
