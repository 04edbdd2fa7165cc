"""Image slots and features that differ in number are refused before any graph runs: those for a GPU do not notice."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from phi3v.backend import ModelInputs
from phi3v.errors import InferenceError
from phi3v.genai.backend import GenaiBackend
from phi3v.models.folder import BUILTIN, ModelDir
from phi3v.sampling import TokenChooser

SLOTS = 2 * 144 + 1 + 24


@pytest.fixture(scope="module")
def backend() -> GenaiBackend:
    return GenaiBackend(ModelDir.open(Path(BUILTIN)), "cpu")


def inputs(slots: int, images: int = 1) -> ModelInputs:
    ids = np.array([1, *[-1] * slots, 5, 6], dtype=np.int32)
    if not images:
        return ModelInputs(ids, None, None, ())
    pixels = np.zeros((images, 2, 3, 336, 336), dtype=np.float32)
    return ModelInputs(ids, pixels, np.array([[336, 336]] * images, dtype=np.int64), (SLOTS,) * images)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (inputs(SLOTS - 1), f"{SLOTS - 1} image slots for {SLOTS} image features"),
        (inputs(SLOTS + 1), f"{SLOTS + 1} image slots for {SLOTS} image features"),
        (inputs(SLOTS, images=2), f"{SLOTS} image slots for {2 * SLOTS} image features"),
        (inputs(1, images=0), "1 image slots for 0 image features"),
        (inputs(0), f"0 image slots for {SLOTS} image features"),
        (replace(inputs(SLOTS), image_tokens=(SLOTS + 7,)), f"{SLOTS + 7} announced"),
    ],
)
def test_a_mismatch_is_refused_with_both_numbers(backend: GenaiBackend, given: ModelInputs, said: str) -> None:
    with pytest.raises(InferenceError, match=said):
        backend.start(given, TokenChooser(), 2).step()


def test_a_batch_counts_the_slots_of_all_rows(backend: GenaiBackend) -> None:
    both = replace(inputs(SLOTS, images=2), input_ids=np.stack([inputs(SLOTS).input_ids] * 2))
    assert backend.loaded.new_generator(both, SLOTS + 5, 2) is not None
    with pytest.raises(InferenceError, match=f"{2 * SLOTS} image slots"):
        backend.loaded.new_generator(replace(both, image_sizes=both.image_sizes[:1]), SLOTS + 5, 2)  # type: ignore[index]
