"""Options of an answer: declared once, and turned into a request in one place."""

from dataclasses import fields
from typing import get_type_hints

import pytest

import phi3v
from phi3v.errors import ModelNotFoundError, OptionError
from phi3v.options import ExtractOptions, GenerationOptions, SessionOptions, make_request
from phi3v.types import GenerationRequest, SamplingParams


def test_every_field_of_a_request_and_its_sampling_is_an_option() -> None:
    wanted = {field.name for kind in (GenerationRequest, SamplingParams) for field in fields(kind)}
    assert set(GenerationOptions.__annotations__) == wanted - {"prompt", "images", "earlier", "sampling"}


def test_options_have_the_types_of_the_fields_they_set() -> None:
    from phi3v.answer_format import AnswerFormat
    from phi3v.images.cropped import NumCrops
    from phi3v.images.load import ImageSource

    names = {"AnswerFormat": AnswerFormat, "ImageSource": ImageSource, "NumCrops": NumCrops}
    options = get_type_hints(GenerationOptions, None, names)
    hints = [get_type_hints(kind, None, names) for kind in (GenerationRequest, SamplingParams)]
    for name, kind in options.items():
        (declared,) = [hint[name] for hint in hints if name in hint]
        assert kind == declared, name


def test_options_reach_the_request_and_its_sampling() -> None:
    request = make_request("hi", ["a.png"], max_new_tokens=3, num_crops=4, temperature=0.5, seed=7)
    assert (request.images, request.max_new_tokens, request.num_crops) == (("a.png",), 3, 4)
    assert request.sampling == SamplingParams(temperature=0.5, seed=7)


def test_what_is_left_out_has_the_defaults_of_the_request() -> None:
    assert make_request("hi") == GenerationRequest("hi")


def test_an_option_that_does_not_exist_is_named_beside_those_that_do() -> None:
    with pytest.raises(TypeError, match="'max_tokens' is not an option; allowed: max_new_tokens, temperature"):
        make_request("hi", max_tokens=3)  # type: ignore[call-arg]


def test_an_engine_says_model_device_and_state() -> None:
    engine = phi3v.load("nano", "cpu")
    assert repr(engine) == "<phi3v.Engine nano on cpu, loaded>"
    engine.close()
    assert repr(engine) == "<phi3v.Engine nano on cpu, closed>"


def test_the_crops_of_a_session_cannot_be_changed_by_a_question() -> None:
    with phi3v.load("nano", "cpu") as engine, engine.session(num_crops=1) as session:
        assert session.ask("What is this?", num_crops=1, max_new_tokens=1).usage.completion_tokens == 1
        with pytest.raises(OptionError, match="num_crops is 2, and this session was opened with 1"):
            session.ask("What is this?", num_crops=2)


def test_a_question_outside_a_chat_takes_no_further_images() -> None:
    request = make_request("What is this?", ["a.png"])
    with (
        phi3v.load("nano", "cpu") as engine,
        engine.session() as session,
        pytest.raises(OptionError, match=r"use chat\("),
    ):
        session.stream_request(request)


def test_extract_takes_its_format_once() -> None:
    with phi3v.load("nano", "cpu") as engine, pytest.raises(OptionError, match="extract takes no answer_format"):
        engine.extract(int, "How many?", answer_format=phi3v.Regex("[0-9]"))  # type: ignore[call-overload]


def test_what_a_call_cannot_keep_is_not_among_its_options() -> None:
    assert set(SessionOptions.__annotations__) == set(GenerationOptions.__annotations__) - {
        "num_crops",
        "background",
        "system",
    }
    values = {"stop", "answer_format", "logprobs"}
    assert set(ExtractOptions.__annotations__) == set(GenerationOptions.__annotations__) - values


def test_the_crops_of_the_folder_are_those_of_a_session_that_names_none() -> None:
    with phi3v.load("nano", "cpu") as engine, engine.session() as session:
        assert session.ask("Hi", num_crops=engine.model.num_crops, max_new_tokens=1).usage.completion_tokens == 1  # type: ignore[call-arg]


def test_a_question_does_not_take_images_in_silence() -> None:
    with phi3v.load("nano", "cpu") as engine, engine.session() as session, pytest.raises(TypeError, match="images"):
        session.ask("Hi", images=[])  # type: ignore[call-arg]


@pytest.mark.parametrize("tokens", [0, 2**31, 10**400])
def test_an_answer_has_from_one_to_two_billion_tokens(tokens: int) -> None:
    with pytest.raises(OptionError, match="allowed: 1 to 2147483647"):
        make_request("hi", max_new_tokens=tokens)


@pytest.mark.parametrize("model", [5, b"nano", 1.0])
def test_a_model_is_a_path_or_a_name(model: object) -> None:
    with pytest.raises(OptionError, match="allowed: a folder"):
        phi3v.load(model)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["a" * 5000, "./" + "a" * 5000])
def test_a_name_longer_than_the_system_takes_is_not_a_model(name: str) -> None:
    with pytest.raises(ModelNotFoundError):
        phi3v.load(name)


def test_what_is_not_a_request_fails_alone_in_a_batch() -> None:
    with phi3v.load("nano", "cpu") as engine:
        refused, answered = engine.generate_batch(["hi", make_request("hi", max_new_tokens=1)])  # type: ignore[list-item]
    assert isinstance(refused, OptionError)
    assert isinstance(answered, phi3v.GenerationResult)
