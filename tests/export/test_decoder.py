"""The decoder equals stock transformers, on both sides of the LongRoPE switch, and streams its weights."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformers import Phi3ForCausalLM

from phi3v.export.checkpoint import Checkpoint
from phi3v.export.decoder import write_decoder
from phi3v.export.observe import open_all_positions
from phi3v.export.quantize import BlockQuantization
from phi3v.export.synthetic import tiny_dims, write_random_checkpoint

pytestmark = pytest.mark.torch

Open = Callable[[Path], onnxruntime.InferenceSession]
SWITCH = 256


def logits_of_both(
    decoder: onnxruntime.InferenceSession, stock: Phi3ForCausalLM, length: int
) -> tuple[np.ndarray, np.ndarray]:
    ids = torch.from_numpy(np.random.default_rng(length).integers(3, 400, (1, length)))
    with torch.no_grad():
        embeds = stock.model.embed_tokens(ids)
        expected = stock(inputs_embeds=embeds).logits.numpy()
    feed = {"inputs_embeds": embeds.numpy(), "attention_mask": np.ones((1, length), dtype=np.int64)}
    config = stock.config
    head = config.hidden_size // config.num_attention_heads
    empty = np.zeros((1, config.num_key_value_heads, 0, head), dtype=np.float32)
    feed |= {inp.name: empty for inp in decoder.get_inputs() if inp.name.startswith("past_key_values")}
    return decoder.run(["logits"], feed)[0], expected


@pytest.mark.parametrize("length", [1, 40, 255, 256, 257, 400])
def test_logits_equal_transformers_below_and_beyond_the_switch(
    fp32_model: Path, stock: Phi3ForCausalLM, length: int
) -> None:
    logits, expected = logits_of_both(open_all_positions(fp32_model / "text.onnx"), stock, length)
    np.testing.assert_allclose(logits, expected, atol=1e-3)


def test_each_row_gets_the_logits_of_its_last_real_position(fp32_model: Path, session: Open) -> None:
    """In the prompt, behind padding, and in the step after it."""
    decoder, whole = session(fp32_model / "text.onnx"), open_all_positions(fp32_model / "text.onnx")
    embeds = np.random.default_rng(3).standard_normal((2, 8, 64)).astype(np.float32)
    mask = np.array([[1] * 5 + [0] * 3, [1] * 8], dtype=np.int64)
    caches = {
        wanted.name: np.zeros((2, 4, 0, 16), dtype=np.float32)
        for wanted in decoder.get_inputs()
        if wanted.name.startswith("past_key_values")
    }
    feed = {"inputs_embeds": embeds, "attention_mask": mask, **caches}
    logits, *present = decoder.run(None, feed)
    (expected,) = whole.run(["logits"], feed)
    assert logits.shape == (2, 1, 512)
    np.testing.assert_array_equal(logits[:, 0], np.stack([expected[0, 4], expected[1, 7]]))
    # Under a CUDA graph, the mask is as wide as the KV buffer.
    buffers = {name: np.zeros((1, 4, 13, 16), dtype=np.float32) for name in caches}
    wide = {"inputs_embeds": embeds[1:], "attention_mask": np.array([[1] * 8 + [0] * 5]), **buffers}
    np.testing.assert_array_equal(decoder.run(["logits"], wide)[0], whole.run(["logits"], wide)[0][:, 7:])
    longer = np.concatenate([mask, np.ones((2, 1), np.int64)], axis=1)
    feed = {"inputs_embeds": embeds[:, :1], "attention_mask": longer, **dict(zip(caches, present, strict=True))}
    np.testing.assert_array_equal(decoder.run(["logits"], feed)[0], whole.run(["logits"], feed)[0])


def test_the_switch_makes_a_difference(stock: Phi3ForCausalLM) -> None:
    ids = torch.arange(3, 260)[None]
    with torch.no_grad():
        short = stock(ids[:, :256]).logits
        long = stock(ids).logits[:, :256]
    assert (short - long).abs().max() > 0.1


def test_rotary_caches_equal_transformers_bit_for_bit(fp32_model: Path, stock: Phi3ForCausalLM) -> None:
    graph = onnx.load(fp32_model / "text.onnx", load_external_data=False).graph
    branches = [attribute.g for node in graph.node if node.op_type == "If" for attribute in node.attribute]
    assert len(branches) == 2
    for node in (node for branch in branches for node in branch.node):
        cache = onnx.numpy_helper.to_array(node.attribute[0].t)
        half = cache.shape[1]
        with torch.no_grad():
            cos, sin = stock.model.rotary_emb(torch.zeros(1), torch.arange(len(cache))[None])
        np.testing.assert_array_equal(cache, (cos if "cos" in node.output[0] else sin)[0, :, :half].numpy())


@pytest.fixture(scope="module", params=["fp32", "fp16", "int4"])
def decoders(
    request: pytest.FixtureRequest, checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """The same decoder made for the CPU and for CUDA."""
    folder = tmp_path_factory.mktemp(request.param)
    dtype = np.float32 if request.param == "fp32" else np.float16
    quantization = BlockQuantization(4, 32, 0) if request.param == "int4" else None
    made = []
    for device in ("cpu", "cuda"):
        made.append(folder / f"{device}.onnx")
        write_decoder(checkpoint, made[-1], device=device, dtype=dtype, quantization=quantization)
    return made[0], made[1]


@pytest.mark.parametrize("length", [1, SWITCH - 1, SWITCH, SWITCH + 1, 2 * SWITCH])
def test_the_decoder_for_gpus_gives_the_same_logits_on_both_sides_of_the_switch(
    decoders: tuple[Path, Path], session: Open, length: int
) -> None:
    cpu, cuda = (read_and_go_on(session(path), length) for path in decoders)
    np.testing.assert_array_equal(cuda, cpu)


def read_and_go_on(decoder: onnxruntime.InferenceSession, length: int) -> np.ndarray:
    """Logits of a random prompt, and of three tokens behind it, read one by one."""
    inputs = {wanted.name: wanted for wanted in decoder.get_inputs()}
    dtype = np.float16 if inputs["inputs_embeds"].type == "tensor(float16)" else np.float32
    embeds = np.random.default_rng(length).standard_normal((1, length + 3, 64)).astype(dtype)
    caches = {name: np.zeros((1, 4, 0, 16), dtype=dtype) for name in inputs if name.startswith("past_key_values")}
    found, read = [], 0
    for end in range(length, length + 4):
        feed = {"inputs_embeds": embeds[:, read:end], "attention_mask": np.ones((1, end), dtype=np.int64)}
        logits, *present = decoder.run(None, feed | caches)
        caches = dict(zip(caches, present, strict=True))
        found.append(logits[0])
        read = end
    return np.concatenate(found)


def test_the_decoder_for_gpus_has_no_control_flow_and_the_one_for_the_cpu_keeps_it(
    decoders: tuple[Path, Path],
) -> None:
    cpu, cuda = (onnx.load(path, load_external_data=False).graph for path in decoders)
    assert [node.op_type for node in cpu.node].count("If") == 1
    assert not any(attribute.HasField("g") for node in cuda.node for attribute in node.attribute)
    assert {node.op_type for node in cuda.node} - {node.op_type for node in cpu.node} == {"Where"}


def test_the_caches_for_gpus_lie_beside_the_graph_and_not_in_it(decoders: tuple[Path, Path]) -> None:
    cpu, cuda = (path.stat().st_size for path in decoders)
    assert cuda < cpu / 10


def test_int4_logits_stay_close(int4_model: Path, stock: Phi3ForCausalLM) -> None:
    logits, expected = logits_of_both(open_all_positions(int4_model / "text.onnx"), stock, 40)
    cosine = np.sum(logits * expected) / np.linalg.norm(logits) / np.linalg.norm(expected)
    assert cosine > 0.95


def test_plain_rope_and_grouped_heads_equal_transformers(
    tmp_path: Path, load_stock: Callable[[Checkpoint], Phi3ForCausalLM]
) -> None:
    from dataclasses import replace

    dims = tiny_dims(original_context=None, context=512)
    dims = replace(dims, decoder=replace(dims.decoder, num_key_value_heads=2))
    checkpoint = Checkpoint.open(write_random_checkpoint(tmp_path / "plain", dims))
    write_decoder(checkpoint, tmp_path / "text.onnx", device="cpu", dtype=np.float32)
    logits, expected = logits_of_both(open_all_positions(tmp_path / "text.onnx"), load_stock(checkpoint), 40)
    np.testing.assert_allclose(logits, expected, atol=1e-3)


def peak_bytes(folder: Path, layers: int) -> int:
    dims = tiny_dims(hidden_size=512, heads=8, layers=layers, context=1024, original_context=512)
    checkpoint = Checkpoint.open(write_random_checkpoint(folder / f"{layers}", dims))
    tracemalloc.start()
    try:
        write_decoder(
            checkpoint,
            folder / f"{layers}.onnx",
            device="cpu",
            dtype=np.float32,
            quantization=BlockQuantization(4, 32, 4),
        )
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_number_of_layers(tmp_path: Path) -> None:
    peak_bytes(tmp_path, 1)  # imports
    assert peak_bytes(tmp_path, 12) < 1.2 * peak_bytes(tmp_path, 2)
