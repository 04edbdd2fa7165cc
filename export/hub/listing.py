"""The Hugging Face hub: what a repository holds, when to try again, and what its refusals mean.

huggingface-hub brings the endpoint, the token and the HTTP client; `httpx` is the one it was built on, by the name
under which it exports it.
"""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from ...errors import DiskSpaceError, ModelFetchError
from ...machine.telemetry import telemetry_wanted
from ...models.checksum import Checksum
from .client import HfApi, RepoSibling, constants, errors, httpx
from .environment import describe_settings

ATTEMPTS = 5
"""Tries without progress before giving up; a try that brings bytes starts the count again."""

if not telemetry_wanted():
    # Otherwise every request names the packages and tools of this machine, and an extra one asks which to look for.
    constants.HF_HUB_DISABLE_TELEMETRY = True

FIRST_WAIT_S = 1.0
"""Pause after the first failed try; doubled after each further one."""

_LONGEST_WAIT_S, _LONGEST_ASKED_WAIT_S = 8.0, 60.0
_RETRY_STATUS = (408, 429, 500, 502, 503, 504)
_HEX = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a repository as the hub lists it. `sha256` is None for a small file kept in git itself."""

    path: str
    size: int
    git_blob: str
    sha256: str | None

    @property
    def etag(self) -> str:
        """Its name among the cache's blobs."""
        return self.sha256 or self.git_blob

    @property
    def name(self) -> str:
        """File name without its folders."""
        return self.path.rpartition("/")[2]

    @property
    def git_size(self) -> int | None:
        """What a Checksum must be given to be compared with this file."""
        return self.size if self.sha256 is None else None

    def matches(self, checksum: Checksum) -> bool:
        """Whether bytes with this checksum are this file."""
        found = checksum.git_blob if self.sha256 is None else checksum.sha256
        return checksum.fed == self.size and found == self.etag


@dataclass(frozen=True, slots=True)
class Listing:
    """A repository's files at one commit."""

    repo: str
    commit: str
    files: tuple[HubFile, ...]


def list_files(repo: str, revision: str, subfolder: str) -> Listing:
    """Ask for the files in `subfolder` at the commit that `revision` names now. Raises ModelFetchError."""
    with explained(repo, revision):
        info = _retry(lambda: HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=timeout_s()))
    if info.sha is None:
        raise ModelFetchError(f"{constants.ENDPOINT} names no commit for {repo}: it is not a Hugging Face hub")
    files = [_hub_file(entry) for entry in info.siblings or () if _is_in(entry.rfilename, subfolder)]
    listing = Listing(repo, info.sha, tuple(files))
    if not all(_HEX.fullmatch(name) for name in (listing.commit, *(file.etag for file in files))):
        raise ModelFetchError(
            f"{constants.ENDPOINT} lists files of {repo} without hashes: it is not a Hugging Face hub"
        )
    return listing


def _is_in(path: str, subfolder: str) -> bool:
    """Whether a path names a file directly in the subfolder, on any system."""
    folder, _, name = path.rpartition("/")
    return folder == subfolder and name not in ("", ".", "..") and "\\" not in name


def _hub_file(entry: RepoSibling) -> HubFile:
    sha256, size = (entry.lfs.sha256, entry.lfs.size) if entry.lfs else (None, entry.size)
    return HubFile(entry.rfilename, size or 0, entry.blob_id or "", sha256)


def _retry(call: Callable[[], T]) -> T:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return call()
        except (httpx.TransportError, errors.HfHubHTTPError) as exc:
            pause(attempt, exc)
    raise AssertionError("the last wait raises")


def pause(attempts: int, failure: Exception | None) -> None:
    """Pause before the next try. Raises the failure when it is final or no try is left."""
    asked = 0.0
    if isinstance(failure, errors.HfHubHTTPError):
        if failure.response.status_code not in _RETRY_STATUS:
            raise failure
        after = failure.response.headers.get("Retry-After", "")
        asked = float(after) if after.isdigit() else 0.0
    if attempts >= ATTEMPTS or asked > _LONGEST_ASKED_WAIT_S:
        raise failure or ModelFetchError("the server keeps closing the connection without sending anything")
    if attempts:
        time.sleep(max(asked, min(FIRST_WAIT_S * 2 ** (attempts - 1), _LONGEST_WAIT_S)))


def timeout_s() -> float:
    """The longest wait for a connection and for each piece of an answer: HF_HUB_DOWNLOAD_TIMEOUT, else ten seconds."""
    return float(constants.HF_HUB_DOWNLOAD_TIMEOUT)


@contextmanager
def explained(repo: str, revision: str, path: str = "") -> Iterator[None]:
    """Turn what can go wrong between us and the hub into an error that says what to do."""
    what = f"{constants.ENDPOINT}/{repo}" + (f", {path}" if path else "")
    again = "what was fetched so far is kept: run the same command again to continue"
    try:
        yield
    except errors.OfflineModeIsEnabled as exc:
        raise ModelFetchError(f"{what} is not on this machine and HF_HUB_OFFLINE is set; unset it") from exc
    except errors.GatedRepoError as exc:
        raise ModelFetchError(
            f"{what} is gated: accept its terms at {constants.ENDPOINT}/{repo}, then `hf auth login` "
            "(or set HF_TOKEN) and run the same command again"
        ) from exc
    except errors.RevisionNotFoundError as exc:
        raise ModelFetchError(f"{what} has no revision {revision!r}; leave --revision out for the newest") from exc
    except errors.RemoteEntryNotFoundError as exc:
        raise ModelFetchError(f"{what} is gone from the hub; {again}, or pin a --revision that has it") from exc
    except errors.HfHubHTTPError as exc:
        raise ModelFetchError(f"{what}: {_status_remedy(exc, again)}") from exc
    except httpx.TimeoutException as exc:
        raise ModelFetchError(f"{what}: no answer within {timeout_s():g} s, {ATTEMPTS} times; {again}") from exc
    except httpx.HTTPError as exc:
        raise ModelFetchError(
            f"{what} cannot be reached ({exc}); check the network, a proxy (HTTPS_PROXY) or a mirror (HF_ENDPOINT); "
            f"{again}"
        ) from exc
    except ValueError as exc:
        raise ModelFetchError(f"{constants.ENDPOINT} does not answer like a hub ({exc}); check HF_ENDPOINT") from exc
    except PermissionError as exc:
        raise ModelFetchError(
            f"{exc.filename or constants.HF_HUB_CACHE} cannot be written; set HF_HOME to a folder of yours"
        ) from exc
    except (RuntimeError, ImportError) as exc:  # the HTTP client, of what it read in the environment
        raise ModelFetchError(f"{what}: the HTTP client does not start ({exc}); {describe_settings()}") from exc
    except OSError as exc:
        if exc.errno in (errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise ModelFetchError(
                f"{exc.filename or constants.HF_HUB_CACHE} cannot be written ({exc.strerror}); set HF_HOME to a folder "
                "of yours"
            ) from exc
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskSpaceError(f"the disk of {constants.HF_HUB_CACHE} is full; free some space; {again}") from exc
        raise


def _status_remedy(exc: errors.HfHubHTTPError, again: str) -> str:
    status = exc.response.status_code
    if status == 401 and not isinstance(exc, errors.RepositoryNotFoundError):
        return "the hub refuses the token (401); `hf auth login` again, or unset HF_TOKEN: public models need none"
    if isinstance(exc, errors.RepositoryNotFoundError) or status in (401, 404):
        return (
            f"no such repository, or a private one and no token ({status}); check HF_ENDPOINT, and `hf auth login` "
            "if it is private"
        )
    if status == 403:
        return "the hub forbids it to this token (403); check the token's permissions (`hf auth whoami`)"
    if status == 429:
        return f"too many requests (429), also after {ATTEMPTS} tries; wait some minutes; {again}"
    return f"the hub answers {status}, also after {ATTEMPTS} tries; wait some minutes; {again}"
