"""What the tests of both plugins run: nano's examples, and small models with a LongRoPE switch that answers cross."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from places import ROOT

import phi3v
from phi3v.backend import ModelInputs
from phi3v.genai.backend import GenaiBackend
from phi3v.sampling import TokenChooser
from phi3v.types import SamplingParams

if TYPE_CHECKING:
    from phi3v.export.nano.examples import Example

SWITCH = 400
"""Beyond a prompt with one picture of one crop (313 tokens), and within its answer."""

DIMS: dict[str, Any] = {"seed": 1, "layers": 2, "context": 2048, "original_context": SWITCH, "dtype": "float32"}


def ask(engine: phi3v.Engine, example: Example) -> str:
    """The answer to one of the examples."""
    return engine.generate(example.question, [str(ROOT / "examples" / name) for name in example.files]).text


def last_logits(backend: GenaiBackend, inputs: ModelInputs) -> np.ndarray:
    """float32 [vocab]: the logits behind a prompt, from genai itself."""
    generator = backend.loaded.new_generator(inputs, len(inputs.input_ids) + 1)
    logits: np.ndarray = np.array(generator.get_logits())[0, -1].astype(np.float32)
    return logits


def generate(backend: GenaiBackend, inputs: ModelInputs, count: int) -> list[int]:
    """The first greedy tokens."""
    generation = backend.start(inputs, TokenChooser(SamplingParams(), inputs.input_ids), count)
    tokens = [generation.step() for _ in range(count)]
    generation.close()
    return tokens
