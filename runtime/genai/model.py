"""One model folder loaded by onnxruntime-genai, and what every use of its generators has in common.

This is the only file of the runtime that imports onnxruntime-genai. Everything untrusted stays outside: genai sees our
tensors, or (with its own processor) PNGs that Pillow wrote.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import hd
from ..backend import ModelInputs
from ..errors import InferenceError, MissingDependencyError, ModelFolderError, Phi3VError
from ..machine.cuda import installed, preload_cuda_libraries
from ..machine.device_table import Device
from ..machine.install import install_line
from ..machine.telemetry import switch_off_genais_telemetry
from ..machine.threads import wanted_threads
from ..models.folder import ModelDir
from .cuda_graph import require_cuda_graph
from .forks import check_process, track
from .prefill import Prefill, choose_graphs, wanted_prefill
from .providers import set_providers

_SEARCH = {"do_sample": False, "num_beams": 1, "min_length": 0, "repetition_penalty": 1.0}
"""Every option that a folder's own `search` section could set differently."""

_REWINDABLE_TYPE = "gemma3"
"""genai refuses to rewind a model of type "phi3v", by the type's name. This type runs the same pipeline and rewinds."""


class GenaiModel:
    """A model folder loaded by onnxruntime-genai; makes generators over inputs.

    `cuda_graph` replays each decoding step as one recorded CUDA graph; OptionError if the folder's graphs cannot be
    recorded. `threads` None takes `PHI3V_THREADS`, or one for each physical core; `prefill` None `PHI3V_PREFILL`, or
    "auto". `records` says whether there is a CUDA graph.
    `rewinds`: its generators can go back to an earlier length and continue from there. Rewinding keeps the KV buffer
    and a CUDA graph's mask as they are, which is right only for a buffer that is written in place.

    `sdpa_kernel` chooses the decoder's attention on a GPU, by ONNX Runtime's bits: 1 flash, 2 memory-efficient, 8
    cuDNN, 16 plain; None takes what suits the GPU. `buffer_step` rounds KV buffers up to its multiples: cuDNN plans
    anew for each length of a buffer.
    """

    def __init__(
        self,
        folder: ModelDir,
        device: Device,
        *,
        cuda_graph: bool = False,
        threads: int | None = None,
        prefill: Prefill | None = None,
        rewindable: bool = True,
        sdpa_kernel: int | None = None,
        buffer_step: int = 1,
    ) -> None:
        if folder.pixel_dtype is None:
            raise ModelFolderError(
                f"the vision graph of {folder.path} takes no float32 or float16 pixel_values; "
                "fetch or export the model again"
            )
        if cuda_graph:
            require_cuda_graph(folder, device)
        self.folder = folder
        self.records = cuda_graph
        self._buffer_step = buffer_step
        self.rewinds = rewindable and folder.shared_kv_buffer and not cuda_graph
        self.og = import_genai(device)
        self._pixel_dtype = np.dtype(folder.pixel_dtype)
        self._process = os.getpid()
        self._model = track(
            load_model(
                self.og,
                folder,
                device,
                cuda_graph=cuda_graph,
                threads=threads,
                prefill=prefill,
                rewindable=self.rewinds,
                sdpa_kernel=sdpa_kernel,
            )
        )

    @property
    def closed(self) -> bool:
        """Whether the model was dropped."""
        return self._model is None

    @property
    def handle(self) -> Any:
        """genai's own model object. Raises InferenceError once it is closed, and in a forked child."""
        self.check_process()
        if self._model is None:
            raise InferenceError("this engine is closed; load the model again")
        return self._model

    def new_generator(self, inputs: ModelInputs, max_length: int, rows: int = 1) -> Any:
        """A greedy genai generator that has run vision and prefill over `inputs`, ids [L] or [`rows`, L]."""
        model = self.handle
        _check_slots(inputs)
        with mapped_errors("vision and prefill"):
            params = self.og.GeneratorParams(model)
            params.set_search_options(max_length=self._round_up(max_length), batch_size=rows, **_SEARCH)
            generator = track(self.og.Generator(model, params))
            if inputs.pixel_values is None:
                generator.append_tokens(inputs.input_ids.ravel())
            else:
                generator.set_inputs(self._name_tensors(inputs))
        return generator

    def buffer_tokens(self, length: int, max_length: int) -> int:
        """Tokens to make a KV buffer for when `length` are there already, of at most `max_length`.

        A recorded CUDA graph gets a mask as wide as the buffer, and LongRoPE's factors go by the width of the mask. So
        while they are to be short, its buffer ends at the switch.
        """
        switch = self.folder.original_context_length
        if self.records and switch is not None and not self.folder.past_switch(length):
            return min(max_length, switch)
        return max_length

    def _round_up(self, tokens: int) -> int:
        """The size of a buffer for so many tokens, which is on the same side of the switch under a CUDA graph."""
        rounded = -(-tokens // self._buffer_step) * self._buffer_step
        return max(tokens, self.buffer_tokens(tokens, min(rounded, self.folder.context_length)))

    def close(self) -> None:
        """Drop the model; memory is freed when the last generator is gone. Raises InferenceError in a forked child."""
        self.check_process()
        self._model = None

    def check_process(self) -> None:
        """Raise InferenceError in a forked child of the process that loaded the model."""
        check_process(self._process)

    def _name_tensors(self, inputs: ModelInputs) -> Any:
        assert inputs.pixel_values is not None
        tensors = self.og.NamedTensors()
        tensors["input_ids"] = np.atleast_2d(inputs.input_ids)
        tensors["pixel_values"] = inputs.pixel_values.astype(self._pixel_dtype, copy=False)
        tensors["image_sizes"] = inputs.image_sizes
        tensors["num_image_tokens"] = np.array(inputs.image_tokens, dtype=np.int64)
        return tensors


def _check_slots(inputs: ModelInputs) -> None:
    """Refuse image slots without a feature or features without a slot: no graph for a GPU would notice.

    The vision graph makes as many features as the images' sizes say.
    """
    slots = int(np.count_nonzero(inputs.input_ids < 0))
    sizes = [] if inputs.image_sizes is None else inputs.image_sizes.tolist()
    features = sum(hd.HdPlan((0, 0), height // hd.CROP, width // hd.CROP).image_tokens for height, width in sizes)
    if not slots == features == sum(inputs.image_tokens):
        raise InferenceError(
            f"the prompt has {slots} image slots for {features} image features ({sum(inputs.image_tokens)} announced); "
            "make inputs with the backend's `preprocess`"
        )


def force_tokens(generator: Any, logits: npt.NDArray[np.floating], tokens: Mapping[int, int]) -> None:
    """Leave genai exactly one token to take in each of the given rows.

    `logits` are the generator's own, [rows, positions, vocab], and are overwritten. genai's sampler and penalty are not
    used: its top_p without top_k draws tokens from outside the nucleus, and its penalty indexes the logits with the
    negative ids of image slots (measured with genai 0.18).
    """
    for row, token in tokens.items():
        logits[row].fill(-np.inf)
        logits[row, -1, token] = 0.0
    generator.set_logits(logits)


def import_genai(device: Device = "cpu") -> ModuleType:
    """Import onnxruntime_genai with its telemetry off. Raises MissingDependencyError that names the extra.

    The CUDA libraries, 0.3 GB of memory, are loaded for that device only.
    """
    switch_off_genais_telemetry()
    if device == "cuda" and installed("onnxruntime-genai-cuda"):
        preload_cuda_libraries()
    try:
        return importlib.import_module("onnxruntime_genai")
    except ImportError as exc:
        wanted = "cuda" if installed("onnxruntime-genai-cuda") else "cpu"
        raise MissingDependencyError(
            f"onnxruntime-genai cannot be imported ({exc}); run: {install_line(wanted)}"
            + ("" if wanted == "cuda" else "  (or the extra cuda with an NVIDIA GPU)")
        ) from exc


def load_model(
    og: ModuleType,
    folder: ModelDir,
    device: Device,
    *,
    cuda_graph: bool = False,
    threads: int | None = None,
    prefill: Prefill | None = None,
    rewindable: bool = False,
    sdpa_kernel: int | None = None,
) -> Any:
    """genai's model of a folder on one device.

    Raises ModelFolderError, DeviceError, OptionError or MissingDependencyError. `rewindable` models rewind, but genai
    offers no processor for them: it finds both by the model's type.
    """
    graphs = choose_graphs(folder, device, wanted_prefill(prefill))
    try:
        config = og.Config(str(folder.path))
        count = wanted_threads(threads)
        set_providers(og, config, folder, device, threads=count, cuda_graph=cuda_graph, sdpa_kernel=sdpa_kernel)
        if graphs:
            config.overlay(json.dumps({"model": {part: {"filename": name} for part, name in graphs.items()}}))
        if rewindable:
            config.overlay(json.dumps({"model": {"type": _REWINDABLE_TYPE}}))
        return og.Model(config)
    except Phi3VError:
        raise
    except RuntimeError as exc:
        raise ModelFolderError(
            f"{folder.path} cannot be loaded on {device}: {first_line(exc)}; if a file is damaged, fetch or export the "
            "model again; `phi3v doctor` checks this machine"
        ) from exc


@contextmanager
def mapped_errors(stage: str) -> Iterator[None]:
    """Turn what genai raises into an InferenceError that says at which stage; genai raises RuntimeError for all."""
    try:
        yield
    except (RuntimeError, MemoryError) as exc:
        raise InferenceError(f"onnxruntime-genai failed during {stage}: {first_line(exc)}") from exc


def first_line(exc: BaseException) -> str:
    """An exception's message in one line."""
    return (str(exc).strip() or type(exc).__name__).splitlines()[0]
