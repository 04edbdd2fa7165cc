"""Requests prepared ahead of their answers: siblings share what was read, and an error stays with its request."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from places import ROOT

import phi3v
from phi3v.errors import ImageError
from phi3v.options import make_request
from phi3v.prepare import HdPreprocessor, PreparedRequest, prepare
from phi3v.process import prepare_ahead as module
from phi3v.process.prepare_ahead import prepare_ahead
from phi3v.process.process_engine import ProcessAnswerer

CHART, COVER = str(ROOT / "examples" / "chart.png"), str(ROOT / "examples" / "cover.png")
QUESTIONS = ("What is the title?", "Which bar is the highest?", "What is this?", "Describe it.")


@pytest.fixture(scope="module")
def source() -> Iterator[HdPreprocessor]:
    with phi3v.load("nano") as engine:
        yield HdPreprocessor(engine.model, engine.device)


def test_siblings_share_one_reading_and_are_prepared_as_alone(
    source: HdPreprocessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, once = list[object](), module.read_image
    monkeypatch.setattr(module, "read_image", lambda image, background: read.append(image) or once(image, background))
    requests = [make_request(question, [CHART], num_crops=4) for question in QUESTIONS]
    ready = list(prepare_ahead(source, [*requests, make_request("?", [COVER])], workers=2, ahead=3))
    assert read == [CHART]
    assert [one.has_siblings for one in ready] == [True] * 4 + [False]
    for request, one in zip(requests, ready[:4], strict=True):
        alone = prepare(source, request)
        assert isinstance(one.prepared, PreparedRequest)
        assert one.prepared.request is request
        assert one.prepared.inputs.images_key == alone.inputs.images_key
        assert np.array_equal(one.prepared.inputs.input_ids, alone.inputs.input_ids)
        assert np.array_equal(one.prepared.inputs.pixel_values, alone.inputs.pixel_values)


def test_an_image_that_cannot_be_read_fails_each_of_its_siblings(source: HdPreprocessor, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    requests = [make_request(question, [str(tmp_path / "bad.png")]) for question in QUESTIONS]
    ready = list(prepare_ahead(source, requests, workers=2, ahead=2))
    assert [type(one.prepared) for one in ready] == [ImageError] * 4


def test_images_that_are_not_named_have_no_siblings(source: HdPreprocessor) -> None:
    image = Image.new("RGB", (40, 40))
    ready = list(prepare_ahead(source, [make_request("?", [image])] * 2, workers=1, ahead=2))
    assert not any(one.has_siblings for one in ready)


def test_the_notes_on_shared_images_reach_every_sibling(source: HdPreprocessor, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    request = make_request("?", [str(tmp_path / "two.gif")])
    alone = prepare(source, request)
    for one in prepare_ahead(source, [request, replace(request, prompt="!")], workers=2, ahead=2):
        assert isinstance(one.prepared, PreparedRequest)
        assert one.prepared.notes == alone.notes != ()


def test_an_image_is_prefilled_once_however_many_questions() -> None:
    requests = [make_request(q, [image], num_crops=1) for image in (CHART, COVER) for q in QUESTIONS]
    with phi3v.load("nano", device="cpu", process=True) as held, phi3v.load("nano", device="cpu") as engine:
        answerer = held.answerer
        assert isinstance(answerer, ProcessAnswerer)
        outcomes = dict(answerer.answer(requests))
        results = [outcomes[number] for number in range(8)]
        assert all(isinstance(result, phi3v.GenerationResult) for result in results)
        assert [result.text for result in results] == [
            engine.generate(r.prompt, r.images, num_crops=1).text for r in requests
        ]
    prefilled = [result.usage.cached_tokens < 300 for result in results]
    assert (sum(prefilled[:4]), sum(prefilled[4:])) == (1, 1)  # which of the four comes first is the scheduler's choice
