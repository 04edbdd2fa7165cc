"""The HD transform equals the reference image processor."""

import random

import numpy as np
import pytest
from PIL import Image

from phi3v import hd
from phi3v.errors import OptionError


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width * 7919 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def sizes() -> list[tuple[int, int, int]]:
    chosen = random.Random(0)
    drawn = [(chosen.randint(1, 900), chosen.randint(1, 900), chosen.randint(1, 16)) for _ in range(30)]
    return [(1, 1, 16), (336, 336, 1), (335, 337, 4), (1344, 1344, 16), (2000, 100, 16), (100, 2000, 9), *drawn]


@pytest.mark.torch
@pytest.mark.parametrize(("width", "height", "num_crops"), sizes())
def test_crops_are_bit_exact_and_the_global_crop_is_within_1e_5(width: int, height: int, num_crops: int) -> None:
    from phi3v.bench.reference import count_tokens, process_image

    image = noise(width, height)
    ours = hd.transform(image, num_crops)
    theirs, size = process_image(image, num_crops)
    assert ours.plan.image_size == size
    assert ours.plan.image_tokens == count_tokens(*size)
    assert (ours.crops[1:] == theirs.numpy()[1 : len(ours.crops)]).all()
    assert np.abs(ours.crops[0] - theirs.numpy()[0]).max() < 1e-5


def test_published_token_counts() -> None:
    assert hd.plan(1000, 1000, 16).image_tokens == 2509
    assert hd.plan(1920, 1080, 16).image_tokens == 2353
    assert hd.plan(640, 480, 16).image_tokens == 1921
    assert hd.plan(1000, 1000, 4).image_tokens == 757
    assert hd.plan(1000, 1000, 1).image_tokens == 313


@pytest.mark.parametrize("size", [(20000, 1), (1, 20000), (1, 1)])
@pytest.mark.parametrize("num_crops", [1, 16])
def test_the_thinnest_pictures_keep_at_least_a_pixel(size: tuple[int, int], num_crops: int) -> None:
    made = hd.transform(noise(*size), num_crops)
    assert made.crops.shape[0] == made.plan.crops


def test_pictures_of_different_grids_are_stacked_with_zero_crops() -> None:
    wide, small = hd.transform(noise(900, 300), 16), hd.transform(noise(50, 50), 1)
    pixels, image_sizes, tokens = hd.stack([wide, small])
    assert pixels.shape == (2, wide.plan.crops, 3, 336, 336)
    assert not pixels[1, 2:].any()
    assert image_sizes.tolist() == [list(wide.plan.image_size), [336, 336]]
    assert tokens == [wide.plan.image_tokens, 313]


@pytest.mark.parametrize(
    ("width", "height", "crops"),
    [(1, 1, 1), (300, 200, 1), (336, 336, 1), (337, 200, 4), (640, 480, 4), (1344, 1344, 16), (2000, 100, 6)],
)
def test_auto_takes_the_fewest_crops_that_keep_the_resolution(width: int, height: int, crops: int) -> None:
    for size in ((width, height), (height, width)):
        layout = hd.plan(*size, "auto")
        assert layout.rows * layout.columns == crops
        assert max(layout.resized) >= max(size)
        fewer = [hd.plan(*size, n) for n in range(1, 17)]
        assert all(max(f.resized) < max(size) for f in fewer if f.crops < layout.crops)


@pytest.mark.parametrize("size", [(4000, 3000), (1920, 1080), (90, 5000), (20000, 1)])
def test_auto_never_takes_more_than_sixteen_would(size: tuple[int, int]) -> None:
    assert hd.plan(*size, "auto").image_tokens <= hd.plan(*size, 16).image_tokens
    assert hd.plan(4000, 3000, "auto") == hd.plan(4000, 3000, 16)


def test_auto_cuts_as_its_number_would() -> None:
    drawn = noise(640, 480)
    assert (hd.transform(drawn, "auto").crops == hd.transform(drawn, 4).crops).all()


@pytest.mark.parametrize("num_crops", [0, 17])
def test_num_crops_outside_1_to_16_is_refused(num_crops: int) -> None:
    with pytest.raises(OptionError, match="1 to 16"):
        hd.plan(10, 10, num_crops)
