"""phi3v.json, the manifest beside a model's files: what they are, how large, and where they came from.

Only this module reads and writes that file. It is written last and atomically, so a folder that has one was complete;
`ModelDir.open` compares the folder with it at every load.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from enum import Enum
from pathlib import Path
from typing import Any, Final

from ..errors import ModelFolderError
from ..machine.device_table import TABLE
from .checksum import checksum_file
from .files import REPAIR, name_in_errors, read_json

MANIFEST = "phi3v.json"
"""The manifest's file name."""

FORMAT = 1
_SCRATCH = f".{MANIFEST}.new"
_PIXEL_DTYPES = ("float16", "float32")
_NULL_COUNTS = ("original_context_length", "files")
"""Keys whose null means something, or is refused; elsewhere null states nothing."""


class Unstated(Enum):
    """What a field holds when the file lacks its key and None already has a meaning."""

    UNSTATED = "unstated"


UNSTATED: Final = Unstated.UNSTATED


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where `phi3v pull` fetched a model from, and the GPU memory ("cuda") or RAM ("cpu") that it needs."""

    variant: str
    repo: str
    subfolder: str = ""
    revision: str
    commit: str
    licence: str = ""
    memory_bytes: int
    pulled_at: float = 0.0
    """Seconds since 1970."""

    def __post_init__(self) -> None:
        texts = ("variant", "repo", "subfolder", "revision", "commit", "licence")
        _check(self, {key: (isinstance(getattr(self, key), str), "a text") for key in texts})
        _check(self, {"memory_bytes": (isinstance(self.memory_bytes, int), "an integer")})
        _check(self, {"pulled_at": (isinstance(self.pulled_at, int | float), "a number")})


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a folder's phi3v.json says; a value of the wrong kind is a ValueError.

    A field that still has its default is left out of the file.
    """

    format: int = FORMAT
    name: str | None = None
    """What the model is called: its checkpoint's name, or the catalogue's."""
    precision: str | None = None
    device: str | None = None
    """What the model was built for: "cpu", "cuda" or "webgpu"."""
    devices: tuple[str, ...] = ()
    """The kinds of devices that "auto" may run it on, `device` among them; none stated: that one alone."""
    pixel_dtype: str | None = None
    """The vision graph's input type: "float16" or "float32"."""
    original_context_length: int | Unstated | None = UNSTATED
    """The length up to which LongRoPE's short factors apply; None for a model without the switch."""
    kv_bytes_per_token: int | None = None
    synthetic: bool | None = None
    """Whether the weights are random."""
    about: str | None = None
    """What the model is good for, where that is less than all of Phi-3-vision's jobs."""
    brief: str | None = None
    """The same in a few words."""
    needs_image: bool | None = None
    """Whether the model knows nothing to say without an image."""
    knows_formats: bool | None = None
    """False for a model whose answers in a format (JSON, choices) mean nothing."""
    files: Mapping[str, int] = field(default_factory=dict)
    """Bytes of every other file in the folder, by name."""
    sha256: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the same files."""
    damaged: tuple[str, ...] = ()
    """Files that failed the last verification; while there are any, the model does not load."""
    origin: Origin | None = None
    """For a pulled model; its keys lie beside the others in the file."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Every other key: facts for people, and what a newer version of phi3v has written."""

    def __post_init__(self) -> None:
        original = self.original_context_length
        rules = {
            "format": (isinstance(self.format, int), "an integer"),
            "device": (self.device in (None, *TABLE), ", ".join(TABLE)),
            "devices": (_is_names(self.devices), "a list of names"),
            "pixel_dtype": (self.pixel_dtype in (None, *_PIXEL_DTYPES), ", ".join(_PIXEL_DTYPES)),
            "original_context_length": (isinstance(original, int | Unstated | None), "an integer"),
            "kv_bytes_per_token": (isinstance(self.kv_bytes_per_token, int | None), "an integer"),
            "files": (_maps_names(self.files, int), "an object of names and sizes"),
            "sha256": (_maps_names(self.sha256, str), "an object of names and SHA-256 sums"),
            "damaged": (_is_names(self.damaged), "a list of names"),
        }
        if self.origin is not None and self.name is None:
            raise KeyError("name")  # as for any other key that a pulled model cannot be without
        for keys, kind, wanted in (
            (("name", "precision", "about", "brief"), str, "a text"),
            (("synthetic", "needs_image", "knows_formats"), bool, "true, false"),
        ):
            rules |= {key: (isinstance(getattr(self, key), kind | None), wanted) for key in keys}
        _check(self, rules)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """A folder's manifest. Raises ModelFolderError, which names the file, when there is none or it is damaged."""
        file = folder / MANIFEST
        if not file.is_file():
            raise ModelFolderError(f"{folder} has no {MANIFEST}, which lists what the folder must hold; {REPAIR}")
        with name_in_errors(file):
            return cls.from_json(read_json(file))

    @classmethod
    def find(cls, folder: Path) -> Manifest | None:
        """The same, but None for a folder without one: a published build that was not fetched by `phi3v pull`."""
        return cls.read(folder) if (folder / MANIFEST).exists() else None

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Manifest:
        """The manifest in a JSON object. Raises ValueError or KeyError."""
        own = _select(cls, content, without=("origin", "extra"))
        own |= {key: tuple(own[key]) for key in ("devices", "damaged") if isinstance(own.get(key), list)}
        origin = _select(Origin, content) if "variant" in content else {}
        extra = {key: value for key, value in content.items() if key not in own and key not in origin}
        return cls(**own, origin=Origin(**origin) if origin else None, extra=extra)

    def to_json(self) -> dict[str, Any]:
        """The JSON object to write."""
        own = {part.name: getattr(self, part.name) for part in fields(self) if part.name not in ("origin", "extra")}
        defaults = asdict(Manifest())
        stated = {key: value for key, value in own.items() if value != defaults[key]}
        origin = asdict(self.origin) if self.origin else {}
        return {"format": self.format, **self.extra, **stated, **origin}

    def write(self, folder: Path) -> None:
        """Replace the folder's manifest atomically."""
        scratch = folder / _SCRATCH
        scratch.write_text(json.dumps(self.to_json(), indent=2) + "\n", encoding="utf-8")
        scratch.replace(folder / MANIFEST)

    def with_files_of(self, folder: Path, known: Mapping[str, str] | None = None) -> Manifest:
        """This manifest with the size and SHA-256 of every file in the folder; a checksum in `known` is trusted."""
        files = sorted(file for file in folder.iterdir() if file.is_file() and file.name not in (MANIFEST, _SCRATCH))
        hashes = {file.name: (known or {}).get(file.name) or checksum_file(file).sha256 for file in files}
        return replace(self, files={file.name: file.stat().st_size for file in files}, sha256=hashes)

    @property
    def nbytes(self) -> int:
        """Bytes of all listed files."""
        return sum(self.files.values())

    @property
    def full_name(self) -> str | None:
        """What to type for a pulled model, `name:variant`; None for any other."""
        return f"{self.name}:{self.origin.variant}" if self.origin else None

    @property
    def pull_command(self) -> str | None:
        """What to type to repair a pulled model; None for any other."""
        if self.origin is None:
            return None
        pinned = "" if self.origin.revision == "main" else f" --revision {self.origin.revision}"
        return f"phi3v pull {self.full_name}{pinned}"

    @property
    def repair(self) -> str:
        """What to do about a damaged folder."""
        return f"run `{self.pull_command}`" if self.origin else REPAIR


def has_manifest(folder: Path) -> bool:
    """Whether a folder holds a model that was pulled, migrated or exported completely."""
    return (folder / MANIFEST).is_file()


def remove_manifest(folder: Path) -> None:
    """Delete the manifest, before files of the folder change or go: from then on it does not count as a model."""
    (folder / MANIFEST).unlink(missing_ok=True)


def verify(folder: Path, *, on_read: Callable[[int], None] | None = None) -> dict[str, str]:
    """Read every file and compare with the manifest: {file: what is wrong}, empty when all is well.

    The finding is kept in the manifest: a damaged model does not load until it is repaired.
    """
    manifest = Manifest.read(folder)
    if not manifest.files:
        raise ModelFolderError(f"{folder / MANIFEST} lists no files to verify; {REPAIR}")
    problems = {}
    for name, size in manifest.files.items():
        if problem := _find_problem(folder / name, size, manifest.sha256.get(name), on_read):
            problems[name] = problem
    damaged = tuple(sorted(problems))
    if damaged != manifest.damaged:
        replace(manifest, damaged=damaged).write(folder)
    return problems


def _find_problem(path: Path, size: int, sha256: str | None, on_read: Callable[[int], None] | None) -> str:
    if not path.is_file():
        return "is missing"
    checksum = checksum_file(path, on_read=on_read)
    if checksum.fed != size:
        return f"has {checksum.fed} bytes instead of {size}"
    return "does not match its recorded SHA-256" if sha256 is not None and checksum.sha256 != sha256 else ""


def _select(kind: type[Any], content: Mapping[str, Any], without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values of a dataclass's fields in a JSON object. Raises KeyError for one that it cannot be without."""
    found = {}
    for part in fields(kind):
        meant = part.name in content and (content[part.name] is not None or part.name in _NULL_COUNTS)
        if meant and part.name not in without:
            found[part.name] = content[part.name]
        elif part.default is MISSING and part.default_factory is MISSING:
            raise KeyError(part.name)
    return found


def _check(owner: object, rules: Mapping[str, tuple[bool, str]]) -> None:
    """Refuse values that would otherwise fail deep inside a load."""
    for key, (right, allowed) in rules.items():
        if not right:
            raise ValueError(f"{key} is {getattr(owner, key)!r}; allowed: {allowed}")


def _maps_names(value: object, kind: type) -> bool:
    """Whether this maps file names to values of one kind."""
    return isinstance(value, Mapping) and all(isinstance(held, kind) for held in value.values())


def _is_names(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(name, str) for name in value)
