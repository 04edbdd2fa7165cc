"""Whether a folder's graphs can be run as recorded CUDA graphs.

ONNX Runtime refuses to record a graph with control flow. The published decoders, and ours before 0.2, choose LongRoPE's
caches with an `If`. genai records vision and embedding too unless genai_config.json gives them options of their own.
"""

from __future__ import annotations

import json
import mmap
import re
from pathlib import Path
from typing import Any

from ..errors import OptionError
from ..models.folder import GENAI_CONFIG, ModelDir

# Source: onnx.proto, NodeProto {op_type = 4}: the key, the length of the name, the name.
_CONTROL_FLOW = re.compile(rb"\x22(?:\x02If|\x04Loop|\x04Scan)")


def require_cuda_graph(folder: ModelDir, device: str) -> None:
    """Raise OptionError, naming the remedy, unless a CUDA graph of the folder's decoder can be recorded."""
    if device != "cuda":
        raise OptionError(f"cuda_graph=True needs the device cuda, and this one is {device}")
    model = json.loads((folder.path / GENAI_CONFIG).read_text(encoding="utf-8"))["model"]
    if _has_control_flow(folder.path / model["decoder"]["filename"]):
        reason = "its decoder chooses LongRoPE's factors with an If node"
    elif not all(_has_own_options(model[graph]) for graph in ("vision", "embedding")):
        reason = f"its {GENAI_CONFIG} gives vision and embedding no session_options of their own"
    else:
        return
    raise OptionError(
        f"cuda_graph=True: {folder.path} cannot be run as a CUDA graph: {reason}; leave the option out, or make a "
        "folder that can with `phi3v export CHECKPOINT FOLDER --device cuda`"
    )


def _has_control_flow(graph: Path) -> bool:
    """Read off the protobuf without the onnx package, in which names stand in full."""
    with graph.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _CONTROL_FLOW.search(content) is not None


def _has_own_options(section: dict[str, Any]) -> bool:
    return bool(section.get("session_options", {}).get("provider_options"))
