"""On a CUDA made of nothing: what runs on the GPU, and what each token costs in copies and launches."""

from collections import Counter
from pathlib import Path

import pytest
from fake_cuda import SWITCH, Probe

pytestmark = [pytest.mark.slow, pytest.mark.torch]

ARITHMETIC = {
    # Sums of a few integers, which the host needs to allocate what comes next.
    "vision": {"Squeeze": 2, "Concat": 1, "Add": 1},
    "embedding": {},
    "decoder": {"Gather": 1, "Cast": 1, "Greater": 1, "Where": 2},
}
"""Nodes of each graph that ONNX Runtime keeps on the CPU, by their operators."""


def test_every_node_but_arithmetic_of_lengths_runs_on_the_gpu(run_probe: Probe, profiled: Path) -> None:
    places = run_probe("places", folder=profiled)
    for graph, expected in ARITHMETIC.items():
        providers = Counter(provider for _, provider in places[graph].values())
        assert providers["CUDAExecutionProvider"] > 10, f"{graph}: {providers}"
        assert Counter(op for op, provider in places[graph].values() if provider == "CPUExecutionProvider") == expected


def test_decoder_and_embedding_copy_nothing_between_their_nodes(run_probe: Probe, profiled: Path) -> None:
    places = run_probe("places", folder=profiled)
    copies = {graph: [op for op, _ in nodes.values() if op.startswith("Memcpy")] for graph, nodes in places.items()}
    assert copies["decoder"] == copies["embedding"] == []
    assert len(copies["vision"]) == 3


def test_loading_brings_the_weights_of_all_three_graphs_to_the_gpu(run_probe: Probe, folder: Path) -> None:
    weights = sum(path.stat().st_size for path in folder.glob("*.onnx.data"))
    assert run_probe("load", folder=folder)["bytes_h2d"] > 0.95 * weights


def test_a_token_copies_nothing_to_the_gpu_and_nothing_back(run_probe: Probe, folder: Path) -> None:
    first, *others = run_probe("steps", folder=folder, images=1)
    assert (first["copies_h2d"], first["copies_d2h"]) == (4, 2)
    assert [(step["copies_h2d"], step["copies_d2h"]) for step in others] == [(0, 0)] * 5


def test_a_token_past_the_switch_copies_nothing_either(run_probe: Probe, folder: Path) -> None:
    _, *others = run_probe("steps", folder=folder, length=SWITCH + 1)
    assert [(step["copies_h2d"], step["copies_d2h"]) for step in others] == [(0, 0)] * 5


def test_every_token_takes_the_same_few_launches(run_probe: Probe, folder: Path) -> None:
    _, *others = run_probe("steps", folder=folder, images=1)
    assert len({step["launches"] for step in others}) == 1
    assert others[0]["launches"] <= 10 * 2 + 30  # ten a layer; embedding, head and genai's own search take the rest


def test_a_cuda_graph_is_captured_once_and_replayed_with_every_token(run_probe: Probe, folder: Path) -> None:
    first, second, *others = run_probe("steps", folder=folder, images=1, cuda_graph=True)
    assert (first["captures"], second["captures"], second["syncs_in_capture"]) == (0, 1, 0)
    assert second["captured_launches"] > 10
    for step in others:
        assert (step["captures"], step["replays"], step["copies_h2d"], step["copies_d2h"]) == (0, 1, 0, 0)
        assert step["launches"] < 20  # the embedding's and genai's own


def test_an_answer_across_the_switch_reads_its_prompt_again(run_probe: Probe, folder: Path) -> None:
    steps = run_probe("steps", folder=folder, length=SWITCH - 4, tokens=12)
    launches = [step["launches"] for step in steps]
    assert launches[4] == launches[6] < launches[5]  # 5: the first whose sequence is longer than the switch


def test_an_answer_across_the_switch_is_captured_on_either_side(run_probe: Probe, folder: Path) -> None:
    steps = run_probe("steps", folder=folder, length=SWITCH - 4, tokens=12, cuda_graph=True)
    assert [step["captures"] for step in steps] == [0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]
    assert [step["replays"] for step in steps] == [0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1]


def test_a_session_sends_its_image_once(run_probe: Probe, folder: Path) -> None:
    first, *others = run_probe("session", folder=folder)
    assert first["bytes_h2d"] > 2 * 3 * 336 * 336 * 2
    assert all(turn["bytes_h2d"] < 10_000 and turn["launches"] < first["launches"] for turn in others)


@pytest.mark.parametrize(("length", "images"), [(20, 1), (SWITCH - 6, 0)])
def test_batches_run_with_images_and_across_the_switch(
    run_probe: Probe, folder: Path, length: int, images: int
) -> None:
    assert run_probe("batch", folder=folder, length=length, images=images, tokens=12) == {"0": 12, "1": 12, "2": 12}


CUDNN, FLASH = 8, 1
LENGTHS = [20, 21, 22, 23]


def plans(run_probe: Probe, folder: Path, **options: int | dict[str, str]) -> int:
    """Descriptors that cuDNN finalises for the first two tokens of four prompts, but the first one's."""
    _, *others = run_probe("prompts", folder=folder, lengths=LENGTHS, **options)
    return sum(prompt["cudnnBackendFinalize"] for prompt in others)


def test_prompts_of_new_lengths_make_no_plans_unless_cudnn_is_asked_for(run_probe: Probe, folder: Path) -> None:
    assert plans(run_probe, folder) == plans(run_probe, folder, sdpa_kernel=FLASH) < 20
    assert plans(run_probe, folder, env={"FAKE_CUDA_SM": "80"}) < 20
    assert plans(run_probe, folder, sdpa_kernel=CUDNN) > 300


def test_buffers_of_few_lengths_make_fewer_plans(run_probe: Probe, folder: Path) -> None:
    assert plans(run_probe, folder, sdpa_kernel=CUDNN, buffer_step=256) < 0.7 * plans(
        run_probe, folder, sdpa_kernel=CUDNN
    )
