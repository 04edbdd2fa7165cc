"""Deletes pulled models, and says beforehand how many bytes that frees."""

from __future__ import annotations

import shutil
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from filelock import Timeout

from ...errors import ModelError, ModelNotFoundError
from ...models.local import find_local, hub_cache, is_builtin, local_models, split_name
from ...models.manifest import remove_manifest
from ...models.near_miss import suggest
from .cache import RepoCache
from .catalog import BUILDS


@dataclass(frozen=True, slots=True)
class Removal:
    """What would be deleted: folders of models, and files that nothing else needs; and the bytes that frees."""

    caches: tuple[RepoCache, ...]
    folders: tuple[Path, ...]
    files: tuple[Path, ...]
    nbytes: int


def plan_removal(name: str) -> Removal:
    """What removing `name` or `name:variant` deletes; without a variant, unfinished downloads too.

    Raises ModelNotFoundError when there is nothing of it here.
    """
    plan = _plan(name)
    if not plan.folders and not plan.files:
        if is_builtin(name):
            raise ModelNotFoundError(f"{name} is built in: it belongs to phi3v and goes with it; nothing to remove")
        near = suggest(name, [known for model in local_models() for known in (model.name, model.full_name)])
        raise ModelNotFoundError(f"nothing of {name} is on this machine{near}; `phi3v models` lists what is")
    return plan


def remove(name: str) -> int:
    """Delete it; returns the bytes freed. Raises ModelError while a pull of the same repository runs."""
    with ExitStack() as locks:
        for cache in _plan(name).caches:
            try:
                locks.enter_context(cache.lock(timeout=0.1))
            except Timeout as exc:
                raise ModelError(f"another phi3v is at work on {cache.repo}; try again when it is done") from exc
        plan = _plan(name)  # again: a pull may have ended before the locks were held
        for folder in plan.folders:
            remove_manifest(folder)  # so that what an interruption leaves is not taken for a model
            shutil.rmtree(folder)
        for file in plan.files:
            file.unlink(missing_ok=True)
        for cache in plan.caches:
            _remove_empty(cache)
    return plan.nbytes


def _plan(name: str) -> Removal:
    wanted, variant = split_name(name)
    builds = [build for build in BUILDS if build.name == wanted and variant in (None, build.variant)]
    caches = {build.repo: RepoCache(hub_cache(), build.repo) for build in builds}
    # A pull that was refused or interrupted at its end leaves a linked snapshot without a manifest.
    folders = {folder for b in builds for folder in (caches[b.repo].root / "snapshots").glob(f"*/{b.subfolder}")}
    for model in find_local(name):
        caches.setdefault(model.repo, RepoCache(hub_cache(), model.repo))
        if not any(model.path.is_relative_to(folder) for folder in folders):
            folders.add(model.path)
    files = [file for cache in caches.values() for file in _orphans(cache, folders, loose=variant is None)]
    own = [file for folder in folders for file in folder.rglob("*") if file.is_file() and not file.is_symlink()]
    return Removal(tuple(caches.values()), tuple(sorted(folders)), tuple(files), _freed([*files, *own]))


def _orphans(cache: RepoCache, going: set[Path], *, loose: bool) -> list[Path]:
    """What only folders in `going` need: blobs, and references to commits that go with them.

    `loose` adds complete blobs that no snapshot links to and partial downloads of ours: another variant's too.
    """
    snapshots, blobs = cache.root / "snapshots", cache.root / "blobs"
    files = [path for path in snapshots.rglob("*") if path.is_symlink() or path.is_file()]
    leaving = {path for path in files if any(path.is_relative_to(folder) for folder in going)}
    staying = [path for path in files if path not in leaving]
    needed = {path.resolve() for path in staying}
    orphans = {path.resolve() for path in leaving if path.is_symlink() and path.exists()} - needed
    if loose:
        held = needed | {path.resolve() for path in leaving}
        ours = {blob for blob in blobs.glob("*") if blob.suffix != ".incomplete" or ".phi3v." in blob.name}
        orphans |= {blob.resolve() for blob in ours} - held
    commits = {path.relative_to(snapshots).parts[0] for path in staying}
    refs = [ref for ref in (cache.root / "refs").rglob("*") if ref.is_file() and ref.read_text() not in commits]
    return [*sorted(orphans), *refs]


def _remove_empty(cache: RepoCache) -> None:
    """Delete the folders that are empty now, the repository's own last."""
    snapshots = cache.root / "snapshots"
    for folder in sorted((path for path in snapshots.rglob("*") if path.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()
    if not any(snapshots.glob("*")) and not any((cache.root / "blobs").glob("*")):
        shutil.rmtree(cache.root, ignore_errors=True)


def _freed(files: list[Path]) -> int:
    """Bytes freed when all these names go; a file that has another name somewhere else stays."""
    stats = [file.stat() for file in files]
    names = Counter(stat.st_ino for stat in stats)
    return sum({stat.st_ino: stat.st_size for stat in stats if names[stat.st_ino] == stat.st_nlink}.values())
