"""Folders whose graphs can be recorded as CUDA graphs, and the switch of LongRoPE's factors under such a graph."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import phi3v
from phi3v.backend import ModelInputs
from phi3v.errors import OptionError
from phi3v.export.build import export_model
from phi3v.export.synthetic import tiny_dims, write_random_checkpoint
from phi3v.genai.backend import GenaiBackend
from phi3v.genai.cuda_graph import require_cuda_graph
from phi3v.models.folder import ModelDir
from phi3v.sampling import TokenChooser
from phi3v.types import SamplingParams

pytestmark = pytest.mark.torch

SWITCH = 64


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dims = tiny_dims(original_context=SWITCH, context=1024)
    return write_random_checkpoint(tmp_path_factory.mktemp("graph") / "checkpoint", dims, seed=2)


@pytest.fixture(scope="module")
def cuda_folder(checkpoint: Path) -> Path:
    return export_model(checkpoint, checkpoint.parent / "cuda", precision="fp16", device="cuda")


@pytest.fixture(scope="module")
def cpu_folder(checkpoint: Path) -> Path:
    return export_model(checkpoint, checkpoint.parent / "cpu", precision="fp32")


def test_a_folder_made_for_cuda_can_be_recorded(cuda_folder: Path) -> None:
    require_cuda_graph(ModelDir.open(cuda_folder), "cuda")


def test_a_decoder_with_an_if_is_refused_and_the_export_named(cpu_folder: Path) -> None:
    with pytest.raises(OptionError, match=r"If node; leave the option out.*phi3v export CHECKPOINT FOLDER --device cu"):
        GenaiBackend(ModelDir.open(cpu_folder), "cuda", cuda_graph=True)


def test_vision_without_options_of_its_own_is_refused(cuda_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(cuda_folder, tmp_path / "published"))
    (folder / "phi3v.json").unlink()
    config = json.loads((folder / "genai_config.json").read_text())
    del config["model"]["vision"]["session_options"]
    (folder / "genai_config.json").write_text(json.dumps(config))
    with pytest.raises(OptionError, match=r"genai_config\.json gives vision and embedding no session_options"):
        require_cuda_graph(ModelDir.open(folder), "cuda")


def test_a_cuda_graph_on_the_cpu_is_refused(cpu_folder: Path) -> None:
    with pytest.raises(OptionError, match="needs the device cuda"):
        GenaiBackend(ModelDir.open(cpu_folder), "cpu", cuda_graph=True)


def test_load_takes_a_cuda_graph(cpu_folder: Path) -> None:
    with pytest.raises(OptionError, match="needs the device cuda"):
        phi3v.load(cpu_folder, "cpu", cuda_graph=True)
    with pytest.raises(OptionError, match="leave one of the two out"):
        phi3v.load(cpu_folder, "cpu", cuda_graph=True, processor="genai")


@pytest.fixture(scope="module")
def plain(cpu_folder: Path) -> GenaiBackend:
    return GenaiBackend(ModelDir.open(cpu_folder), "cpu")


@pytest.fixture(scope="module")
def recording(cpu_folder: Path) -> GenaiBackend:
    """Cut to the switch as with a CUDA graph; the CPU shows that the tokens stay the same."""
    backend = GenaiBackend(ModelDir.open(cpu_folder), "cpu", rewindable=False)
    backend.loaded.records = True
    return backend


def prompt(length: int) -> ModelInputs:
    return ModelInputs(np.random.default_rng(7).integers(3, 400, length).astype(np.int32), None, None, ())


def answer(backend: GenaiBackend, length: int, sampling: SamplingParams) -> list[int]:
    generation = backend.start(prompt(length), TokenChooser(sampling), 12)
    return [generation.step() for _ in range(12)]


@pytest.mark.parametrize(
    "sampling", [SamplingParams(), SamplingParams(temperature=0.8, seed=3)], ids=["greedy", "draw"]
)
@pytest.mark.parametrize("length", [20, SWITCH - 12, SWITCH - 5, SWITCH - 1, SWITCH, SWITCH + 1])
def test_a_buffer_that_ends_at_the_switch_gives_the_same_tokens(
    plain: GenaiBackend, recording: GenaiBackend, length: int, sampling: SamplingParams
) -> None:
    assert answer(recording, length, sampling) == answer(plain, length, sampling)


def test_under_a_graph_answers_are_given_one_after_the_other(plain: GenaiBackend, recording: GenaiBackend) -> None:
    assert (plain.max_batch_size, recording.max_batch_size) == (32, 1)


def test_no_buffer_under_a_graph_is_wider_than_the_switch_while_the_factors_are_short(recording: GenaiBackend) -> None:
    loaded = recording.loaded
    assert loaded.buffer_tokens(SWITCH, 10 * SWITCH) == loaded.buffer_tokens(1, SWITCH + 1) == SWITCH
    assert loaded.buffer_tokens(SWITCH + 1, 10 * SWITCH) == 10 * SWITCH


@pytest.mark.parametrize("step", [1, 16, 50, 1000])
def test_buffers_are_rounded_up_and_tokens_stay_the_same(plain: GenaiBackend, cpu_folder: Path, step: int) -> None:
    rounding = GenaiBackend(ModelDir.open(cpu_folder), "cpu", rewindable=False, buffer_step=step)
    for length in (20, SWITCH - 5):
        assert answer(rounding, length, SamplingParams()) == answer(plain, length, SamplingParams())
    loaded = rounding.loaded
    assert loaded._round_up(30) == -(-30 // step) * step
    assert loaded._round_up(1020) == (1020 if step == 1 else 1024)  # 1024: the context
    loaded.records = True
    assert loaded._round_up(30) == min(SWITCH, -(-30 // step) * step)
