"""onnxruntime-genai loads the folder and generates from ready-made tensors."""

from pathlib import Path

import numpy as np
import onnxruntime_genai as og
import pytest
import torch
from transformers import Phi3ForCausalLM

from phi3v.models.folder import ModelDir

pytestmark = pytest.mark.torch

TOKENS = 2 * 144 + 1 + 24


def generate(folder: Path, ids: list[int], *, picture: bool = False, more: list[int] | None = None) -> list[int]:
    """Six greedy tokens, then three after `more`."""
    inputs = og.NamedTensors()
    inputs["input_ids"] = np.array([ids], dtype=np.int32)
    if picture:
        pixels = np.random.default_rng(0).standard_normal((1, 2, 3, 336, 336), dtype=np.float32)
        inputs["pixel_values"] = pixels.astype(ModelDir.open(folder).pixel_dtype)
        inputs["image_sizes"] = np.array([[336, 336]], dtype=np.int64)
        inputs["num_image_tokens"] = np.array([TOKENS], dtype=np.int64)
    model = og.Model(str(folder))
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=len(ids) + 40, min_length=len(ids) + 40)
    generator = og.Generator(model, params)
    generator.set_inputs(inputs)
    tokens = [next_token(generator) for _ in range(6)]
    if more is not None:
        generator.append_tokens(np.array(more, dtype=np.int32))
        tokens += [next_token(generator) for _ in range(3)]
    return tokens


def next_token(generator: og.Generator) -> int:
    generator.generate_next_token()
    return int(generator.get_next_tokens()[0])


def prompt(folder: Path, slots: int = 0) -> list[int]:
    tokenizer = og.Tokenizer(og.Model(str(folder)))
    before = [int(i) for i in tokenizer.encode("<|user|>\n")]
    after = [int(i) for i in tokenizer.encode("\nWhat is this?<|end|>\n<|assistant|>\n")]
    return [*before, *[-1] * slots, *after]


@pytest.fixture(params=["fp32_model", "int4_model", "fp16_model"])
def folder(request: pytest.FixtureRequest) -> Path:
    built: Path = request.getfixturevalue(request.param)
    return built


def test_text_alone_generates(folder: Path) -> None:
    assert og.Model(str(folder)).type == "phi3v"
    assert len(generate(folder, prompt(folder))) == 6


def test_picture_generates_and_the_conversation_goes_on(folder: Path) -> None:
    assert len(generate(folder, prompt(folder, TOKENS), picture=True, more=prompt(folder))) == 9


@pytest.mark.parametrize("slots", [TOKENS - 1, TOKENS + 1])
def test_wrong_number_of_slots_raises(folder: Path, slots: int) -> None:
    with pytest.raises(RuntimeError, match="ScatterND"):
        generate(folder, prompt(folder, slots), picture=True)


@pytest.mark.parametrize("length", [200, 255, 256, 257, 300])
def test_first_token_equals_transformers_on_both_sides_of_the_switch(
    fp32_model: Path, stock: Phi3ForCausalLM, length: int
) -> None:
    ids = np.random.default_rng(length).integers(3, 400, length)
    with torch.no_grad():
        expected = int(stock(torch.from_numpy(ids[None])).logits[0, -1].argmax())
    assert generate(fp32_model, ids.tolist())[0] == expected
