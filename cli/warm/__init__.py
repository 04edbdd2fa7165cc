"""A warm engine: a loaded model in a process of its own, which `phi3v ask` finds through a Unix socket.

    client.py  <- frames over engine-PID.sock ->  server.py  <- frames over a socket pair ->  worker.py

The worker holds the model and computes; genai holds the interpreter of its process through a whole prefill, so
whatever must answer at once (accepting, queueing, cancelling, ending) is the server's, which computes nothing.
"""
