"""What is compared: ours, genai's own loop, the PyTorch reference and OpenVINO, each behind the same interface.

A subject runs in a process of its own (worker.py). Its engine is only imported when it is made.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from ..backend import Backend
from ..engine import Engine
from ..errors import OptionError
from ..models.folder import ModelDir
from .cases import PROMPT, Case
from .sample import Sample, count_decode_tokens, hash_tokens

SUBJECTS = ("ours", "ours-int4", "genai", "torch-fp32", "torch-bf16", "torch-fp16", "openvino")
"""ours: this project. ours-int4: the same without the int8 weights of a folder that has them. genai: the loop of its
own example. torch-*: the PyTorch reference in that precision. openvino: OpenVINO GenAI's VLMPipeline."""


class Subject(Protocol):
    """One loaded backend."""

    def run(self, case: Case, image: Path) -> Sample:
        """Answer the case's question about its image."""
        ...


def make_subject(
    name: str,
    model: Path,
    device: Literal["cpu", "cuda"],
    *,
    cuda_graph: bool = False,
    sdpa_kernel: int | None = None,
    buffer_step: int = 1,
    threads: int | None = None,
) -> Subject:
    """Load a subject. Raises only subclasses of Phi3VError.

    `model` is a model folder; for torch-* a checkpoint folder, for openvino a folder that openvino/folder.py wrote.
    `cuda_graph`, `sdpa_kernel` and `buffer_step` as in GenaiModel, for "ours".
    """
    if name in ("ours", "ours-int4"):
        from ..genai.backend import GenaiBackend

        return _EngineSubject(
            GenaiBackend(
                ModelDir.open(model),
                device,
                cuda_graph=cuda_graph,
                threads=threads,
                prefill="int4" if name == "ours-int4" else None,
                sdpa_kernel=sdpa_kernel,
                buffer_step=buffer_step,
            )
        )
    if name == "genai":
        return _ExampleLoop(ModelDir.open(model), device, threads)
    if name == "openvino":
        from .openvino.subject import OpenVinoSubject

        return OpenVinoSubject(model, device, threads)
    if name in SUBJECTS:
        import torch

        from .reference import ReferenceBackend

        if threads is not None:
            torch.set_num_threads(threads)

        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name.partition("-")[2]]
        return _EngineSubject(cast(Backend, ReferenceBackend(model, dtype, device)))
    raise OptionError(f"backend {name!r} is not known; allowed: {', '.join(SUBJECTS)}")


class _EngineSubject:
    """One of our backends behind the engine that people use. No answer ends early: the end of turn is switched off."""

    def __init__(self, backend: Backend) -> None:
        self._engine = Engine(_EndlessBackend(backend))

    def run(self, case: Case, image: Path) -> Sample:
        began, first, first_at = time.perf_counter(), 0.0, 0.0
        with self._engine.stream(PROMPT, [image], num_crops=case.num_crops, max_new_tokens=case.new_tokens) as stream:
            for _ in stream:
                if not first:
                    first, first_at = time.perf_counter() - began, time.monotonic()
            total = time.perf_counter() - began
            result = stream.result
        timings, usage = result.timings, result.usage
        return Sample(
            image_decode_s=timings.image_decode_s,
            preprocess_s=timings.preprocess_s,
            prefill_s=timings.prefill_s,
            ttft_s=first,
            decode_s=total - first,
            decode_tokens=count_decode_tokens(result.token_ids, case),
            total_s=total,
            prompt_tokens=usage.prompt_tokens,
            image_tokens=usage.image_tokens,
            first_token_at=first_at,
            tokens_digest=hash_tokens(result.token_ids),
        )


class _EndlessBackend:
    """A backend whose model never ends its turn."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.model = dataclasses.replace(backend.model, eos_token_ids=frozenset())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


class _ExampleLoop:
    """genai driven as its own example drives it: open, process, set inputs, generate, decode token by token.

    Source: examples/python/model-mm.py of onnxruntime-genai. It always makes 16 crops. It gets as many threads as ours;
    the example itself would take half of the logical CPUs.
    """

    def __init__(self, model: ModelDir, device: Literal["cpu", "cuda"], threads: int | None = None) -> None:
        from ..genai.model import import_genai, load_model

        self._og = import_genai(device)
        self._model = load_model(self._og, model, device, threads=threads)
        self._processor = self._model.create_multimodal_processor()

    def run(self, case: Case, image: Path) -> Sample:
        if case.num_crops != 16:
            raise OptionError(f"genai's own processor always makes 16 crops; leave it out of the case {case}")
        began = time.perf_counter()
        images = self._og.Images.open(str(image))
        prompt = f"<|user|>\n<|image_1|>\n{PROMPT}<|end|>\n<|assistant|>\n"
        inputs = self._processor(prompt, images=images)
        length = int(inputs["input_ids"].as_numpy().shape[1])
        image_tokens = int(inputs["num_image_tokens"].as_numpy().sum())
        preprocessed = time.perf_counter()
        params = self._og.GeneratorParams(self._model)
        # min_length suppresses the end of turn, so that every answer has its full length.
        full = length + case.new_tokens
        params.set_search_options(max_length=full, min_length=full, do_sample=False)
        generator = self._og.Generator(self._model, params)
        generator.set_inputs(inputs)
        stream = self._processor.create_stream()
        ids: list[int] = []
        first, first_at = 0.0, 0.0
        while not generator.is_done():
            generator.generate_next_token()
            ids.append(int(generator.get_next_tokens()[0]))
            stream.decode(ids[-1])
            if not first:
                first, first_at = time.perf_counter(), time.monotonic()
        ended = time.perf_counter()
        return Sample(
            image_decode_s=None,
            preprocess_s=preprocessed - began,
            prefill_s=first - preprocessed,
            ttft_s=first - began,
            decode_s=ended - first,
            decode_tokens=count_decode_tokens(ids, case),
            total_s=ended - began,
            prompt_tokens=length,
            image_tokens=image_tokens,
            first_token_at=first_at,
            tokens_digest=hash_tokens(ids),
        )
