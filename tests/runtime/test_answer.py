"""One answer in the making: what pushing a token returns, and how the seconds add up."""

import numpy as np
import pytest
from fake_backend import EOS, FakeBackend, builtin_tokenizer

from phi3v.answer import Answer
from phi3v.answer_format import Choices
from phi3v.errors import TruncatedAnswerError
from phi3v.prepare import PreparedRequest, prepare
from phi3v.types import GenerationRequest, Timings

YES = builtin_tokenizer().encode_text("Yes.")


def answer(**options: object) -> Answer:
    backend = FakeBackend()
    made = prepare(backend, GenerationRequest("hi", **options))  # type: ignore[arg-type]
    return Answer(backend, PreparedRequest(made.request, made.inputs, image_decode_s=2.0, preprocess_s=1.0))


def test_the_reason_is_there_with_the_last_token_and_not_before() -> None:
    ours, reasons = answer(), []
    for token in (*YES, EOS):
        reasons.append(ours.finish_reason)
        ours.push(token, 0.0)
    assert (reasons, ours.finish_reason) == ([None] * (len(YES) + 1), "stop")


def test_a_token_carries_its_id_and_the_text_it_completed() -> None:
    ours = answer()
    tokens = [ours.push(token, 0.0) for token in YES]
    assert [token.id for token in tokens] == YES
    assert "".join(token.text for token in tokens) == "Yes."


def test_the_first_push_is_prefill_and_the_others_add_up_to_decode() -> None:
    ours = answer()
    for token, seconds in zip((*YES, EOS), (4.0, *[0.5] * len(YES)), strict=True):
        ours.push(token, seconds)
    assert ours.result().timings == Timings(2.0, 1.0, 4.0, 0.5 * len(YES), len(YES))


def test_what_is_derived_from_the_stages_is_their_sum_and_their_rate() -> None:
    timings = Timings(image_decode_s=2.0, preprocess_s=1.0, prefill_s=4.0, decode_s=3.0, decode_tokens=12)
    assert (timings.ttft_s, timings.tpot_s, timings.tokens_per_s, timings.total_s) == (7.0, 0.25, 4.0, 10.0)


def test_an_answer_of_one_token_has_no_rate() -> None:
    ours = answer(max_new_tokens=1)
    ours.push(YES[0], 4.0)
    timings = ours.result().timings
    assert (timings.decode_tokens, timings.tpot_s, timings.tokens_per_s) == (0, 0.0, 0.0)


def test_an_answer_without_a_token_has_no_times_of_the_model() -> None:
    ours = answer()
    ours.cancel()
    assert ours.result().timings == Timings(2.0, 1.0, 0.0, 0.0, 0)


def test_the_end_token_says_what_was_held_back() -> None:
    ours = answer(stop=["Yes. And"])
    texts = [ours.push(token, 0.0).text for token in (*YES, EOS)]
    assert texts == [""] * len(YES) + ["Yes."]


def test_nothing_comes_after_a_stop_string_even_within_one_token() -> None:
    ours = answer(stop=["e"])
    texts = []
    for token in YES:
        texts.append(ours.push(token, 0.0).text)
        if ours.finish_reason:
            break
    assert ("".join(texts), ours.finish_reason) == ("Y", "stop")
    assert ours.result().text == "Y"


def test_a_format_is_finished_with_its_last_character_and_needs_no_end_token() -> None:
    ours = answer(answer_format=Choices(["Yes."]))
    for _ in range(len("Yes.") + 1):
        ours.push(chosen(ours), 0.0)
        if ours.finish_reason:
            break
    assert (ours.result().text, ours.finish_reason) == ("Yes.", "stop")


def test_a_format_that_the_length_cuts_is_an_error_that_holds_the_text() -> None:
    ours = answer(answer_format=Choices(["Yes."]), max_new_tokens=2)
    ours.push(chosen(ours), 0.0)
    with pytest.raises(TruncatedAnswerError, match=r"max_new_tokens \(2\)") as caught:
        ours.push(chosen(ours), 0.0)
    assert "Yes.".startswith(caught.value.text)
    assert ours.result().text == caught.value.text
    assert ours.finish_reason == "length"


def chosen(ours: Answer) -> int:
    """What the answer's own chooser takes from logits that are all the same."""
    return ours.chooser.choose(np.zeros(FakeBackend().model.vocab_size, dtype=np.float32))
