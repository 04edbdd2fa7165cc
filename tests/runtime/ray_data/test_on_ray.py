"""`Phi3Vision` in a pipeline as its documentation writes it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from places import ROOT

import phi3v
from phi3v.ray_data import Phi3Vision

ray = pytest.importorskip("ray")
data = pytest.importorskip("ray.data")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]  # of Ray's own making

COVER = ROOT / "examples" / "cover.png"
QUESTION = "Help me get the title and author information of this book?"


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=10**8, log_to_driver=False)
    yield
    ray.shutdown()


def answered(rows: list[dict[str, Any]], **options: Any) -> list[dict[str, Any]]:
    made = data.from_items(rows).map_batches(
        Phi3Vision,
        fn_constructor_kwargs={"model": "nano", "device": "cpu", "question": QUESTION, "num_crops": 1, **options},
        compute=data.ActorPoolStrategy(size=1),
        batch_size=16,
        num_cpus=1,
    )
    found: list[dict[str, Any]] = made.take_all()
    return found


def test_a_dataset_of_images_gets_answers() -> None:
    rows = [{"id": 1, "image": COVER.read_bytes()}, {"id": 2, "image": b"no image"}]
    good, bad = sorted(answered(rows), key=lambda row: row["id"])
    with phi3v.load("nano", device="cpu") as engine:
        assert good == {
            "id": 1,
            "answer": engine.generate(QUESTION, [COVER], num_crops=1).text,
            "finish_reason": "stop",
            "error": None,
        }
    assert (bad["answer"], bad["finish_reason"]) == (None, None)
    assert "not a" in bad["error"]


def test_a_schema_of_the_callers_own_travels_to_the_workers() -> None:
    @dataclass
    class Book:
        title: str
        author: str

    [row] = answered([{"image": str(COVER)}], schema=Book, max_new_tokens=400)
    assert row.keys() == {"image", "title", "author", "finish_reason", "error"}


def test_an_option_that_is_wrong_ends_the_job() -> None:
    with pytest.raises(Exception, match="top_p"):
        answered([{"image": str(COVER)}], top_p=7.0)
