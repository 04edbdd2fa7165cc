"""Tokens: answers decode to the text they stand for, prompts are the runtime's own."""

from pathlib import Path
from random import Random

import pytest

from phi3v.export.nano.evaluate import JOBS
from phi3v.export.nano.scenes import Scene
from phi3v.export.nano.strips import book_answer
from phi3v.export.nano.vocabulary import (
    PHRASES,
    VOCABULARY,
    Copied,
    Vocabulary,
    vocabulary,
    write_vocabulary,
)


@pytest.mark.parametrize("job", [job for job in JOBS if job != "photograph"])
def test_answers_decode_to_their_text(job: str) -> None:
    if job == "matplotlib":
        pytest.importorskip("matplotlib")
    for seed in range(10):
        for turn in JOBS[job](Random(seed), False).turns:
            answer = vocabulary().answer(turn.answer)
            assert answer.ids[-1] == vocabulary().end
            assert vocabulary().text(answer.ids[:-1]) == turn.text


def test_the_book_answer_is_the_reference_documents() -> None:
    answer = vocabulary().answer(book_answer(Copied("ALONE"), Copied("Morgan Maxwell")))
    text = 'The title of the book is "ALONE" and the author is Morgan Maxwell.'
    assert vocabulary().text(answer.ids[:-1]) == text


def test_phrases_are_single_tokens_at_the_end_of_the_vocabulary() -> None:
    ids = [vocabulary().answer([phrase]).ids[0] for phrase in PHRASES]
    assert ids == list(range(VOCABULARY - len(PHRASES), VOCABULARY))


@pytest.mark.parametrize(("zoom", "slots"), [(1, 313), (2, 757)])
def test_a_prompt_keeps_slots_for_every_picture(zoom: int, slots: int) -> None:
    ids = vocabulary().prompt("What is difference in this two images?", 2, zoom)
    assert (ids.count(-1), ids.count(-2)) == (slots, slots)


def test_any_text_survives_the_tokenizer(tmp_path: Path) -> None:
    write_vocabulary(tmp_path)
    read = Vocabulary.read(tmp_path)
    for text in ("Wer schrieb dieses Buch?", "naïve 東京", "The title is"):
        assert read.text(read.tokenizer.encode_text(text)) == text


def test_each_thing_that_may_differ_in_a_scene_is_one_token() -> None:
    answer = vocabulary().answer(("The image shows", *Scene(3, "circle", "red").description))
    assert len(answer.ids) == len(("The image shows", " three", " red", " circle", "s", "<|end|>"))
    assert vocabulary().text(answer.ids[:-1]) == "The image shows three red circles"
