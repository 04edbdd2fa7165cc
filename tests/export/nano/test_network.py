"""The training network is the exported model: same names, same logits as the reference, same answers through genai."""

from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from places import ROOT

import phi3v
from phi3v.bench.reference import ReferenceModel
from phi3v.errors import OptionError
from phi3v.export.build import export_model
from phi3v.export.dims import tensor_shapes
from phi3v.export.nano.batches import FULL, Window, pack
from phi3v.export.nano.checkpoint import read_nano, read_weights, write_aids, write_checkpoint
from phi3v.export.nano.covers import cover_sample
from phi3v.export.nano.forward import attention_mask, embed
from phi3v.export.nano.network import Learner, Nano, nano_dims, normalise
from phi3v.export.nano.pairs import scene_pair
from phi3v.export.nano.samples import Sample
from phi3v.export.nano.vocabulary import vocabulary
from phi3v.models.folder import BUILTIN

pytestmark = pytest.mark.torch

AIDS = ROOT / "export" / "nano" / "aids.safetensors"
DIMS = nano_dims(width=64, layers=2, heads=2, inner=64, tower=32)


@pytest.fixture(scope="module")
def fresh() -> Nano:
    torch.manual_seed(0)
    nano = Nano(DIMS).eval()
    torch.nn.init.normal_(nano.lm_head.weight, std=0.5)
    return nano


@pytest.fixture(scope="module")
def folder(fresh: Nano, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(fresh, tmp_path_factory.mktemp("nano") / "checkpoint")


def logits(nano: Nano, sample: Sample, window: Window = FULL) -> torch.Tensor:
    batch = pack([sample], vocabulary(), window)
    cells = nano.picture_tokens(nano.tower(normalise(batch.pixels), row=2 * window.first))
    hidden = nano(embed(nano, cells, batch), batch.positions, attention_mask(batch))
    found: torch.Tensor = nano.lm_head(hidden[batch.targets >= 0])
    return found


def first_turn(sample: Sample) -> Sample:
    return Sample(sample.pictures, sample.turns[:1])


def test_parameters_are_those_of_the_original_checkpoint(fresh: Nano) -> None:
    found = {name: tuple(tensor.shape) for name, tensor in fresh.state_dict().items()}
    assert found == tensor_shapes(DIMS)


@torch.inference_mode()
@pytest.mark.parametrize("make", [cover_sample, scene_pair])
def test_logits_equal_the_references(fresh: Nano, folder: Path, make: object) -> None:
    sample = first_turn(make(Random(1), False))  # type: ignore[operator]
    reference = ReferenceModel.from_checkpoint(folder)
    inputs = reference.preprocess(sample.turns[0].question, [p.original for p in sample.pictures], 1)
    answer = vocabulary().answer(sample.turns[0].answer).ids
    wanted = reference.logits(inputs, answer[:-1])[-len(answer) :]
    # The reference scales the original picture itself; a level of rounding there moves logits a little.
    assert torch.allclose(logits(fresh, sample), wanted, atol=0.1)
    assert (logits(fresh, sample) - wanted).abs().mean() < 5e-3


@torch.inference_mode()
def test_questions_that_share_pictures_do_not_see_each_other(fresh: Nano) -> None:
    sample = cover_sample(Random(2))
    alone = [logits(fresh, Sample(sample.pictures, [turn])) for turn in sample.turns]
    assert torch.allclose(logits(fresh, sample), torch.cat(alone), atol=1e-4)


@torch.inference_mode()
def test_a_strip_keeps_the_positions_of_the_whole_prompt() -> None:
    sample = first_turn(cover_sample(Random(2)))
    whole = pack([sample], vocabulary())
    for window in (Window(3, 2, True, False), Window(3, 2, False, True), Window(0, 12, True, True)):
        strip = pack([sample], vocabulary(), window)
        kept = dict(zip(strip.positions[0].tolist(), strip.ids[0].tolist(), strict=True))
        every = dict(zip(whole.positions[0].tolist(), whole.ids[0].tolist(), strict=True))
        assert kept.items() <= every.items()
        assert len(window.slots) == sum(token < 0 for token in kept.values())


def test_the_exported_model_answers_as_the_reference(folder: Path, tmp_path: Path) -> None:
    model = export_model(folder, tmp_path / "nano", precision="fp32")
    sample = cover_sample(Random(3))
    picture, question = sample.pictures[0].original, sample.turns[0].question
    reference = ReferenceModel.from_checkpoint(folder)
    inputs = reference.preprocess(question, [picture], 1)
    assert len(inputs.input_ids) == len(vocabulary().prompt(question, 1))
    assert np.array_equal(inputs.input_ids, vocabulary().prompt(question, 1))
    with phi3v.load(model) as engine:
        assert engine.model.num_crops == 1
        answer = engine.generate(question, [picture], max_new_tokens=8)
    ends = engine.model.eos_token_ids
    wanted = reference.greedy(inputs, 8)
    stop = next((n for n, token in enumerate(wanted) if token in ends), len(wanted))
    assert list(answer.token_ids) == wanted[:stop]


@pytest.fixture(scope="module")
def whole() -> Nano:
    torch.manual_seed(0)
    return Nano(nano_dims())


@pytest.fixture(scope="module")
def whole_checkpoint(whole: Nano, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(whole, tmp_path_factory.mktemp("whole") / "checkpoint")


def test_a_model_folder_gives_its_weights_back(whole: Nano, whole_checkpoint: Path, tmp_path: Path) -> None:
    folder = export_model(whole_checkpoint, tmp_path / "nano", precision="fp32")
    found = read_nano(folder)
    weights = found.state_dict()
    placed = "model.vision_embed_tokens.img_processor.vision_model.embeddings"
    for name, tensor in whole.state_dict().items():
        if not name.startswith(placed):
            assert torch.allclose(weights[name], tensor, rtol=1e-6), name
    pixels = torch.rand(1, 3, 336, 336)
    assert torch.allclose(found.tower(pixels), whole.tower(pixels), atol=1e-5)


def test_what_is_kept_is_all_to_train_on_from() -> None:
    assert (read_weights(BUILTIN) | read_weights(AIDS)).keys() == Learner(nano_dims()).state_dict().keys()


def test_what_holds_no_weights_says_so(whole_checkpoint: Path, tmp_path: Path) -> None:
    int4 = export_model(whole_checkpoint, tmp_path / "nano", precision="int4")
    for path, said in ((int4, "fp16 or fp32"), (tmp_path, "fp16 or fp32"), (AIDS, "training aids alone")):
        with pytest.raises(OptionError, match=said):
            read_nano(path)
    with pytest.raises(OptionError, match="no training aids"):
        write_aids(BUILTIN, tmp_path / "aids.safetensors")
    assert not (tmp_path / "aids.safetensors").exists()
