"""One repository's folder in the Hugging Face cache, in the hub's own layout, so that its tools find what we fetch.

blobs/ETAG holds the bytes, snapshots/COMMIT/FILE links to a blob, refs/REVISION names a commit.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from .client import WeakFileLock
from .listing import HubFile


class RepoCache:
    """One repository's folder in the hub's cache."""

    def __init__(self, cache: Path, repo: str) -> None:
        self.repo = repo
        self.root = cache / f"models--{repo.replace('/', '--')}"
        self._lock = cache / ".locks" / self.root.name / "phi3v-pull.lock"

    def lock(self, *, timeout: float | None = None) -> AbstractContextManager[object]:
        """One pull or removal at a time. Waits for ever, or raises filelock.Timeout after `timeout` seconds."""
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        return WeakFileLock(self._lock, timeout=timeout)

    def blob(self, file: HubFile) -> Path:
        """Where a complete file's bytes lie."""
        return self.root / "blobs" / file.etag

    def partial(self, file: HubFile) -> Path:
        """Where an incomplete file's bytes lie."""
        return self.root / "blobs" / f"{file.etag}.phi3v.incomplete"

    def pointer(self, file: HubFile, commit: str) -> Path:
        """Where the file appears under its own name: a link to the blob."""
        return self.root / "snapshots" / commit / file.path

    def bytes_missing(self, file: HubFile) -> int:
        """Bytes still to fetch, judged by sizes alone."""
        blob, partial = self.blob(file), self.partial(file)
        if blob.is_file() and blob.stat().st_size == file.size:
            return 0
        return file.size - min(partial.stat().st_size if partial.is_file() else 0, file.size)

    def reclaim(self, file: HubFile, commit: str) -> None:
        """Move the bytes back among the blobs where the snapshot holds them, as it does on systems without links."""
        pointer, blob = self.pointer(file, commit), self.blob(file)
        if pointer.is_file() and not pointer.is_symlink() and not blob.exists():
            blob.parent.mkdir(parents=True, exist_ok=True)
            pointer.replace(blob)

    def link(self, file: HubFile, commit: str) -> None:
        """Make a complete blob appear in the snapshot."""
        pointer, blob = self.pointer(file, commit), self.blob(file)
        if pointer.exists() and pointer.resolve() == blob.resolve():
            return
        pointer.parent.mkdir(parents=True, exist_ok=True)
        pointer.unlink(missing_ok=True)
        target = Path(*[".."] * (len(pointer.relative_to(self.root).parts) - 1), "blobs", file.etag)
        try:
            pointer.symlink_to(target)
        except OSError:
            # Links do not work (Windows without developer mode), so the snapshot holds the file, as the hub's tools do.
            blob.replace(pointer)

    def write_ref(self, revision: str, commit: str) -> None:
        """Note which commit a branch or tag stood for, so that the hub's own tools find the snapshot offline."""
        if revision != commit:
            ref = self.root / "refs" / revision
            ref.parent.mkdir(parents=True, exist_ok=True)
            ref.write_text(commit, encoding="ascii")
