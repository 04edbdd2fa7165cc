"""onnxruntime-genai loads the folder and generates from ready-made tensors."""

from pathlib import Path

import numpy as np
import onnxruntime_genai as og
import pytest
import torch
from transformers import Phi3ForCausalLM

TOKENS = 2 * 144 + 1 + 24


def generate(model: og.Model, ids: list[int], *, picture: bool = False, more: list[int] | None = None) -> list[int]:
    inputs = og.NamedTensors()
    inputs["input_ids"] = np.array([ids], dtype=np.int32)
    if picture:
        pixels = np.random.default_rng(0).standard_normal((1, 2, 3, 336, 336), dtype=np.float32)
        inputs["pixel_values"] = pixels
        inputs["image_sizes"] = np.array([[336, 336]], dtype=np.int64)
        inputs["num_image_tokens"] = np.array([TOKENS], dtype=np.int64)
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


def prompt(tokenizer: og.Tokenizer, slots: int = 0) -> list[int]:
    before = [int(i) for i in tokenizer.encode("<|user|>\n")]
    after = [int(i) for i in tokenizer.encode("\nWhat is this?<|end|>\n<|assistant|>\n")]
    return [*before, *[-1] * slots, *after]


@pytest.fixture(scope="module", params=["fp32_model", "int4_model"])
def model(request: pytest.FixtureRequest) -> og.Model:
    folder: Path = request.getfixturevalue(request.param)
    return og.Model(str(folder))


def test_text_alone_generates(model: og.Model) -> None:
    assert model.type == "phi3v"
    assert len(generate(model, prompt(og.Tokenizer(model)))) == 6


def test_picture_generates_and_the_conversation_goes_on(model: og.Model) -> None:
    tokenizer = og.Tokenizer(model)
    assert len(generate(model, prompt(tokenizer, TOKENS), picture=True, more=prompt(tokenizer))) == 9


@pytest.mark.parametrize("length", [200, 255, 256, 257, 300])
def test_first_token_equals_transformers_on_both_sides_of_the_switch(
    fp32_model: Path, stock: Phi3ForCausalLM, length: int
) -> None:
    ids = np.random.default_rng(length).integers(3, 400, length)
    with torch.no_grad():
        expected = int(stock(torch.from_numpy(ids[None])).logits[0, -1].argmax())
    assert generate(og.Model(str(fp32_model)), ids.tolist())[0] == expected


@pytest.mark.parametrize("slots", [TOKENS - 1, TOKENS + 1])
def test_wrong_number_of_slots_raises(model: og.Model, slots: int) -> None:
    with pytest.raises(RuntimeError, match="ScatterND"):
        generate(model, prompt(og.Tokenizer(model), slots), picture=True)
