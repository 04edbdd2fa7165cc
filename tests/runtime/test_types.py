"""Options are checked, and made plain, where they are given."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from phi3v import GenerationRequest, SamplingParams
from phi3v.errors import OptionError

PIXELS = np.zeros((4, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "one", ["photo.jpg", b"bytes", bytearray(b"bytes"), Path("photo.jpg"), Image.new("RGB", (5, 5)), PIXELS]
)
def test_one_picture_in_place_of_a_list_is_refused(one: Any) -> None:
    with pytest.raises(OptionError, match=r"\[image\]"):
        GenerationRequest("hi", one)


def test_no_list_at_all_is_refused() -> None:
    with pytest.raises(OptionError, match="a list of images"):
        GenerationRequest("hi", None)  # type: ignore[arg-type]


def test_what_can_be_read_once_is_kept() -> None:
    request = GenerationRequest("hi", (path for path in ["a.png"]), stop=iter(["\n"]))  # type: ignore[arg-type]
    assert (request.images, request.stop) == (("a.png",), ("\n",))


@pytest.mark.parametrize(
    "options",
    [
        {"num_crops": 2.5}, {"num_crops": "4"}, {"max_new_tokens": float("inf")}, {"max_new_tokens": "5"},
        {"max_new_tokens": 2.0}, {"prompt": b"hi"}, {"stop": "x"}, {"stop": [""]}, {"stop": 3},
    ],
    ids=str,
)  # fmt: skip
def test_a_request_of_the_wrong_kind_names_what_is_allowed(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="allowed"):
        GenerationRequest(**({"prompt": "hi"} | options))


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": "1"}, {"temperature": float("nan")}, {"top_p": None}, {"top_k": 1.5}, {"seed": 1.5},
        {"seed": "1"}, {"seed": -1}, {"repetition_penalty": 10**400},
    ],
    ids=str,
)  # fmt: skip
def test_sampling_of_the_wrong_kind_names_what_is_allowed(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="allowed"):
        SamplingParams(**options)


def test_numpys_numbers_become_pythons() -> None:
    sampling = SamplingParams(temperature=np.float32(0.5), top_k=np.int64(4), seed=np.int64(7))  # type: ignore[arg-type]
    request = GenerationRequest("hi", max_new_tokens=np.int64(4), num_crops=np.int64(4))  # type: ignore[arg-type]
    values = (sampling.temperature, sampling.top_k, sampling.seed, request.max_new_tokens, request.num_crops)
    assert [type(value) for value in values] == [float, int, int, int, int]
