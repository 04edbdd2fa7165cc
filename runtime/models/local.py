"""The models on this machine: pulled ones in the Hugging Face cache, and which folder a given name means.

A pulled model is a folder in the cache with our manifest in it, which is written last: no manifest, no model.
Opens no socket.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelFolderError, ModelNotFoundError, OptionError
from ..machine.cuda import cuda_status, gpus
from ..machine.device_table import PREFERENCE, TABLE, split_device
from ..machine.memory import total_memory
from ..machine.webgpu import hardware_memory
from .folder import BUILTIN, GENAI_CONFIG, MODEL_VARIABLE
from .manifest import MANIFEST, Manifest
from .near_miss import suggest

BUILTIN_NAME = "nano"
PUBLISHED_NAMES = ("phi-3-vision", "phi-3.5-vision")
"""What `phi3v pull` can fetch (export/hub/catalog.py)."""

INT8_PREFILL = "int8-prefill"
"""Ends the variant's name of a model that was made beside a pulled one."""

_PRECISIONS = (f"int4-{INT8_PREFILL}", "int4", "int8", "fp16", "fp32")
"""Of a variant's name, the fastest first."""

_DEEPEST = 4
"""The most folders between a snapshot and a manifest."""


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A pulled model. `nbytes` is the size of its files, `damaged` those that failed their last verification."""

    name: str
    variant: str
    path: Path
    repo: str
    revision: str
    commit: str
    device: str
    memory_bytes: int
    nbytes: int
    damaged: tuple[str, ...]
    pulled_at: float
    devices: tuple[str, ...]

    @property
    def full_name(self) -> str:
        """What to type: `name:variant`."""
        return f"{self.name}:{self.variant}"


@dataclass(frozen=True, slots=True)
class Machine:
    """What a model can use here, in bytes: memory of the GPU that CUDA takes, of the one that WebGPU does, and RAM.

    0: there is none; None: how much is unknown.
    """

    gpu_memory: int
    ram: int | None
    webgpu_memory: int | None = 0

    @classmethod
    def inspect(cls) -> Machine:
        """This machine. A GPU counts only when its provider would really load, and is not a CPU that plays one."""
        usable = cuda_status().usable
        return cls(gpus()[0].memory_bytes if usable else 0, total_memory(), hardware_memory())

    def fits(self, device: str, memory_bytes: int) -> bool:
        """Whether a model that needs `memory_bytes` can run on this kind of device here."""
        memory = {"cuda": self.gpu_memory, "webgpu": self.webgpu_memory}.get(device, self.ram)
        return memory is None or memory_bytes <= memory

    def choose(self, devices: Iterable[str], memory_bytes: int) -> str | None:
        """What "auto" takes of the devices a model is for: the first that it fits, None if it fits none."""
        fitting = (kind for kind in PREFERENCE if kind in devices and self.fits(kind, memory_bytes))
        return next(fitting, None)


def hub_cache() -> Path:
    """Where huggingface-hub keeps what it fetches: HF_HUB_CACHE, else hub/ in HF_HOME, else in the user's cache.

    Found as it finds it, without importing it: nothing but a pull needs it, and it fails where a variable is wrong.
    """
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or os.path.join(caches, "huggingface")  # noqa: PTH118
    older = os.environ.get("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")  # noqa: PTH118
    found = os.environ.get("HF_HUB_CACHE") or older
    return Path(os.path.expandvars(os.path.expanduser(found)))  # noqa: PTH111


def local_models() -> list[LocalModel]:
    """Every pulled model, the newest first."""
    found = [model for folder in _model_folders(hub_cache()) if (model := _read(folder)) is not None]
    return sorted(found, key=lambda model: -model.pulled_at)


def split_name(name: str) -> tuple[str, str | None]:
    """`name:variant` -> (name, variant), with None for a variant that is not given."""
    model, _, variant = name.partition(":")
    return model, variant or None


def find_local(name: str) -> list[LocalModel]:
    """Pulled models that `name` or `name:variant` means, the newest of each variant first."""
    wanted, variant = split_name(name)
    return [model for model in local_models() if model.name == wanted and variant in (None, model.variant)]


def wanted_model(model: str | os.PathLike[str] | None) -> str | os.PathLike[str] | None:
    """The model that was named, here or by `PHI3V_MODEL`, if one was."""
    return model if model is not None else os.environ.get(MODEL_VARIABLE) or None


def resolve_model(model: str | os.PathLike[str] | None = None, device: str = "auto") -> Path:
    """Resolve a folder, a pulled model's name or `name:variant`, "nano" (built in) or None to a model folder.

    A model folder wins over a model of the same name. None means `PHI3V_MODEL`, else the best pulled model that fits
    this machine and `device`, else the built-in one. Raises ModelNotFoundError.
    """
    wanted = wanted_model(model)
    if wanted is None:
        return _default(device)
    if model is not None:
        return _resolve(wanted, device)
    try:
        folder = _resolve(wanted, device)
        if not folder.is_dir():
            raise ModelNotFoundError(f"{folder} is no folder")
    except ModelNotFoundError as exc:
        raise ModelNotFoundError(
            f"{MODEL_VARIABLE} is set to {os.fspath(wanted)!r}: {exc}; or take it back with `unset {MODEL_VARIABLE}`"
        ) from exc
    return folder


def _resolve(wanted: str | os.PathLike[str], device: str) -> Path:
    if not isinstance(wanted, str | os.PathLike) or isinstance(os.fspath(wanted), bytes):
        raise OptionError(f"model is {wanted!r}; allowed: a folder (str or Path), a model's name, or None")
    folder = Path(wanted)
    if os.path.isfile(folder / GENAI_CONFIG) or not _is_name(str(wanted)):  # noqa: PTH113 - False for too long a name
        return folder
    found = find_local(str(wanted))
    if not found and is_builtin(str(wanted)):
        return BUILTIN
    if not found and os.path.exists(folder):  # noqa: PTH110 - the same
        return folder  # whoever opens it says what it lacks
    if not found:
        raise ModelNotFoundError(_describe_missing(str(wanted)))
    return _best(found, _fitting(found, device) if len(found) > 1 else found, device).path


def _describe_missing(wanted: str) -> str:
    """Say that no model has this name, and what to type instead."""
    models = local_models()
    held = ", ".join(dict.fromkeys(model.full_name for model in models)) or "none"
    name, variant = split_name(wanted)
    here = [known for model in models for known in ((model.full_name,) if variant else (model.name,))]
    near = suggest(wanted, {*here, BUILTIN_NAME, *PUBLISHED_NAMES} - {wanted})
    remedy = f"fetch it with `phi3v pull {wanted}`" if name in PUBLISHED_NAMES else "`phi3v models` lists what there is"
    return f"{wanted} is neither a folder nor a model on this machine (pulled: {held}){near}; {remedy}"


def is_builtin(name: str) -> bool:
    """Whether this is the name of the model that comes with the package."""
    return name == BUILTIN_NAME and BUILTIN.is_dir()


def _default(device: str) -> Path:
    pulled = local_models()
    fitting = _fitting(pulled, device)
    if fitting:
        return _best(fitting, fitting, device).path
    if BUILTIN.is_dir():
        return BUILTIN
    too_big = f" ({', '.join(model.full_name for model in pulled)} would not run here)" if pulled else ""
    raise ModelNotFoundError(
        f"no model was named and none is available{too_big}; fetch one with `phi3v pull phi-3-vision`, "
        f"give --model NAME or FOLDER (phi3v.load(FOLDER) in Python), set {MODEL_VARIABLE}, "
        "or make one with `phi3v export CHECKPOINT FOLDER`"
    )


def _fitting(models: list[LocalModel], device: str) -> list[LocalModel]:
    if not models:
        return []
    machine, kind = Machine.inspect(), split_device(device)[0]
    if kind == "auto":
        return [m for m in models if machine.choose(m.devices, m.memory_bytes)]
    return [m for m in models if m.device in TABLE[kind].builds and machine.fits(kind, m.memory_bytes)]


def _best(models: list[LocalModel], fitting: list[LocalModel], device: str) -> LocalModel:
    """The best of at least one: an intact model before a damaged one, then one that fits, the fastest, the newest."""
    kind = split_device(device)[0]
    order = PREFERENCE if kind == "auto" else TABLE[kind].builds

    def rank(model: LocalModel) -> tuple[bool, bool, tuple[int, int], float]:
        return bool(model.damaged), model not in fitting, rank_variant(model.variant, order), -model.pulled_at

    return min(models, key=rank)


def rank_variant(variant: str, order: Sequence[str]) -> tuple[int, int]:
    """Where a variant stands among others: by its device in this order, then by its precision; a stranger is last."""
    device, _, precision = variant.partition("-")
    places = ((device, order), (precision, _PRECISIONS))
    first, second = (list(known).index(value) if value in known else len(known) for value, known in places)
    return first, second


def _is_name(text: str) -> bool:
    return re.fullmatch(r"[\w.-]+(:[\w.-]*)?", text) is not None and text not in (".", "..")


def _model_folders(cache: Path) -> Iterator[Path]:
    for depth in range(_DEEPEST + 1):
        for file in cache.glob("models--*/snapshots/*/" + "*/" * depth + MANIFEST):
            yield file.parent


def _read(folder: Path) -> LocalModel | None:
    """The model that a folder's manifest describes; None for one that no pull of ours has written."""
    try:
        manifest = Manifest.read(folder)
    except (OSError, ModelFolderError):
        return None
    origin = manifest.origin
    if origin is None or manifest.name is None or manifest.device is None or not manifest.files:
        return None
    return LocalModel(
        name=manifest.name,
        variant=origin.variant,
        path=folder,
        repo=origin.repo,
        revision=origin.revision,
        commit=origin.commit,
        device=manifest.device,
        memory_bytes=origin.memory_bytes,
        nbytes=manifest.nbytes,
        damaged=manifest.damaged,
        pulled_at=float(origin.pulled_at),
        devices=manifest.devices or (manifest.device,),
    )
