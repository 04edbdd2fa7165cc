"""Fetches a published build; afterwards the model on this machine is complete, or not there at all.

The bytes lie in the Hugging Face cache. The folder becomes a model when its manifest is written, after every file was
verified; a pull that ends early leaves only pieces, from which the next one continues.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from filelock import Timeout

from ...errors import DiskSpaceError, MissingDependencyError, ModelFetchError, ModelNotFoundError
from ...models.folder import ModelDir
from ...models.local import LocalModel, find_local, hub_cache
from ...models.manifest import Manifest, Origin, remove_manifest
from ..progress import Meter, Progress
from .cache import RepoCache
from .catalog import PublishedBuild
from .client import constants
from .listing import Listing, explained, list_files
from .transfer import fetch

MIGRATED = "phi3v"
"""Folder inside an old-layout build's folder that holds the migrated model."""

_SPARE_BYTES = 64 << 20
_log = logging.getLogger("phi3v")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a pull would do: the files, the bytes missing of each, where they go, and the free bytes on that disk."""

    build: PublishedBuild
    listing: Listing
    cache: RepoCache
    missing: dict[str, int]
    free_bytes: int

    @property
    def folder(self) -> Path:
        """Where the published files will lie side by side."""
        return self.cache.root / "snapshots" / self.listing.commit / self.build.subfolder

    @property
    def missing_bytes(self) -> int:
        """Bytes to fetch."""
        return sum(self.missing.values())


@dataclass(frozen=True, slots=True)
class Pulled:
    """A model that is on this machine now; `state` says whether something had to be fetched."""

    model: LocalModel
    state: Literal["fetched", "current", "kept"]


def plan_pull(build: PublishedBuild, revision: str | None = None) -> Plan:
    """Ask the hub what the build holds now. Raises ModelFetchError, also when a file of the catalogue's is gone."""
    listing = list_files(build.repo, revision or build.revision, build.subfolder)
    gone = sorted(set(build.files) - {file.name for file in listing.files})
    if gone:
        raise ModelFetchError(
            f"{build.repo} at {listing.commit} lacks {', '.join(gone)} in {build.subfolder}: the published build has "
            "changed; pin an older --revision, or report it"
        )
    cache = RepoCache(hub_cache(), build.repo)
    missing = {file.path: cache.bytes_missing(file) for file in listing.files}
    return Plan(build, listing, cache, missing, shutil.disk_usage(_existing(cache.root)).free)


def pull(
    build: PublishedBuild,
    *,
    revision: str | None = None,
    offline: bool = False,
    progress: Progress | None = None,
) -> Pulled:
    """Make the build a model on this machine; fetch what is missing or damaged, and nothing else.

    `offline` opens no socket. Raises ModelFetchError, DiskSpaceError, ModelNotFoundError (offline and not here) or
    MissingDependencyError (a build in the old layout needs onnx).
    """
    if build.old_layout:
        _check_can_migrate()
    wanted = revision or build.revision
    local = [model for model in find_local(build.full_name) if wanted in (model.revision, model.commit)]
    intact = next((model for model in local if is_intact(model)), None)
    if offline or constants.HF_HUB_OFFLINE:
        if intact is None:
            raise ModelNotFoundError(_offline_message(build, local))
        return Pulled(intact, "kept")
    try:
        plan = plan_pull(build, wanted)
    except ModelFetchError as exc:
        if intact is None:
            raise
        _log.warning("the hub could not be asked for a newer build (%s); the one on this machine is complete", exc)
        return Pulled(intact, "kept")
    with explained(build.repo, wanted), _locked(plan.cache):
        # Another pull may have finished while this one waited for the lock.
        for model in find_local(build.full_name):
            if model.commit == plan.listing.commit and is_intact(model):
                return Pulled(model, "current")
        return Pulled(_install(plan, wanted, progress), "fetched")


def is_intact(model: LocalModel) -> bool:
    """Whether every file has the size in the manifest and the last verification, if any, found no fault."""
    if model.damaged:
        return False
    try:
        ModelDir.open(model.path)
    except (OSError, ValueError):
        return False
    return True


def _install(plan: Plan, revision: str, progress: Progress | None) -> LocalModel:
    build, cache, commit = plan.build, plan.cache, plan.listing.commit
    for file in plan.listing.files:
        cache.reclaim(file, commit)
    plan = replace(plan, missing={file.path: cache.bytes_missing(file) for file in plan.listing.files})
    check_disk(plan)
    remove_manifest(plan.folder)  # while it is repaired, the folder is not a model
    hashes = _fetch_all(plan, progress)
    for file in plan.listing.files:
        cache.link(file, commit)
    cache.write_ref(revision, commit)
    folder = plan.folder
    if build.old_layout:
        from ..migrate import migrate

        folder = migrate(folder, folder / MIGRATED, overwrite=True, sha256=hashes)
        manifest = Manifest.read(folder)
    else:
        manifest = Manifest().with_files_of(folder, hashes)
    ModelDir.open(folder)  # only a folder that opens becomes a model here, whatever the hub says it is
    origin = Origin(
        variant=build.variant,
        repo=build.repo,
        subfolder=build.subfolder,
        revision=revision,
        commit=commit,
        licence=build.licence,
        memory_bytes=build.memory_bytes,
        pulled_at=time.time(),
    )
    replace(
        manifest,
        name=build.name,
        device=build.device,
        devices=build.devices,
        precision=build.precision,
        origin=origin,
    ).write(folder)
    return next(model for model in find_local(build.full_name) if model.path == folder)


def _fetch_all(plan: Plan, progress: Progress | None) -> dict[str, str]:
    """Fetch what is missing, the small files first; returns the SHA-256 of every file by its name."""
    meter, hashes = Meter(sum(file.size for file in plan.listing.files), progress), {}
    for file in sorted(plan.listing.files, key=lambda file: file.size):
        meter.enter(file.name)
        hashes[file.name] = fetch(file, plan.listing.commit, plan.cache, meter.add).sha256
    return hashes


def check_disk(plan: Plan) -> None:
    """Refuse a pull that would fill the disk, before its first byte. Raises DiskSpaceError."""
    needed = plan.missing_bytes + _SPARE_BYTES
    if plan.missing_bytes and needed > plan.free_bytes:
        raise DiskSpaceError(
            f"{plan.build.full_name} needs {needed / 1e9:.2f} GB more and the disk of {plan.cache.root.parent} has "
            f"{plan.free_bytes / 1e9:.2f} GB free; free some space (`phi3v models`, `phi3v rm NAME`), or set HF_HOME "
            "to a folder on another disk"
        )


@contextmanager
def _locked(cache: RepoCache) -> Iterator[None]:
    """Hold the cache's lock, and log when that takes waiting."""
    with ExitStack() as stack:
        try:
            stack.enter_context(cache.lock(timeout=0.1))
        except Timeout:
            _log.warning("another phi3v is at work on %s; waiting for it", cache.repo)
            stack.enter_context(cache.lock())
        yield


def _check_can_migrate() -> None:
    try:
        import onnx  # noqa: F401
    except ImportError as exc:
        raise MissingDependencyError(
            "this build is in a layout that must be migrated after the download, and that needs the onnx package; "
            "run `pip install onnx`"
        ) from exc


def _offline_message(build: PublishedBuild, local: list[LocalModel]) -> str:
    state = "is damaged" if local else "is not on this machine"
    return (
        f"{build.full_name} {state} and nothing may be fetched (--offline or HF_HUB_OFFLINE); run `phi3v pull "
        f"{build.full_name}` online, or copy another machine's {hub_cache()} here"
    )


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())
