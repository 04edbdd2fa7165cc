"""What runs in the environment with the fake CUDA: `probe.py FUNCTION ARGUMENTS`, JSON in and out.

A process a probe: driver and runtime read what they pretend once.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from phi3v.backend import BatchRow, ModelInputs
from phi3v.engine import Engine
from phi3v.errors import Phi3VError
from phi3v.genai import prefix_cache
from phi3v.genai.backend import GenaiBackend
from phi3v.genai.batch import pad
from phi3v.models.folder import ModelDir
from phi3v.sampling import TokenChooser

COUNTERS = (
    "copies_h2d", "copies_d2h", "copies_d2d", "bytes_h2d", "bytes_d2h", "pageable_h2d", "launches", "captured_launches",
    "synchronisations", "syncs_in_capture", "captures", "replays", "allocations", "cudnnBackendFinalize",
)  # fmt: skip
IMAGE = np.full((200, 300, 3), 90, dtype=np.uint8)


def runtime() -> ctypes.CDLL:
    library = ctypes.CDLL("libcudart.so.13")
    library.fake_cuda_count.restype = ctypes.c_long
    library.fake_cuda_bring.argtypes = (ctypes.c_size_t, ctypes.c_long)
    return library


def counts() -> dict[str, int]:
    return {name: int(runtime().fake_cuda_count(name.encode())) for name in COUNTERS}


def bring_sizes(inputs: ModelInputs) -> None:
    """What the vision graph reads from the device: how many image tokens it makes, and how many crops are real."""
    if inputs.pixel_values is not None and inputs.image_sizes is not None:
        crops = sum(1 + height * width // 336**2 for height, width in inputs.image_sizes.tolist())
        runtime().fake_cuda_bring(8, sum(inputs.image_tokens))
        runtime().fake_cuda_bring(4, crops)


def open_backend(folder: str, options: dict[str, Any]) -> GenaiBackend:
    return GenaiBackend(ModelDir.open(folder), "cuda", **options)


def read(backend: GenaiBackend, length: int, images: int) -> ModelInputs:
    """A question about some images, or a text of `length` tokens."""
    if images:
        return backend.preprocess("hello", [Image.fromarray(IMAGE)] * images, 1)
    return ModelInputs(np.full(length, 5, dtype=np.int32), None, None, ())


def load(folder: str, **options: Any) -> dict[str, int]:
    """What loading a folder costs."""
    backend = open_backend(folder, options)
    found = counts()
    backend.close()
    return found


def steps(folder: str, length: int = 0, images: int = 0, tokens: int = 6, **options: Any) -> list[dict[str, int]]:
    """What each token of an answer costs; the first one carries vision and prefill."""
    backend = open_backend(folder, options)
    prepared = read(backend, length, images)
    generation = backend.start(prepared, TokenChooser(), tokens)
    bring_sizes(prepared)
    found, before = [], counts()
    for _ in range(tokens):
        generation.step()
        after = counts()
        found.append({name: after[name] - before[name] for name in COUNTERS})
        before = after
    return found


def prompts(folder: str, lengths: list[int], tokens: int = 2, **options: Any) -> list[dict[str, int]]:
    """What two tokens cost behind each of these lengths of text, one after the other."""
    backend = open_backend(folder, options)
    found = []
    for length in lengths:
        before = counts()
        generation = backend.start(read(backend, length, 0), TokenChooser(), tokens)
        for _ in range(tokens):
            generation.step()
        found.append({name: value - before[name] for name, value in counts().items()})
        generation.close()
    return found


def places(folder: str, **options: Any) -> dict[str, dict[str, list[str]]]:
    """For each graph the provider of every node that ran: {graph: {node: [operator, provider]}}.

    By ONNX Runtime's own profiles, which the folder's genai_config.json must ask for (`profiled` in conftest.py).
    """
    backend = open_backend(folder, options)
    prepared = read(backend, 0, images=1)
    bring_sizes(prepared)
    generation = backend.start(prepared, TokenChooser(), 4)
    for _ in range(4):
        generation.step()
    generation.close()
    backend.close()
    del generation, backend
    gc.collect()
    return {graph: _profile(graph) for graph in ("vision", "embedding", "decoder")}


def _profile(graph: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in Path().glob(f"{graph}_*.json"):
        for event in json.loads(path.read_text()):
            arguments = event.get("args", {})
            if event.get("cat") == "Node" and "provider" in arguments:
                name = event["name"].removesuffix("_kernel_time")
                found[name] = [arguments["op_name"], arguments["provider"]]
    return found


def session(folder: str, **options: Any) -> list[dict[str, int]]:
    """What the turns of a session cost: each asks about the same image.

    Here the sequence that genai keeps on the device is all zeros, so what was read cannot be compared with it.
    """
    prefix_cache._Kept.shared = lambda kept, ids: prefix_cache._after_images(ids)  # type: ignore[method-assign]
    found = []
    backend = open_backend(folder, options)
    bring_sizes(read(backend, 0, images=1))
    with Engine(backend) as engine, engine.session([IMAGE], num_crops=1) as talk:
        before = counts()
        for question in ("What is this?", "And what else is there?", "What colour is it?"):
            talk.ask(question, max_new_tokens=3)
            after = counts()
            found.append({name: after[name] - before[name] for name in COUNTERS})
            before = after
    return found


def batch(folder: str, length: int, images: int, tokens: int, **options: Any) -> dict[str, int]:
    """Tokens that each row of a batch got; its three rows differ in length or in images."""
    backend = open_backend(folder, options)
    rows = range(3)
    inputs = [read(backend, length + row, images * (row % 2)) for row in rows]
    bring_sizes(pad(inputs, 0))
    running = backend.start_batch([BatchRow(each, TokenChooser(), tokens) for each in inputs])
    found = dict.fromkeys(rows, 0)
    while any(count < tokens for count in found.values()):
        for row in running.step():
            found[row] += 1
            if found[row] == tokens:
                running.leave(row)
    return {str(row): count for row, count in found.items()}


def fail(folder: str, device: str = "cuda") -> str:
    """The message with which a load is refused; empty if it is not."""
    import phi3v

    try:
        phi3v.load(folder, device).close()
    except Phi3VError as exc:
        return f"{type(exc).__name__}: {exc}"
    return ""


def fail_behind_another_library(folder: str, device: str) -> str:
    """The same, where somebody else has initialised the driver."""
    ctypes.CDLL("libcuda.so.1").cuInit(0)
    return fail(folder, device)


def maps(folder: str, device: str) -> list[str]:
    """Shared libraries in memory once a folder is loaded on a device."""
    import phi3v

    with phi3v.load(folder, device):
        lines = Path("/proc/self/maps").read_text().splitlines()
    return sorted({Path(line.split()[-1]).name for line in lines if ".so" in line})


def doctor() -> list[dict[str, str]]:
    """What `phi3v doctor --json` finds."""
    from dataclasses import asdict

    from phi3v.cli.doctor import examine

    return [asdict(check) for check in examine()]


if __name__ == "__main__":
    result = globals()[sys.argv[1]](**json.loads(sys.argv[2]))
    print("\n" + json.dumps(result))
