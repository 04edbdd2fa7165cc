"""Larger pictures are trained on as the runtime sees them: in 2 x 2 crops and a small one of the whole."""

from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from phi3v import hd
from phi3v.bench.reference import ReferenceModel
from phi3v.errors import OptionError
from phi3v.export.nano.batches import FULL, SHARP, pack
from phi3v.export.nano.canvas import Canvas
from phi3v.export.nano.checkpoint import write_checkpoint
from phi3v.export.nano.columns import sharp_column
from phi3v.export.nano.covers import sharp_cover, sharp_cover_sample
from phi3v.export.nano.crops import cut, join, reduced
from phi3v.export.nano.forward import attention_mask, embed_crops, run
from phi3v.export.nano.network import Learner, nano_dims, normalise
from phi3v.export.nano.samples import Make, Sample
from phi3v.export.nano.vocabulary import IMAGE_TOKENS, Copied, vocabulary

pytestmark = pytest.mark.torch

DIMS = nano_dims(width=64, layers=2, heads=2, inner=64, tower=32)


def first_turn(sample: Sample) -> Sample:
    return Sample(sample.pictures, sample.turns[:1])


def test_crops_are_cut_in_reading_order_and_put_together_again() -> None:
    grid = torch.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    crops = cut(grid, 2)
    assert crops.shape == (8, 2, 3, 3)
    assert torch.equal(crops[1], grid[0, :2, 3:])
    assert torch.equal(crops[6], grid[1, 2:, :3])
    assert torch.equal(join(crops, 2), grid)


@pytest.mark.parametrize("make", [sharp_cover_sample, sharp_column])
def test_training_pixels_of_larger_pictures_are_those_of_the_runtime(make: Make) -> None:
    mean = np.array([0.48145466, 0.4578275, 0.40821073]).reshape(3, 1, 1)
    std = np.array([0.26862954, 0.26130258, 0.27577711]).reshape(3, 1, 1)
    for seed in range(3):
        (picture,) = make(Random(seed), False).pictures
        crops = cut(torch.from_numpy(picture.pixels)[None], 2).numpy()
        seen = hd.transform(picture.original, 4).crops[1:]
        assert len(seen) == len(crops) == 4
        for one, two in zip(seen, crops, strict=True):
            assert np.abs(((one * std + mean) * 255).transpose(1, 2, 0) - two).max() <= 1.51


@pytest.mark.parametrize("make", [sharp_cover, sharp_column])
def test_copied_characters_of_larger_pictures_stand_in_cells_of_their_crops(make: Make) -> None:
    sample = make(Random(4), False)
    (picture,) = sample.pictures
    standing = {(c, (int(y // 28), int(x // 28))) for x, y, c in picture.characters}
    for turn in sample.turns:
        for part in turn.answer:
            if isinstance(part, Copied):
                pairs = set(zip(part.text, part.places, strict=True))
                assert {pair for pair in pairs if pair[0] != " "} <= standing
    assert picture.labels().shape == (48, 48, 3)


def test_a_picture_in_crops_takes_the_slots_the_runtime_gives_it() -> None:
    assert (IMAGE_TOKENS[1], IMAGE_TOKENS[2]) == (313, 757)
    for window in (FULL, SHARP):
        assert window.slots.tolist() == list(range(IMAGE_TOKENS[window.zoom]))
    assert [SHARP.place(slot) for slot in (0, 23, 24, 25, 599, 600, 601)] == [
        (0, 0),
        (0, 23),
        None,
        (1, 0),
        None,
        None,
        None,
    ]
    assert (FULL.place(157), FULL.place(312)) == ((0, 0), None)


def test_only_pictures_of_that_many_crops_are_drawn_in_them() -> None:
    with pytest.raises(OptionError, match="2 x 2"):
        Canvas((1000, 300), zoom=2)


@torch.inference_mode()
def test_logits_of_a_picture_in_crops_equal_the_references(tmp_path: Path) -> None:
    torch.manual_seed(0)
    learner = Learner(DIMS).eval()
    torch.nn.init.normal_(learner.nano.lm_head.weight, std=0.5)
    sample = first_turn(sharp_cover_sample(Random(1)))
    batch, nano = pack([sample], vocabulary(), SHARP), learner.nano
    features = nano.tower(normalise(cut(batch.pixels, 2)))
    embedded = embed_crops(nano, features, nano.tower(reduced(normalise(batch.pixels))), batch)
    hidden = nano(embedded, batch.positions, attention_mask(batch))
    found = nano.lm_head(hidden[batch.targets >= 0])
    reference = ReferenceModel.from_checkpoint(write_checkpoint(learner.nano, tmp_path / "nano"))
    inputs = reference.preprocess(sample.turns[0].question, [sample.pictures[0].original], 4)
    answer = vocabulary().answer(sample.turns[0].answer).ids
    wanted = reference.logits(inputs, answer[:-1])[-len(answer) :]
    assert torch.allclose(found, wanted, atol=0.1)
    assert (found - wanted).abs().mean() < 5e-3


def test_a_picture_in_crops_is_learned_from() -> None:
    learner = Learner(DIMS)
    batch = pack([first_turn(sharp_cover(Random(2)))], vocabulary(), SHARP)
    outcome = run(learner, batch, tower=True, guided=True, dense=True)
    (outcome.answer + outcome.guide + outcome.cells + outcome.patches).backward()
    assert all(parameter.grad is not None for parameter in learner.nano.tower.parameters())
    assert outcome.read[1] > 5
