"""The process that holds the model: it answers one request after the other, and can be cancelled between tokens."""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, cast

from phi3v import Phi3VError
from phi3v.machine.child_process import die_with

from ..image_check import check_images
from .frames import FrameError, Message, receive, send
from .wire import error_message, model_message, read_request, result_message

if TYPE_CHECKING:
    from phi3v import Engine, GenerationRequest
    from phi3v.machine.device_table import DeviceName


def main() -> None:
    """Run the worker. Arguments: descriptor of the socket to the server, its process id, model folder, device."""
    descriptor, server, model, device = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches the server too, which ends this process
    die_with(int(server))
    gone = contextlib.suppress(FrameError, BrokenPipeError, ConnectionResetError)
    with socket.socket(fileno=int(descriptor)) as channel, gone:
        _serve(channel, model, cast("DeviceName", device))


def _serve(channel: socket.socket, model: str, device: DeviceName) -> None:
    import phi3v

    began = time.perf_counter()
    try:
        engine = phi3v.load(model, device)
    except Phi3VError as exc:
        send(channel, error_message(exc))
        return
    with engine:
        facts = {"model": model_message(engine.model), "device": engine.device}
        send(channel, {"event": "ready", "load_s": time.perf_counter() - began, **facts})
        while True:
            _answer(engine, channel, *receive(channel))


def _answer(engine: Engine, channel: socket.socket, message: Message, data: bytes) -> None:
    """Answer one request: its tokens, then one frame that ends it. A cancellation that comes too late is ignored."""
    if message["op"] == "cancel":
        return
    try:
        request = read_request(message["request"], data)
        check_images(request.images)
        send(channel, {"event": "begun"})
        send(channel, _generate(engine, channel, request))
    except Phi3VError as exc:
        send(channel, error_message(exc))


# A second question about the same images could reuse their prefilled prefix: keep `engine.session` of the last request
# here, under the digest of its images and num_crops, and take its stream instead of a fresh one.
def _generate(engine: Engine, channel: socket.socket, request: GenerationRequest) -> Message:
    with engine.stream_request(request) as stream:
        for token in stream:
            send(channel, {"event": "token", "id": token.id, "text": token.text})
            if select.select([channel], [], [], 0)[0]:  # a cancellation, or the end of the server
                receive(channel)
                stream.cancel()
        return {"event": "result", "result": result_message(stream.result)}


if __name__ == "__main__":
    main()
