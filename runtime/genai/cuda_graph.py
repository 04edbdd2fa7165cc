"""Whether a folder's graphs can be run as recorded CUDA graphs.

ONNX Runtime refuses to record a graph with control flow. The published decoders, and older ones of ours, choose
LongRoPE's caches with an `If`. genai records vision and embedding too, unless genai_config.json gives them options of
their own.
"""

from __future__ import annotations

import json
from typing import Any

from ..errors import OptionError
from ..models.folder import GENAI_CONFIG, ModelDir
from ..models.graph_file import has_control_flow


def require_cuda_graph(folder: ModelDir, device: str) -> None:
    """Raise OptionError, naming the remedy, unless a CUDA graph of the folder's decoder can be recorded."""
    if device != "cuda":
        raise OptionError(f"cuda_graph=True needs the device cuda, and this one is {device}")
    model = json.loads((folder.path / GENAI_CONFIG).read_text(encoding="utf-8"))["model"]
    if has_control_flow(folder.path / model["decoder"]["filename"]):
        reason = "its decoder chooses LongRoPE's factors with an If node"
    elif not all(_has_own_options(model[graph]) for graph in ("vision", "embedding")):
        reason = f"its {GENAI_CONFIG} gives vision and embedding no session_options of their own"
    else:
        return
    raise OptionError(
        f"cuda_graph=True: {folder.path} cannot be run as a CUDA graph: {reason}; leave the option out, or make a "
        "folder that can with `phi3v export CHECKPOINT FOLDER --device cuda`"
    )


def _has_own_options(section: dict[str, Any]) -> bool:
    return bool(section.get("session_options", {}).get("provider_options"))
