"""A Hugging Face hub on loopback: model metadata, resolve with redirects, ranges and ETags; and faults on demand.

Source of the protocol: what huggingface-hub sends and reads (hf_api.model_info, file_download).
"""

import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LFS_FROM = 1000
"""Files of at least this many bytes are kept as LFS files are: listed by SHA-256, served by redirect."""


@dataclass
class Fault:
    """What to do to the next `times` requests whose path contains `where`."""

    where: str
    times: int = 1
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut_at: float = 0.0
    """Close the connection after this share of the body."""
    page: bytes = b""
    """Answer with this instead."""
    corrupt: bool = False
    stall: bool = False
    slow_s: float = 0.0
    """Pause before every 64 KiB."""


class Hub:
    """Serves `repos`: {repo: {path: bytes}}. `sent` counts body bytes by path, `log` holds (method, path, range)."""

    def __init__(self, repos: dict[str, dict[str, bytes]]) -> None:
        self.repos, self.faults, self.token = repos, list[Fault](), ""
        self.commit = "c0ffee" + "0" * 34
        self.log: list[tuple[str, str, str]] = []
        self.sent: dict[str, int] = {}
        self.released = threading.Event()
        self._lock = threading.Lock()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub._serve(self)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, request: BaseHTTPRequestHandler) -> None:
        path, _, _ = request.path.partition("?")
        with self._lock:
            self.log.append((request.command, path, request.headers.get("Range", "")))
            fault = next((f for f in self.faults if f.where in path and f.times > 0), Fault(""))
            fault.times -= 1
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}" and "/cdn/" not in path:
            refused = {"X-Error-Code": "GatedRepo"} if self.token == "gated" else {}
            return _answer(
                request, 401 if not refused else 403, b"", {"X-Error-Message": "Invalid username", **refused}
            )
        if fault.status:
            return _answer(request, fault.status, b"", fault.headers)
        if fault.page:
            return _answer(request, 200, fault.page, {"Content-Type": "text/html"})
        if fault.stall:
            self.released.wait(60)
            return None
        if path.startswith("/api/models/"):
            return self._metadata(request, path.removeprefix("/api/models/"))
        if path.startswith("/cdn/"):
            _, _, repo, name = path.split("/", 3)
            return self._body(request, self.repos[repo.replace("--", "/")][name], name, fault)
        repo, _, rest = path.removeprefix("/").partition("/resolve/")
        _, _, name = rest.partition("/")
        if name not in self.repos.get(repo, {}):
            return _answer(
                request, 404, b"", {"X-Error-Code": "EntryNotFound" if repo in self.repos else "RepoNotFound"}
            )
        body = self.repos[repo][name]
        headers = {"X-Repo-Commit": self.commit}
        if len(body) < LFS_FROM:
            return self._body(request, body, name, fault, headers | {"ETag": f'"{git_blob(body)}"'})
        headers |= {"X-Linked-Etag": f'"{sha256(body)}"', "X-Linked-Size": str(len(body))}
        return _answer(request, 302, b"", headers | {"Location": f"{self.url}/cdn/{repo.replace('/', '--')}/{name}"})

    def _metadata(self, request: BaseHTTPRequestHandler, rest: str) -> None:
        repo, _, revision = rest.partition("/revision/")
        if repo not in self.repos:
            return _answer(request, 404, b"", {"X-Error-Code": "RepoNotFound"})
        if revision not in ("", "main", self.commit):
            return _answer(request, 404, b"", {"X-Error-Code": "RevisionNotFound"})
        siblings = []
        for name, body in self.repos[repo].items():
            entry: dict[str, object] = {"rfilename": name, "size": len(body), "blobId": git_blob(body)}
            if len(body) >= LFS_FROM:
                entry["lfs"] = {"size": len(body), "sha256": sha256(body), "pointerSize": 130}
            siblings.append(entry)
        answer = {"id": repo, "modelId": repo, "sha": self.commit, "siblings": siblings, "tags": [], "private": False}
        return _answer(request, 200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _body(
        self,
        request: BaseHTTPRequestHandler,
        body: bytes,
        name: str,
        fault: Fault,
        headers: dict[str, str] | None = None,
    ) -> None:
        if fault.corrupt:
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        start, status, extra = 0, 200, dict(headers or {})
        if asked := request.headers.get("Range"):
            start, status = int(asked.removeprefix("bytes=").rstrip("-")), 206
            extra["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        part = body[start:]
        request.send_response(status)
        for key, value in (extra | {"Content-Length": str(len(part)), "Accept-Ranges": "bytes"}).items():
            request.send_header(key, value)
        request.end_headers()
        if request.command == "HEAD":
            return
        stop = int(len(part) * fault.cut_at) if fault.cut_at else len(part)
        for at in range(0, stop, 1 << 16):
            if fault.slow_s:
                time.sleep(fault.slow_s)
            piece = part[at : min(at + (1 << 16), stop)]
            try:
                request.wfile.write(piece)
                request.wfile.flush()
            except OSError:
                break
            with self._lock:
                self.sent[name] = self.sent.get(name, 0) + len(piece)
        if fault.cut_at:
            request.close_connection = True


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def git_blob(body: bytes) -> str:
    return hashlib.sha1(f"blob {len(body)}\0".encode() + body).hexdigest()


def _answer(request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]) -> None:
    request.send_response(status)
    for key, value in (headers | {"Content-Length": str(len(body))}).items():
        request.send_header(key, value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)


def published(folder: Path, subfolder: str) -> dict[str, bytes]:
    """A model folder's files as a repository holds them, our own manifest left out."""
    files = [file for file in folder.iterdir() if file.name != "phi3v.json"]
    return {f"{subfolder}/{file.name}": file.read_bytes() for file in files}
