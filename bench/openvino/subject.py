"""OpenVINO GenAI as a benchmark subject: its VLMPipeline, driven as its own samples drive it.

Its preprocessing runs inside its vision graph, so it cannot be timed separately. The folder fixes the number of crops.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...errors import InferenceError, ModelFolderError, OptionError
from ..cases import PROMPT, Case
from ..extras import require_extra
from ..sample import Sample, count_decode_tokens, hash_tokens

_IMAGE_TAG = "<|image_1|>"


def import_openvino() -> tuple[Any, Any]:
    """Import (openvino, openvino_genai) with telemetry off. Raises MissingDependencyError."""
    require_extra("bench-openvino", "openvino_genai")
    # Importing openvino sends its version to a server through this module; without it, OpenVINO uses a stub.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino
    import openvino_genai

    return openvino, openvino_genai


def read_num_crops(folder: Path) -> int:
    """Read the number of crops that a folder was made for, as the pipeline does. Raises ModelFolderError."""
    path = folder / "preprocessor_config.json"
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["num_crops"])
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ModelFolderError(
            f"{path} has no num_crops ({exc}); make the folder with `phi3v bench openvino-folder`"
        ) from exc


@dataclass(frozen=True, slots=True)
class Answer:
    """Token ids and when they came: seconds after the call, and time.monotonic() of the first."""

    ids: tuple[int, ...]
    prompt_tokens: int
    first_s: float
    first_at: float
    total_s: float


class OpenVinoSubject:
    """A loaded pipeline. `properties` are OpenVINO's; without any it runs with OpenVINO's defaults."""

    def __init__(self, folder: Path, device: str, threads: int | None = None, **properties: Any) -> None:
        if device != "cpu":
            raise OptionError(f"openvino is measured on the CPU only, not on {device}; use --device cpu")
        self._num_crops = read_num_crops(folder)
        self._openvino, self._genai = import_openvino()
        if threads is not None:
            properties["INFERENCE_NUM_THREADS"] = threads
        self._pipeline = self._genai.VLMPipeline(
            str(folder), "CPU", scheduler_config=_make_scheduler(self._genai), **properties
        )

    def answer(self, text: str, pixels: npt.NDArray[np.uint8] | None, new_tokens: int) -> Answer:
        """Generate `new_tokens` greedy tokens. `text` includes control tokens; `pixels`: uint8 [height, width, 3]."""
        config = self._genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos = new_tokens, True
        config.do_sample, config.apply_chat_template = False, False
        watch = _make_watch(self._genai, self._pipeline.get_tokenizer())
        images = [] if pixels is None else [self._openvino.Tensor(pixels[None])]
        began = time.perf_counter()
        result = self._pipeline.generate(text, images=images, generation_config=config, streamer=watch)
        total = time.perf_counter() - began
        metrics = result.perf_metrics
        if metrics.get_num_generated_tokens() != len(watch.ids):
            raise InferenceError(
                f"openvino counts {metrics.get_num_generated_tokens()} tokens and streamed {len(watch.ids)}"
            )
        prompt_tokens = metrics.get_num_input_tokens()
        return Answer(tuple(watch.ids), prompt_tokens, watch.first_s - began, watch.first_at, total)

    def run(self, case: Case, image: Path) -> Sample:
        """Answer the case's question about its image."""
        if case.num_crops != self._num_crops:
            raise OptionError(f"this OpenVINO folder makes {self._num_crops} crops; leave it out of the case {case}")
        began = time.perf_counter()
        with Image.open(image) as opened:
            pixels = np.asarray(opened.convert("RGB"))
        decoded = time.perf_counter() - began
        text = f"<|user|>\n{_IMAGE_TAG}\n{PROMPT}<|end|>\n<|assistant|>\n"
        answer = self.answer(text, pixels, case.new_tokens)
        return Sample(
            image_decode_s=decoded,
            preprocess_s=None,
            prefill_s=answer.first_s,
            ttft_s=decoded + answer.first_s,
            decode_s=answer.total_s - answer.first_s,
            decode_tokens=count_decode_tokens(answer.ids, case),
            total_s=decoded + answer.total_s,
            prompt_tokens=answer.prompt_tokens,
            image_tokens=answer.prompt_tokens - self._count_text_tokens(text),
            first_token_at=answer.first_at,
            tokens_digest=hash_tokens(answer.ids),
        )

    def _count_text_tokens(self, text: str) -> int:
        """Count the tokens of the prompt's text, encoded chunk by chunk as the pipeline does."""
        encode = self._pipeline.get_tokenizer().encode
        return sum(int(encode(chunk, add_special_tokens=True).input_ids.shape[1]) for chunk in text.split(_IMAGE_TAG))


def _make_scheduler(genai: Any) -> Any:
    """Make the pipeline's own settings (the prompt in one piece), but without its cache of earlier prompts.

    With that cache, every round after the first would answer the same image without a prefill.
    """
    scheduler = genai.SchedulerConfig()
    scheduler.max_num_batched_tokens, scheduler.enable_prefix_caching = sys.maxsize, False
    return scheduler


def _make_watch(genai: Any, tokenizer: Any) -> Any:
    """Make a streamer that detokenises each token, as for a reader, and keeps the ids and the time of the first."""

    class Watch(genai.StreamerBase):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._reader = genai.TextStreamer(tokenizer, lambda piece: False)
            self.ids: list[int] = []
            self.first_s = self.first_at = 0.0

        def write(self, token: int | list[int]) -> Any:
            if not self.ids:
                self.first_s, self.first_at = time.perf_counter(), time.monotonic()
            self.ids += [token] if isinstance(token, int) else token
            return self._reader.write(token)

        def end(self) -> None:
            self._reader.end()

    return Watch()
