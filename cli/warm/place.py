"""Where the sockets of this user's warm engines are, and who is at the other end of one.

They are in a folder that only the user may enter: $XDG_RUNTIME_DIR/phi3v, else phi3v-UID among the temporary files.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
from pathlib import Path

from phi3v.errors import WarmEngineError

_MAX_PATH = 100
"""A socket's path may have 104 to 108 bytes, the final zero included; it depends on the system."""


def supported() -> bool:
    """Return whether this system has what a warm engine needs."""
    return hasattr(socket, "AF_UNIX") and os.name == "posix"


def folder() -> Path:
    """Return the folder of the sockets, which need not exist."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and _is_mine(Path(runtime)):
        return Path(runtime) / "phi3v"
    return Path(os.environ.get("TMPDIR") or "/tmp") / f"phi3v-{os.geteuid()}"


def check_folder(*, create: bool = False) -> Path | None:
    """Return the folder; None if it does not exist. Raises WarmEngineError if others may enter it."""
    place = folder()
    try:
        if create:
            with contextlib.suppress(FileExistsError):
                place.mkdir(mode=0o700)
        status = place.lstat()
    except FileNotFoundError as exc:
        if create:
            raise WarmEngineError(f"{place} cannot be made ({exc.strerror}); set XDG_RUNTIME_DIR or TMPDIR") from exc
        return None
    except OSError as exc:
        raise WarmEngineError(f"{place}: {exc.strerror}; set XDG_RUNTIME_DIR to a folder of your own") from exc
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise WarmEngineError(
            f"{place} is not a folder of yours alone (mode 0700), so no warm engine is looked for there; "
            "remove it, or set XDG_RUNTIME_DIR to a folder of your own"
        )
    return place


def socket_path(pid: int) -> Path:
    """Return the socket of the engine in a process. Raises WarmEngineError if its path is too long for a socket."""
    path = folder() / f"engine-{pid}.sock"
    if len(os.fsencode(path)) > _MAX_PATH:
        raise WarmEngineError(f"{path} is too long for a socket; set XDG_RUNTIME_DIR to a shorter folder of your own")
    return path


def sockets() -> list[Path]:
    """Return all sockets, dead ones included. Raises WarmEngineError as `check_folder` does."""
    place = check_folder()
    return sorted(place.glob("engine-*.sock")) if place is not None else []


def any_socket() -> bool:
    """Return whether there is any socket. This is cheap, and saves `phi3v ask` all other work when there is none."""
    return supported() and any(folder().glob("engine-*.sock"))


def same_user(connection: socket.socket) -> bool:
    """Return whether the kernel says that the other end is this user's; True on systems that do not say."""
    peer = _peer(connection)
    return peer is None or peer[1] == os.geteuid()


def _peer(connection: socket.socket) -> tuple[int, int, int] | None:
    """Return process, user and group at the other end (Linux)."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    size = struct.calcsize("3i")
    pid, uid, gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return pid, uid, gid


def _is_mine(place: Path) -> bool:
    try:
        return place.stat().st_uid == os.geteuid()
    except OSError:
        return False
