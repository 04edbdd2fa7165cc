"""The onnxruntime-genai backend. The only file that imports it.

Everything untrusted stays outside: genai sees tensors of ours, or (with its own processor) PNGs that Pillow wrote.
"""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..backend import BatchGeneration, BatchRow, Generation, ModelInputs, Reuse
from ..errors import InferenceError, MissingDependencyError, ModelFolderError, OptionError, PromptError
from ..limits import MAX_BATCH_SIZE
from ..machine.device import Device, installed, preload_cuda_libraries
from ..machine.telemetry import switch_off_genais_telemetry
from ..machine.threads import compute_threads
from ..models.folder import ModelDir
from ..preprocess import HdPreprocessor, int32
from ..prompt import PromptLayout
from ..sampling import TokenChooser
from ..types import MAX_CROPS, NumCrops
from .batch import GenaiBatch, batch_bytes, ignores_padding
from .generation import GenaiGeneration
from .model import first_line, mapped_errors

_SEARCH = {"do_sample": False, "num_beams": 1, "min_length": 0, "repetition_penalty": 1.0}
"""Every option that a folder's own `search` section could set otherwise."""

_REWINDABLE_TYPE = "gemma3"
"""genai refuses to rewind a "phi3v" by the name of its type. This one runs the same pipeline, and is not refused."""


class GenaiBackend(HdPreprocessor):
    """One model folder loaded in onnxruntime-genai.

    Preprocessing is ours (preprocess.py), equal to the reference. `cuda_graph` replays each decoding step as one
    recorded CUDA graph; `threads` None takes one for each physical core. `rewinds`: its generators can go back to an
    earlier length and on from there. (Rewinding leaves the KV buffer and a CUDA graph's mask as they are, which is
    right for a buffer that is written in place and wrong for anything else.)
    """

    _rewindable = True

    def __init__(
        self, model: ModelDir, device: Device, *, cuda_graph: bool = False, threads: int | None = None
    ) -> None:
        if model.pixel_dtype is None:
            raise ModelFolderError(
                f"the vision graph of {model.path} takes no float32 or float16 pixel_values; "
                "fetch or export the model again"
            )
        self._og = import_genai()
        super().__init__(model, device)
        self.rewinds = self._rewindable and model.shared_kv_buffer and not cuda_graph
        self._model = load_model(
            self._og, model, device, cuda_graph=cuda_graph, threads=threads, rewindable=self.rewinds
        )
        self._pixel_dtype = np.dtype(model.pixel_dtype)
        self._max_batch_size: int | None = None

    @property
    def closed(self) -> bool:
        """Whether the model was dropped."""
        return self._model is None

    def start(self, inputs: ModelInputs, chooser: TokenChooser, max_new_tokens: int) -> Generation:
        """A generation over `inputs`; its KV buffer holds prompt + `max_new_tokens`, no more."""
        switch = self._model_dir.original_context_length
        return GenaiGeneration(self.new_generator, switch, inputs, chooser, max_new_tokens)

    def reuse(self) -> Reuse:
        """Generations that take over each other's KV cache."""
        from .prefix_cache import KvReuse

        return KvReuse(self)

    def resume(
        self, inputs: ModelInputs, chooser: TokenChooser, max_new_tokens: int, generated: Sequence[int]
    ) -> Generation:
        """A generation that goes on behind `generated`, which count among the `max_new_tokens`."""
        switch = self._model_dir.original_context_length
        return GenaiGeneration(self.new_generator, switch, inputs, chooser, max_new_tokens, generated=generated)

    @property
    def max_batch_size(self) -> int:
        """genai's own limit; 1 for a folder whose graph does not stand padding."""
        if self._max_batch_size is None:
            self._max_batch_size = MAX_BATCH_SIZE if ignores_padding(self) else 1
        return self._max_batch_size

    def batch_bytes(self, rows: Sequence[ModelInputs], max_new_tokens: int) -> int:
        """Most bytes a batch of these takes, an estimate on the safe side."""
        return batch_bytes(self.model, rows, max_new_tokens)

    def start_batch(self, rows: Sequence[BatchRow]) -> BatchGeneration:
        """Several generations in one loop. Raises InferenceError for rows on both sides of the LongRoPE switch."""
        return GenaiBatch(self, rows)

    def close(self) -> None:
        """Drop the model; memory is freed when the last generation is closed."""
        self._model = None

    def new_generator(self, inputs: ModelInputs, max_length: int, rows: int = 1) -> Any:
        """A greedy genai generator that has run vision and prefill over `inputs`, ids [L] or [`rows`, L]."""
        model = self._open_model()
        with mapped_errors("vision and prefill"):
            params = self._og.GeneratorParams(model)
            params.set_search_options(max_length=max_length, batch_size=rows, **_SEARCH)
            generator = self._og.Generator(model, params)
            if inputs.pixel_values is None:
                generator.append_tokens(inputs.input_ids.ravel())
            else:
                generator.set_inputs(self._named_tensors(inputs))
        return generator

    def _open_model(self) -> Any:
        model = self._model
        if model is None:
            raise InferenceError("this engine is closed; load the model again")
        return model

    def _named_tensors(self, inputs: ModelInputs) -> Any:
        assert inputs.pixel_values is not None
        tensors = self._og.NamedTensors()
        tensors["input_ids"] = np.atleast_2d(inputs.input_ids)
        tensors["pixel_values"] = inputs.pixel_values.astype(self._pixel_dtype, copy=False)
        tensors["image_sizes"] = inputs.image_sizes
        tensors["num_image_tokens"] = np.array(inputs.image_tokens, dtype=np.int64)
        return tensors


class GenaiProcessorBackend(GenaiBackend):
    """The same model behind genai's own multimodal processor, for comparison.

    Differs from the reference: no BOS, always 16 crops, the global crop antialiased. Pictures reach it as PNGs that
    Pillow encoded.
    """

    _rewindable = False  # its processor is found by the model's type

    def __init__(self, model: ModelDir, device: Device) -> None:
        super().__init__(model, device)
        with mapped_errors("loading"):
            self._processor = self._model.create_multimodal_processor()

    @property
    def num_crops(self) -> int:
        """Always 16, whatever the folder says."""
        return MAX_CROPS

    def preprocess(self, prompt: str, pictures: Sequence[Image.Image], num_crops: NumCrops) -> ModelInputs:
        """Drive genai's processor. Raises OptionError or PromptError for what it cannot do."""
        if num_crops != MAX_CROPS:
            raise OptionError(f'num_crops is {num_crops}; with processor="genai" it is always {MAX_CROPS}')
        layout = PromptLayout.of(prompt, len(pictures))
        if self.tokenizer.has_control_text(prompt):
            raise PromptError('processor="genai" would read a control token spelled in the prompt as control; rephrase')
        model = self._open_model()
        if not pictures:
            with mapped_errors("preprocessing"):
                ids = self._og.Tokenizer(model).encode(layout.text())
            return ModelInputs(int32(ids), None, None, ())
        with mapped_errors("preprocessing"):
            made = _run_processor(self._og, self._processor, layout.text(), [pictures[i] for i in layout.order])
        tokens = tuple(int(n) for n in np.ravel(made["num_image_tokens"]))
        return ModelInputs(int32(made["input_ids"][0]), made["pixel_values"], made["image_sizes"], tokens)

    def reuse(self) -> Reuse:
        """Refused: a session prepares its pictures and prompts the way of this project."""
        raise OptionError('processor="genai" keeps no sessions; load the model without it')

    def close(self) -> None:
        """Drop the model and the processor, which holds it too."""
        super().close()
        self._processor = None


def import_genai() -> ModuleType:
    """Import onnxruntime_genai with its telemetry off. Raises MissingDependencyError that names the extra."""
    switch_off_genais_telemetry()
    if installed("onnxruntime-genai-cuda"):
        preload_cuda_libraries()
    try:
        return importlib.import_module("onnxruntime_genai")
    except ImportError as exc:
        wanted = "cuda" if installed("onnxruntime-genai-cuda") else "cpu"
        raise MissingDependencyError(
            f"onnxruntime-genai cannot be imported ({exc}); run: pip install 'phi3v[{wanted}]'"
            + ("" if wanted == "cuda" else "  (or 'phi3v[cuda]' with an NVIDIA GPU)")
        ) from exc


def load_model(
    og: ModuleType,
    model: ModelDir,
    device: Device,
    *,
    cuda_graph: bool = False,
    threads: int | None = None,
    rewindable: bool = False,
) -> Any:
    """genai's model of a folder on one device. Raises ModelFolderError.

    `rewindable` models rewind; they have no processor of genai's, which goes by the type too.
    """
    try:
        config = og.Config(str(model.path))
        config.clear_providers()
        if device == "cuda":
            config.append_provider("cuda")
            config.set_provider_option("cuda", "enable_cuda_graph", "1" if cuda_graph else "0")
        count = compute_threads() if threads is None else threads
        options = {"session_options": {"intra_op_num_threads": count}}
        config.overlay(json.dumps({"model": dict.fromkeys(("decoder", "embedding", "vision"), options)}))
        if rewindable:
            config.overlay(json.dumps({"model": {"type": _REWINDABLE_TYPE}}))
        return og.Model(config)
    except RuntimeError as exc:
        raise ModelFolderError(
            f"{model.path} cannot be loaded on {device}: {first_line(exc)}; if a file is damaged, fetch or export the "
            "model again; `phi3v doctor` checks this machine"
        ) from exc


def _run_processor(
    og: ModuleType, processor: Any, text: str, pictures: Sequence[Image.Image]
) -> dict[str, npt.NDArray[Any]]:
    images = og.Images.open_bytes(*(_png(picture) for picture in pictures))
    made = processor(text, images=images)
    arrays = {name: np.array(made[name].as_numpy()) for name in ("input_ids", "pixel_values", "num_image_tokens")}
    # genai hands out int64 as C's long long, which it refuses to take back.
    return arrays | {"image_sizes": np.array(made["image_sizes"].as_numpy().tolist(), dtype=np.int64)}


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()
