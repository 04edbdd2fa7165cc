"""Sessions on a fake backend: what a question shows the model, what is remembered, and what is read again."""

import numpy as np
import pytest
from fake_backend import EOS, IMAGE_TOKENS, FakeBackend, Script, builtin_tokenizer, fails, says

import phi3v
from phi3v.answer_format import Choices
from phi3v.errors import ContextLengthError, ImageError, InferenceError, OptionError, PromptError, TruncatedAnswerError

IMAGE = np.full((10, 20, 3), 90, dtype=np.uint8)
OTHER = np.full((20, 10, 3), 180, dtype=np.uint8)


def opened(*scripts: Script | str, images: object = (), **changes: object) -> tuple[phi3v.Session, FakeBackend]:
    backend = FakeBackend(*scripts, **changes)
    return phi3v.Engine(backend).session(images), backend  # type: ignore[arg-type]


def ids_of(backend: FakeBackend) -> list[list[int]]:
    return [inputs.input_ids.tolist() for inputs in backend.log.prompts]


def test_a_question_is_forgotten_when_the_next_is_asked() -> None:
    session, backend = opened("Red.", "Blue.")
    assert [session.ask(question).text for question in ("Which colour?", "And now?")] == ["Red.", "Blue."]
    assert "Which colour?" not in backend.prompts[1]
    assert "Red." not in backend.prompts[1]
    assert session.history == ()


def test_a_question_shows_the_model_what_a_request_of_its_own_would() -> None:
    session, backend = opened(images=[IMAGE, OTHER])
    for question in ("What is this?", "<|image_2|> or <|image_1|>?"):
        asked = session.ask(question)
        alone = phi3v.Engine(backend).generate(question, [IMAGE, OTHER])
        assert (asked.text, asked.token_ids, asked.usage) == (alone.text, alone.token_ids, alone.usage)
    assert ids_of(backend)[0::2] == ids_of(backend)[1::2]


def test_a_conversation_shows_the_model_what_was_said() -> None:
    session, backend = opened("Red.", "Because of the light.", "Indeed.")
    for question in ("Which colour?", "Why?", "Really?"):
        session.chat(question)
    for said in ("Which colour?", "Red.", "Why?", "Because of the light.", "Really?"):
        assert said in backend.prompts[2]
    assert [(turn.request.prompt, turn.result.text) for turn in session.history] == [
        ("Which colour?", "Red."),
        ("Why?", "Because of the light."),
        ("Really?", "Indeed."),
    ]


def test_the_generated_ids_are_in_the_next_prompt_as_they_came() -> None:
    spelled = tuple(token for letter in "Red." for token in builtin_tokenizer().encode_text(letter)[-1:])
    session, backend = opened(Script(spelled), "Yes.")
    first = session.chat("Which colour?")
    session.chat("Really?")
    start = first.usage.prompt_tokens
    assert tuple(ids_of(backend)[1][start : start + len(spelled)]) == spelled == first.token_ids


def test_a_question_asked_between_turns_is_no_part_of_the_conversation() -> None:
    session, backend = opened("Red.", "A shed.", "Because.")
    session.chat("Which colour?")
    session.ask("What is this?")
    session.chat("Why?")
    assert "Which colour?" not in backend.prompts[1]
    assert "What is this?" not in backend.prompts[2]
    assert [turn.request.prompt for turn in session.history] == ["Which colour?", "Why?"]


def test_images_are_read_with_the_first_question_only() -> None:
    session, backend = opened(images=[IMAGE])
    for question in ("What is this?", "Which colour is it?", "What is this?"):
        session.ask(question)
    first, *later = backend.log.prefills
    assert first > IMAGE_TOKENS
    assert all(read < 30 for read in later)
    one, two, three = (inputs.pixel_values for inputs in backend.log.prompts)
    assert one is two is three is not None


def test_a_turn_reads_only_what_is_new() -> None:
    session, backend = opened(images=[IMAGE])
    for question in ("What is this?", "Why?", "Really?"):
        session.chat(question)
    first, *later = backend.log.prefills
    assert first > IMAGE_TOKENS
    assert all(read < 20 for read in later)


def test_what_reading_the_images_took_is_told_once() -> None:
    session, _ = opened(images=[IMAGE])
    times = [session.ask("What is this?").timings.image_decode_s for _ in range(3)]
    assert times[0] > 0
    assert times[1:] == [0, 0]


def test_a_later_image_joins_the_conversation_and_all_is_read_anew() -> None:
    session, backend = opened(images=[IMAGE])
    session.chat("What is this?")
    session.chat("And this?", [OTHER])
    session.chat("And both?")
    assert [inputs.image_tokens for inputs in backend.log.prompts] == [
        (IMAGE_TOKENS,), (IMAGE_TOKENS,) * 2, (IMAGE_TOKENS,) * 2
    ]  # fmt: skip
    assert backend.log.prefills[1] == len(ids_of(backend)[1])
    assert backend.log.prefills[2] < 20
    assert [len(turn.request.images) for turn in session.history] == [1, 1, 0]


def test_the_first_turn_has_the_sessions_images_and_its_own() -> None:
    session, backend = opened(images=[IMAGE])
    session.chat("What are these?", [OTHER])
    assert backend.log.prompts[0].image_tokens == (IMAGE_TOKENS,) * 2
    assert len(session.history[0].request.images) == 2


def test_the_next_question_ends_an_unfinished_answer() -> None:
    session, backend = opened("The quick brown fox.", "Yes.")
    stream = session.stream("What is this?")
    next(iter(stream))
    assert session.ask("Really?").text == "Yes."
    assert stream.result.finish_reason == "cancelled"
    assert list(stream) == []
    assert backend.log.running == 0


def test_a_cancelled_answer_is_remembered_as_far_as_it_came() -> None:
    session, backend = opened("The quick brown fox.", "Yes.")
    stream = session.chat_stream("What is this?")
    tokens = iter(stream)
    ids = tuple(next(tokens).id for _ in range(4))
    stream.cancel()
    (turn,) = session.history
    assert (turn.result.finish_reason, turn.result.token_ids) == ("cancelled", ids)
    session.chat("Really?")
    start = turn.result.usage.prompt_tokens
    assert tuple(ids_of(backend)[1][start : start + 4]) == ids
    assert ids_of(backend)[1][start + 4] in backend.model.eos_token_ids  # the prompt closes the answer


def test_an_answer_cancelled_before_its_first_token_is_no_turn() -> None:
    session, backend = opened("The quick brown fox.", "Yes.", images=[IMAGE])
    session.chat_stream("What is this?").cancel()
    assert session.history == ()
    session.chat("Which colour?")
    assert "What is this?" not in backend.prompts[1]
    assert session.history[0].request.images == (IMAGE,)


def test_an_empty_answer_is_a_turn() -> None:
    session, _ = opened(Script((EOS,)))
    assert session.chat("What is this?").text == ""
    assert len(session.history) == 1


@pytest.mark.parametrize("error", [InferenceError("broken"), KeyboardInterrupt()], ids=["error", "interrupt"])
@pytest.mark.parametrize("at", [0, 3])
def test_an_answer_that_fails_is_no_turn_and_its_cache_is_not_used_again(error: BaseException, at: int) -> None:
    session, backend = opened("Red.", fails(at, error), "Because.")
    session.chat("Which colour?")
    with pytest.raises(type(error)):
        session.chat("Since when?")
    assert session.chat("Why?").text == "Because."
    assert backend.log.prefills[2] == len(ids_of(backend)[2])
    assert "Since when?" not in backend.prompts[2]
    assert [turn.request.prompt for turn in session.history] == ["Which colour?", "Why?"]
    assert backend.log.running == 0


def test_an_answer_in_a_format_that_was_cut_is_no_turn() -> None:
    session, _ = opened("yes, of course", "Yes.")
    with pytest.raises(TruncatedAnswerError):
        session.chat("Is it red?", answer_format=Choices(["yes, of course"]), max_new_tokens=2)
    session.chat("Is it?")
    assert [turn.request.prompt for turn in session.history] == ["Is it?"]


def test_a_stop_string_and_what_it_cut_off_are_no_part_of_the_conversation() -> None:
    session, backend = opened("Red and blue.", "Yes.")
    answer = session.chat("Which colour?", stop=[" and"])
    session.chat("Really?")
    assert answer.text == "Red"
    assert len(answer.token_ids) > len(said := backend.tokenizer.encode_text("Red"))
    start = answer.usage.prompt_tokens
    held = ids_of(backend)[1]
    assert held[start : start + len(said)] == said
    assert held[start + len(said)] in backend.model.eos_token_ids
    assert "and blue" not in backend.prompts[1]


def test_options_hold_for_their_own_question_only() -> None:
    session, _ = opened("The quick brown fox.", "The quick brown fox.")
    assert session.ask("What is this?", max_new_tokens=2).finish_reason == "length"
    assert session.ask("What is this?").text == "The quick brown fox."


def test_a_reset_forgets_the_conversation_and_keeps_the_images() -> None:
    session, backend = opened(images=[IMAGE])
    first = session.chat("What is this?")
    session.chat("Why?")
    session.reset()
    assert (session.history, session.context_used) == ((), 0)
    assert session.chat("What is this?").text == first.text
    assert ids_of(backend)[2] == ids_of(backend)[0]
    assert backend.log.prefills[2] < IMAGE_TOKENS


def test_a_reset_in_the_middle_of_an_answer_ends_it() -> None:
    session, backend = opened("The quick brown fox.")
    stream = session.chat_stream("What is this?")
    next(iter(stream))
    session.reset()
    assert (stream.result.finish_reason, session.history, backend.log.running) == ("cancelled", (), 0)


def test_the_context_in_use_is_that_of_the_last_turn() -> None:
    session, backend = opened()
    assert session.context_used == 0
    for question in ("What is this?", "Why?"):
        result = session.chat(question)
        assert session.context_used == result.usage.prompt_tokens + result.usage.completion_tokens
    assert session.context_length == backend.model.context_length


def test_a_turn_beyond_the_context_is_refused_and_the_conversation_goes_on() -> None:
    session, backend = opened("Red.", "Because.", context_length=60)
    session.chat("Which colour?", max_new_tokens=10)
    with pytest.raises(ContextLengthError, match="context is 60"):
        session.chat("Why is that so, and since when?", max_new_tokens=10)
    assert session.chat("Why?", max_new_tokens=10).text == "Because."
    assert "Red." in backend.prompts[-1]
    assert len(session.history) == 2


def test_bad_questions_start_nothing_and_are_no_turns() -> None:
    session, backend = opened("Red.", images=[IMAGE])
    for question, images, error in (
        ("\ud800", (), PromptError),
        ("<|image_2|>", (), PromptError),
        ("And this?", [b"garbage"], ImageError),
        ("And this?", "photo.jpg", OptionError),
    ):
        with pytest.raises(error):
            session.chat(question, images)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="top_kk"):
        session.ask("What is this?", top_kk=3)  # type: ignore[call-arg]
    assert (backend.log.prompts, session.history) == ([], ())
    assert session.ask("What is this?").text == "Red."


def test_a_bad_image_is_refused_when_the_session_is_opened() -> None:
    engine = phi3v.Engine(FakeBackend())
    with pytest.raises(ImageError):
        engine.session([b"garbage"])
    with pytest.raises(ContextLengthError, match="at least"):
        engine.session(["absent.png"] * 14)


def test_closing_ends_the_answer_and_frees_the_cache() -> None:
    session, backend = opened("The quick brown fox.")
    with session:
        stream = session.stream("What is this?")
        next(iter(stream))
        assert backend.log.running == 1
    assert (backend.log.running, stream.result.finish_reason) == (0, "cancelled")
    for ask in (session.ask, session.chat, session.stream, session.chat_stream):
        with pytest.raises(InferenceError, match="this session is closed; open another"):
            ask("What is this?")
    session.close()


def test_the_history_of_a_closed_session_can_still_be_read() -> None:
    session, _ = opened("Red.")
    with session:
        session.chat("Which colour?")
    assert [turn.result.text for turn in session.history] == ["Red."]


def test_two_sessions_and_single_answers_know_nothing_of_each_other() -> None:
    backend = FakeBackend()
    engine = phi3v.Engine(backend)
    with engine.session([IMAGE]) as one, engine.session([OTHER]) as two:
        one.chat("What is this?")
        two.chat("Which colour is it?")
        engine.generate("Is it old?")
        one.chat("Why?")
    assert "What is this?" in backend.prompts[3]
    assert "Which colour is it?" not in backend.prompts[3]
    assert backend.log.prefills[3] < 20


def test_a_streamed_turn_counts_once_it_was_read_to_its_end() -> None:
    session, _ = opened(says("Red."))
    stream = session.chat_stream("Which colour?")
    assert session.history == ()
    for _ in stream:
        pass
    assert [turn.result for turn in session.history] == [stream.result]
