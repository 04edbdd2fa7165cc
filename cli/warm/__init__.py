"""A warm engine: a loaded model in a process of its own, which `phi3v ask` finds through a Unix socket.

    client.py  <- frames over engine-PID.sock ->  server.py  <- frames over a socket pair ->  worker.py

The worker holds the model and computes. While it prefills, genai holds the interpreter, so the worker can answer
nobody. Whatever must be answered at once (accepting, queueing, cancelling, ending) is therefore done by the server,
which computes nothing.

Nothing here prints or knows click: cli/answering.py and cli/warm_command.py do that.
"""
