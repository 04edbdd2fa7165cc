"""The process that holds a model: requests come in on standard input, and events go out on standard output."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, BinaryIO

from ..errors import InferenceError, OptionError, Phi3VError
from ..machine.child_process import die_with
from .messages import Cancel, Ended, Load, Ready, Sealed, read_message, write_message

if TYPE_CHECKING:
    from .scheduler import Scheduler


def main() -> None:
    """Load the model that the first message names, then answer requests until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that was started by a person
    events = _take_standard_output()
    load_message: Load = read_message(sys.stdin.buffer)
    die_with(load_message.parent)
    inbox: SimpleQueue[Sealed | Cancel] = SimpleQueue()
    try:
        _run(load_message, inbox, events)
    except BrokenPipeError:
        os._exit(0)  # nobody is there any more


def _take_standard_output() -> BinaryIO:
    """The pipe to the other process; what libraries print goes to standard error from now on."""
    ours = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(ours, "wb")


def _run(wanted: Load, inbox: SimpleQueue[Sealed | Cancel], events: BinaryIO) -> None:
    from ..genai.backend import GenaiBackend
    from ..machine.device import choose_device, select_device
    from ..models.folder import ModelDir
    from .scheduler import Scheduler

    began = time.perf_counter()
    try:
        select_device(wanted.device)
        folder = ModelDir.open(wanted.model)
        backend = GenaiBackend(folder, choose_device(wanted.device, folder), **wanted.options)
        scheduler = Scheduler(
            backend,
            lambda event: write_message(events, event),
            batch_size=wanted.batch_size,
            max_memory=wanted.max_memory,
        )
    except Phi3VError as exc:
        write_message(events, exc)
        return
    write_message(events, Ready(backend.device, time.perf_counter() - began))
    threading.Thread(target=_receive, args=(inbox,), daemon=True).start()
    while True:
        _take_messages(scheduler, inbox, events)
        scheduler.work()


def _receive(inbox: SimpleQueue[Sealed | Cancel]) -> None:
    """Fill the inbox; end this process with the other one."""
    while True:
        try:
            inbox.put(read_message(sys.stdin.buffer))
        except EOFError:
            os._exit(0)


def _take_messages(scheduler: Scheduler, inbox: SimpleQueue[Sealed | Cancel], events: BinaryIO) -> None:
    """Take all messages that are there; wait for one if there is nothing else to do."""
    try:
        while True:
            message = inbox.get(block=not scheduler.busy)
            if isinstance(message, Cancel):
                scheduler.cancel(message.number)
            else:
                _submit(scheduler, message, events)
    except Empty:
        pass


def _submit(scheduler: Scheduler, sealed: Sealed, events: BinaryIO) -> None:
    from .scheduler import Job

    try:
        ask = sealed.open()
    except InferenceError as exc:
        write_message(events, Ended(sealed.number, None, exc))
        return
    prepared = ask.prepared
    if ask.crops is not None:
        try:
            pixels = ask.crops.open()
        except OSError:
            return  # cancelled meanwhile: its crops are gone
        prepared = replace(prepared, inputs=replace(prepared.inputs, pixel_values=pixels))
    try:
        scheduler.submit(Job(ask.number, prepared, ask.batch_size, ask.max_memory))
    except OptionError as exc:
        write_message(events, Ended(ask.number, None, exc))


if __name__ == "__main__":
    main()
