"""An engine in a process of its own, on the real genai with the built-in model."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

import phi3v
from phi3v.errors import InferenceError
from phi3v.models.folder import BUILTIN, ModelDir
from phi3v.process.model_process import ModelProcess
from phi3v.process.process_engine import ProcessAnswerer
from phi3v.types import GenerationRequest, GenerationResult


@pytest.fixture(scope="module")
def folder() -> Path:
    return BUILTIN


@pytest.fixture
def process(folder: Path) -> Iterator[ProcessAnswerer]:
    with ProcessAnswerer(ModelProcess(ModelDir.open(folder), "cpu").wait_until_loaded()) as engine:
        yield engine


def asked(prompt: str, *images: object) -> GenerationRequest:
    return GenerationRequest(prompt, images, max_new_tokens=4, num_crops=1)  # type: ignore[arg-type]


def test_an_open_file_is_a_picture_here_too(process: ProcessAnswerer, folder: Path) -> None:
    png = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(png, "PNG")
    [(number, outcome)] = process.answer([asked("hi", io.BufferedReader(io.BytesIO(png.getvalue())))])  # type: ignore[arg-type]
    with phi3v.load(folder, "cpu") as engine:
        alone = engine.generate("hi", [png.getvalue()], max_new_tokens=4, num_crops=1)
    assert isinstance(outcome, GenerationResult)
    assert (number, outcome.token_ids) == (0, alone.token_ids)


def test_an_error_of_the_requests_own_source_is_raised(process: ProcessAnswerer) -> None:
    def requests() -> Iterator[GenerationRequest]:
        yield asked("hi")
        raise FileNotFoundError("the list of questions")

    with pytest.raises(FileNotFoundError, match="the list of questions"):
        list(process.answer(requests()))


def test_answers_left_behind_reach_no_later_call(process: ProcessAnswerer) -> None:
    answers = process.answer([asked("hi"), asked("there")], ahead=1)
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    assert [number for number, _ in process.answer([asked("What?")])] == [0]


def test_a_closed_process_answers_nothing(process: ProcessAnswerer) -> None:
    process.close()
    with pytest.raises(InferenceError, match="closed"):
        list(process.answer([asked("What?")]))
