"""When a warm engine may answer in place of one loaded now: same phi3v, environment, model and device."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import phi3v
from phi3v.models.folder import MODEL_VARIABLE

from .frames import PROTOCOL, Message

_SURROUNDINGS = (
    *("HOME", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"),
    *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"),
    *("VK_ICD_FILENAMES", "VK_DRIVER_FILES", "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER"),
    *("OMP_NUM_THREADS", "PHI3V_PREFILL", "PHI3V_THREADS", "PHI3V_TELEMETRY"),
)
"""Variables that decide which models there are, where they run, and whether telemetry is sent."""


def greeting(model: str | os.PathLike[str] | None, device: str) -> Message:
    """Return what a client says first: which phi3v it is, and which engine it needs."""
    return {"op": "ask", "model": model_spec(model), "device": device, **installation()}


def installation() -> Message:
    """Return what identifies this phi3v and its environment."""
    return {
        "protocol": PROTOCOL,
        "phi3v": phi3v.__version__,
        "home": str(Path(phi3v.__file__).resolve().parent),
        "python": sys.prefix,  # whose onnxruntime-genai it is
        "surroundings": {name: os.environ.get(name) for name in _SURROUNDINGS},
    }


def model_spec(model: str | os.PathLike[str] | None) -> str | None:
    """Return a name of the model that means the same in another working directory and environment."""
    folder = typed_folder(model)
    return str(folder.absolute()) if folder is not None else _typed(model)


def typed_folder(model: str | os.PathLike[str] | None) -> Path | None:
    """Return the model's folder as it was typed; None if a pulled model is named, or none."""
    typed = _typed(model)
    return Path(typed) if typed is not None and Path(typed).exists() else None


def _typed(model: str | os.PathLike[str] | None) -> str | None:
    return os.fspath(model) if model is not None else os.environ.get(MODEL_VARIABLE) or None


def find_difference(theirs: Message) -> str | None:
    """Say why an engine of this installation must not answer a client of theirs; None if they are the same."""
    ours = installation()
    differing = [name for name in ours if theirs.get(name) != ours[name]]
    if not differing:
        return None
    if differing == ["surroundings"]:
        given = theirs["surroundings"] if isinstance(theirs["surroundings"], dict) else {}
        names = [name for name, value in ours["surroundings"].items() if given.get(name) != value]
        return f"it was started with another {', '.join(names)}"
    version = f"phi3v {ours['phi3v']} (protocol {ours['protocol']}, {ours['home']})"
    return f"it runs {version}, and this is phi3v {theirs.get('phi3v')} ({theirs.get('home')})"
