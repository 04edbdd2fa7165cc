"""A word that is nearly known gets the known one."""

import pytest

from phi3v.models.near_miss import suggest

KNOWN = ("phi-3-vision", "phi-3.5-vision", "nano")


@pytest.mark.parametrize(
    ("word", "meant"),
    [("phi-3-vison", "phi-3-vision"), ("Phi-3-Vision", "phi-3-vision"), ("nanno", "nano")],
)  # fmt: skip
def test_the_nearest_word_is_suggested(word: str, meant: str) -> None:
    assert suggest(word, KNOWN) == f"; did you mean {meant}?"


@pytest.mark.parametrize("word", ["", "llava", "qwen2-vl"])
def test_nothing_is_suggested_for_a_word_that_is_far_from_all(word: str) -> None:
    assert suggest(word, KNOWN) == ""
