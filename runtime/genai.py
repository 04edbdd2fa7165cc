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

from .backend import BatchGeneration, BatchRow, Generation, ModelInputs
from .device import Device, installed, preload_cuda_libraries
from .errors import InferenceError, MissingDependencyError, ModelFolderError, OptionError, PromptError
from .genai_batch import MAX_BATCH_SIZE, GenaiBatch, batch_bytes, ignores_padding
from .genai_errors import first_line, mapped_errors
from .model_dir import ModelDir
from .preprocess import HdPreprocessor, int32
from .prompt import PromptLayout
from .sampling import TokenChooser
from .telemetry import switch_off_genais_telemetry
from .threads import compute_threads
from .types import MAX_CROPS

_SEARCH = {"do_sample": False, "num_beams": 1, "min_length": 0, "repetition_penalty": 1.0}
"""Every option that a folder's own `search` section could set otherwise."""


class GenaiBackend(HdPreprocessor):
    """One model folder loaded in onnxruntime-genai.

    Preprocessing is ours (preprocess.py), equal to the reference. `cuda_graph` replays each decoding step as one
    recorded CUDA graph; `threads` None takes one for each physical core.
    """

    def __init__(
        self, model: ModelDir, device: Device, *, cuda_graph: bool = False, threads: int | None = None
    ) -> None:
        self._og = import_genai()
        super().__init__(model, device)
        self._model = load_model(self._og, model, device, cuda_graph=cuda_graph, threads=threads)
        self._pixel_dtype = np.dtype(model.pixel_dtype) if model.pixel_dtype else self._probe_pixel_dtype()
        self._max_batch_size: int | None = None

    def start(self, inputs: ModelInputs, chooser: TokenChooser, max_new_tokens: int) -> Generation:
        """A generation over `inputs`; its KV buffer holds prompt + `max_new_tokens`, no more."""
        return _GenaiGeneration(self, inputs, chooser, max_new_tokens)

    def resume(
        self, inputs: ModelInputs, chooser: TokenChooser, max_new_tokens: int, generated: Sequence[int]
    ) -> Generation:
        """A generation that goes on behind `generated`, which count among the `max_new_tokens`."""
        return _GenaiGeneration(self, inputs, chooser, max_new_tokens, generated)

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

    def _probe_pixel_dtype(self) -> np.dtype[Any]:
        """The vision graph's input type, read off what genai's processor makes of one small picture."""
        with mapped_errors("loading"):
            processor = self._model.create_multimodal_processor()
            return np.dtype(
                _run_processor(self._og, processor, "<|image_1|>", [Image.new("RGB", (1, 1))])["pixel_values"].dtype
            )


class GenaiProcessorBackend(GenaiBackend):
    """The same model behind genai's own multimodal processor, for comparison.

    Differs from the reference: no BOS, always 16 crops, the global crop antialiased. Pictures reach it as PNGs that
    Pillow encoded.
    """

    def __init__(self, model: ModelDir, device: Device) -> None:
        super().__init__(model, device)
        with mapped_errors("loading"):
            self._processor = self._model.create_multimodal_processor()

    @property
    def num_crops(self) -> int:
        """Always 16, whatever the folder says."""
        return MAX_CROPS

    def preprocess(self, prompt: str, pictures: Sequence[Image.Image], num_crops: int) -> ModelInputs:
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

    def close(self) -> None:
        """Drop the model and the processor, which holds it too."""
        super().close()
        self._processor = None


class _GenaiGeneration:
    """One sequence. Crossing the LongRoPE switch it starts over with the whole sequence, as the reference does."""

    def __init__(
        self,
        backend: GenaiBackend,
        inputs: ModelInputs,
        chooser: TokenChooser,
        max_new_tokens: int,
        generated: Sequence[int] = (),
    ) -> None:
        self._backend: GenaiBackend | None = backend
        self._inputs = inputs
        self._chooser = chooser
        self._generated = list(generated)
        self._max_length = len(inputs.input_ids) + max_new_tokens
        self._limit = 0
        """Length of the KV buffer of the running generator; 0 before there is one."""
        self._generator: Any = None

    def step(self) -> int:
        """Next token id; the first call runs vision and prefill, and so does the one that crosses the switch."""
        if self._backend is None:
            raise InferenceError("this generation is closed; start a new one")
        length = len(self._inputs.input_ids) + len(self._generated)
        if length >= self._limit:
            self._restart(self._backend, length)
        with mapped_errors("generation"):
            if not self._chooser.plain:
                self._choose()
            self._generator.generate_next_token()
            token = int(self._generator.get_next_tokens()[0])
        self._generated.append(token)
        return token

    def close(self) -> None:
        """Free the KV cache."""
        self._generator = None
        self._backend = None

    def _restart(self, backend: GenaiBackend, length: int) -> None:
        self._generator = None  # free the old KV buffer before the new one is allocated
        switch = backend.model.original_context_length
        self._limit = min(self._max_length, switch + 1) if switch and length <= switch else self._max_length
        ids = np.concatenate([self._inputs.input_ids, int32(self._generated)])
        whole = ModelInputs(ids, self._inputs.pixel_values, self._inputs.image_sizes, self._inputs.image_tokens)
        self._generator = backend.new_generator(whole, self._limit)

    def _choose(self) -> None:
        """Leave genai one token to take. Its own sampler and penalty are not used: top_p without top_k draws tokens
        from outside the nucleus, and the penalty indexes logits with the negative picture slots.
        """
        logits = self._generator.get_logits()
        token = self._chooser.choose(logits[0, -1])
        logits.fill(-np.inf)
        logits[0, -1, token] = 0.0
        self._generator.set_logits(logits)


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
    og: ModuleType, model: ModelDir, device: Device, *, cuda_graph: bool = False, threads: int | None = None
) -> Any:
    """genai's model of a folder on one device. Raises ModelFolderError."""
    try:
        config = og.Config(str(model.path))
        config.clear_providers()
        if device == "cuda":
            config.append_provider("cuda")
            config.set_provider_option("cuda", "enable_cuda_graph", "1" if cuda_graph else "0")
        count = compute_threads() if threads is None else threads
        options = {"session_options": {"intra_op_num_threads": count}}
        config.overlay(json.dumps({"model": dict.fromkeys(("decoder", "embedding", "vision"), options)}))
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
