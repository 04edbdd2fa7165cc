"""Take pulled models off this machine, and say beforehand how many bytes that frees."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from filelock import Timeout
from huggingface_hub.utils import WeakFileLock

from ..errors import ModelError, ModelNotFoundError
from ..local_models import find_local, hub_cache, split_name
from ..model_dir import MANIFEST
from .catalog import BUILDS
from .hub_cache import RepoCache


@dataclass(frozen=True, slots=True)
class Removal:
    """What would go: folders of models, blobs nothing else links to, and the bytes that frees."""

    name: str
    caches: tuple[RepoCache, ...]
    folders: tuple[Path, ...]
    files: tuple[Path, ...]
    nbytes: int


def plan_removal(name: str) -> Removal:
    """What removing `name` or `name:variant` takes away, unfinished downloads included.

    Raises ModelNotFoundError when there is nothing of it here.
    """
    wanted, variant = split_name(name)
    builds = [build for build in BUILDS if build.name == wanted and variant in (None, build.variant)]
    cache = hub_cache()
    folders = [model.path if model.path.parts[-1] != "phi3v" else model.path.parent for model in find_local(name)]
    caches = {build.repo: RepoCache(cache, build.repo) for build in builds}
    caches |= {model.repo: RepoCache(cache, model.repo) for model in find_local(name)}
    files = [file for repo in caches.values() for file in _orphans(repo, folders)]
    if not folders and not files:
        raise ModelNotFoundError(f"nothing of {name} is on this machine; `phi3v models` lists what is")
    own = [file for folder in folders for file in folder.rglob("*") if file.is_file() and not file.is_symlink()]
    return Removal(name, tuple(caches.values()), tuple(folders), tuple(files), _freed([*files, *own]))


def remove(removal: Removal) -> None:
    """Do it. Raises ModelError while a pull of the same repository runs."""
    for cache in removal.caches:
        cache.lock_path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with WeakFileLock(cache.lock_path, timeout=0.1):
                _remove_in(cache, removal)
        except Timeout as exc:
            raise ModelError(f"another phi3v is at work on {cache.repo}; run the same command when it is done") from exc


def _remove_in(cache: RepoCache, removal: Removal) -> None:
    for folder in (folder for folder in removal.folders if folder.is_relative_to(cache.root)):
        (folder / MANIFEST).unlink(missing_ok=True)  # from here on it is no model any more
        shutil.rmtree(folder)
        _remove_empty(folder.parent, cache.root)
    for file in (file for file in removal.files if file.is_relative_to(cache.root)):
        file.unlink(missing_ok=True)
    if not any((cache.root / "snapshots").glob("*")) and not any((cache.root / "blobs").glob("*")):
        shutil.rmtree(cache.root, ignore_errors=True)


def _orphans(cache: RepoCache, going: list[Path]) -> list[Path]:
    """What no snapshot outside `going` needs: blobs, partial downloads of ours, and names of commits that are gone."""
    snapshots = cache.root / "snapshots"
    files = [path for path in snapshots.rglob("*") if path.is_symlink() or path.is_file()]
    staying = [path for path in files if not any(path.is_relative_to(folder) for folder in going)]
    linked = {path.resolve() for path in staying}
    commits = {path.relative_to(snapshots).parts[0] for path in staying}
    blobs = [blob for blob in (cache.root / "blobs").glob("*") if blob.resolve() not in linked]
    refs = [ref for ref in (cache.root / "refs").rglob("*") if ref.is_file() and ref.read_text() not in commits]
    ours = [blob for blob in blobs if blob.suffix != ".incomplete" or blob.name.endswith(".phi3v.incomplete")]
    return ours + refs


def _freed(files: list[Path]) -> int:
    """Bytes that go when all these names go: a file that has another name somewhere else stays."""
    stats = [file.stat() for file in files]
    names = Counter(stat.st_ino for stat in stats)
    return sum({stat.st_ino: stat.st_size for stat in stats if names[stat.st_ino] == stat.st_nlink}.values())


def _remove_empty(folder: Path, root: Path) -> None:
    while folder != root and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
