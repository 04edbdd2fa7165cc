"""Streams on a fake backend: how an answer ends, what is freed then, and what an error leaves behind."""

import threading
import time

import numpy as np
import pytest
from fake_backend import EOS, IMAGE_TOKENS, FakeBackend, Script, builtin_model, builtin_tokenizer, fails, says

import phi3v
from phi3v.errors import ContextLengthError, ImageError, InferenceError, OptionError, PromptError

IMAGE = np.full((10, 20, 3), 90, dtype=np.uint8)
FOX = "The quick brown fox."


def engine_and_log(*scripts: Script | str, **changes: object) -> tuple[phi3v.Engine, FakeBackend]:
    backend = FakeBackend(*scripts, **changes)
    return phi3v.Engine(backend), backend


def test_the_answer_is_what_the_tokens_say() -> None:
    engine, backend = engine_and_log(FOX)
    result = engine.generate("hi")
    assert (result.text, result.finish_reason) == (FOX, "stop")
    assert result.token_ids == tuple(backend.tokenizer.encode_text(FOX))


def test_the_streamed_pieces_are_the_text() -> None:
    engine, _ = engine_and_log(FOX)
    with engine.stream("hi") as stream:
        pieces = [token.text for token in stream]
    assert len(pieces) > 3
    assert "".join(pieces) == stream.result.text == FOX


@pytest.mark.parametrize("end", sorted(builtin_model().eos_token_ids))
def test_every_end_token_ends_the_answer_and_is_no_part_of_it(end: int) -> None:
    ids = tuple(builtin_tokenizer().encode_text("Yes."))
    engine, _ = engine_and_log(Script((*ids, end, *ids)))
    result = engine.generate("hi")
    assert (result.text, result.token_ids, result.finish_reason) == ("Yes.", ids, "stop")


def test_an_answer_may_be_empty() -> None:
    engine, _ = engine_and_log(Script((EOS,)))
    result = engine.generate("hi")
    assert (result.text, result.token_ids, result.finish_reason) == ("", (), "stop")
    assert result.usage.completion_tokens == 0


def test_max_new_tokens_ends_the_answer_without_another_step() -> None:
    engine, backend = engine_and_log(Script((259, 311), endless=True))
    result = engine.generate("hi", max_new_tokens=7)
    assert (len(result.token_ids), result.finish_reason, backend.log.steps) == (7, "length", 7)


def test_a_character_that_the_length_cuts_in_half_is_a_replacement_character() -> None:
    tokenizer = builtin_tokenizer()
    half = next(n for n in range(builtin_model().vocab_size) if tokenizer.piece(n) == b"\xc3")
    engine, _ = engine_and_log(Script((half,), endless=True))
    assert engine.generate("hi", max_new_tokens=1).text == "\N{REPLACEMENT CHARACTER}"


def test_nothing_is_read_before_the_first_token_is_asked_for() -> None:
    engine, backend = engine_and_log(FOX)
    with engine.stream("hi", [IMAGE]) as stream:
        assert (backend.log.prefills, backend.log.steps) == ([], 0)
        next(iter(stream))
        assert backend.log.prefills == [len(backend.log.prompts[0].input_ids)]


def test_usage_counts_images_among_the_prompt() -> None:
    engine, backend = engine_and_log("Yes.")
    usage = engine.generate("hi", [IMAGE, IMAGE]).usage
    assert usage.image_tokens == 2 * IMAGE_TOKENS
    assert usage.prompt_tokens == len(backend.log.prompts[0].input_ids) > usage.image_tokens
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_a_result_read_too_early_explains_itself() -> None:
    engine, _ = engine_and_log(FOX)
    with engine.stream("hi") as stream:
        for _ in range(3):
            with pytest.raises(InferenceError, match="not finished: iterate the stream to its end, or cancel"):
                _ = stream.result
            next(iter(stream))
    assert stream.result.finish_reason == "cancelled"


def test_the_kv_cache_is_freed_with_the_last_token() -> None:
    engine, backend = engine_and_log(FOX)
    stream = engine.stream("hi")
    next(iter(stream))
    assert backend.log.running == 1
    for _ in stream:
        pass
    assert backend.log.running == 0
    assert stream.result.text == FOX


def test_closing_early_frees_the_kv_cache_and_counts_as_cancelled() -> None:
    engine, backend = engine_and_log(FOX)
    with engine.stream("hi") as stream:
        first = next(iter(stream))
    assert (backend.log.running, backend.log.steps) == (0, 1)
    assert (stream.result.finish_reason, stream.result.token_ids) == ("cancelled", (first.id,))


def test_a_stream_that_was_closed_gives_no_more_tokens() -> None:
    engine, backend = engine_and_log(FOX)
    stream = engine.stream("hi")
    tokens = iter(stream)
    next(tokens)
    stream.close()
    stream.close()
    assert (list(tokens), list(stream), backend.log.steps) == ([], [], 1)


def test_cancelling_a_finished_answer_changes_nothing() -> None:
    engine, _ = engine_and_log(FOX)
    stream = engine.stream("hi")
    for _ in stream:
        pass
    before = stream.result
    stream.cancel()
    assert stream.result == before


def test_an_answer_cancelled_before_its_first_token_reads_nothing() -> None:
    engine, backend = engine_and_log(FOX)
    stream = engine.stream("hi", [IMAGE])
    stream.cancel()
    assert list(stream) == []
    assert (backend.log.prefills, stream.result.text, stream.result.finish_reason) == ([], "", "cancelled")


def test_cancelling_from_another_thread_waits_for_the_running_step() -> None:
    reached, released = threading.Event(), threading.Event()
    engine, backend = engine_and_log(says(FOX, endless=True, at=5, reached=reached, released=released))
    stream = engine.stream("hi")
    texts: list[str] = []
    reader = threading.Thread(target=lambda: texts.extend(token.text for token in stream))
    reader.start()
    assert reached.wait(20)
    canceller = threading.Thread(target=stream.cancel)
    canceller.start()
    time.sleep(0.05)
    assert canceller.is_alive()
    released.set()
    canceller.join(20)
    reader.join(20)
    assert not reader.is_alive()
    assert (len(texts), backend.log.steps, backend.log.running) == (6, 6, 0)
    assert (stream.result.finish_reason, stream.result.text) == ("cancelled", "".join(texts))


def test_a_quick_reader_does_not_keep_another_thread_from_cancelling() -> None:
    engine, _ = engine_and_log(Script((259,), endless=True), context_length=10**9)
    stream = engine.stream("hi", max_new_tokens=10**6)
    canceller = threading.Timer(0.02, stream.cancel)
    canceller.start()
    for _ in stream:
        pass
    canceller.join()
    assert stream.result.finish_reason == "cancelled"


@pytest.mark.parametrize("at", [0, 1, 4])
@pytest.mark.parametrize("error", [InferenceError("broken"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_an_error_discards_only_its_own_generation(at: int, error: BaseException) -> None:
    engine, backend = engine_and_log(fails(at, error), FOX)
    stream = engine.stream("hi")
    with pytest.raises(type(error)):
        list(stream)
    assert backend.log.running == 0
    assert (stream.result.finish_reason, len(stream.result.token_ids)) == ("cancelled", at)
    assert list(stream) == []
    assert engine.generate("hi").text == FOX


def test_two_streams_run_beside_each_other() -> None:
    engine, backend = engine_and_log("One is here.", "Two is there.")
    with engine.stream("one") as one, engine.stream("two") as two:
        for tokens in (iter(one), iter(two), iter(one)):
            next(tokens)
        assert backend.log.running == 2
        for stream in (one, two):
            list(stream)
    assert (one.result.text, two.result.text) == ("One is here.", "Two is there.")
    assert backend.log.running == 0


def test_a_closed_engine_starts_nothing() -> None:
    engine, backend = engine_and_log(FOX)
    with engine:
        pass
    assert backend.log.closed
    with pytest.raises(InferenceError, match="closed"):
        engine.generate("hi")


@pytest.mark.parametrize(
    ("prompt", "images", "options", "error"),
    [
        ("", [], {}, PromptError),
        ("\ud800", [], {}, PromptError),
        ("<|image_2|>", [IMAGE], {}, PromptError),
        ("hi", [b"garbage"], {}, ImageError),
        ("hi", ["absent.png"], {}, FileNotFoundError),
        ("hi", [], {"max_new_tokens": 4096}, ContextLengthError),
        ("hi", [IMAGE] * 14, {"max_new_tokens": 1}, ContextLengthError),
        ("hi", [], {"temperature": -1}, OptionError),
        ("hi", [], {"seed": 2**31}, OptionError),
        ("hi", IMAGE, {}, OptionError),
    ],
    ids=["empty", "surrogate", "tag", "garbage", "absent", "context", "images", "temperature", "seed", "no list"],
)
def test_a_request_that_is_refused_starts_nothing(
    prompt: str, images: list[object], options: dict[str, float], error: type[Exception]
) -> None:
    engine, backend = engine_and_log(FOX)
    with pytest.raises(error) as caught:
        engine.generate(prompt, images, **options)  # type: ignore[arg-type]
    assert isinstance(caught.value, phi3v.Phi3VError)
    assert (backend.log.prompts, backend.log.steps) == ([], 0)
    assert engine.generate("hi").text == FOX


def test_a_request_that_fills_the_context_to_its_last_token_is_answered() -> None:
    engine, backend = engine_and_log("Yes.", "No.")
    engine.generate("hi")
    left = engine.model.context_length - len(backend.log.prompts[0].input_ids)
    assert engine.generate("hi", max_new_tokens=left).text == "No."
    with pytest.raises(ContextLengthError, match=f"lower max_new_tokens to {left}"):
        engine.generate("hi", max_new_tokens=left + 1)


def test_a_stop_string_ends_the_answer_in_front_of_it() -> None:
    engine, backend = engine_and_log(FOX)
    result = engine.generate("hi", stop=["brown"])
    assert (result.text, result.finish_reason) == ("The quick", "stop")
    assert backend.log.steps == len(result.token_ids) < len(builtin_tokenizer().encode_text(FOX))


@pytest.mark.parametrize("stop", [["fox", "quick"], ["quick", "fox"], ["never", "quick", "quick brown"]], ids=str)
def test_the_stop_string_that_comes_first_counts(stop: list[str]) -> None:
    engine, _ = engine_and_log(FOX)
    assert engine.generate("hi", stop=stop).text == "The"


def test_no_piece_shows_the_beginning_of_a_stop_string() -> None:
    engine, _ = engine_and_log(FOX)
    with engine.stream("hi", stop=["quick brown"]) as stream:
        assert "".join(token.text for token in stream) == "The"


def test_text_that_only_began_like_a_stop_string_is_said_after_all() -> None:
    engine, _ = engine_and_log(FOX, FOX, FOX)
    assert engine.generate("hi", stop=["quick red"]).text == FOX
    assert engine.generate("hi", stop=["fox. And"]).text == FOX
    cut = engine.generate("hi", stop=["quick brown fox"], max_new_tokens=12)
    assert (cut.text, cut.finish_reason) == (FOX[: len(cut.text)], "length")


def test_a_cancelled_answer_keeps_what_a_stop_string_held_back() -> None:
    engine, _ = engine_and_log(FOX)
    stream = engine.stream("hi", stop=["The quick brown fox never"])
    tokens = iter(stream)
    ids = [next(tokens).id for _ in range(6)]
    stream.cancel()
    decoder = builtin_tokenizer().text_stream()
    assert stream.result.text == "".join(map(decoder.push, ids)) != ""


def test_the_seed_decides_what_is_drawn() -> None:
    options = {"temperature": 100.0, "max_new_tokens": 20}
    engine, _ = engine_and_log(answer=lambda _: says(FOX, endless=True))
    one, again, other = (engine.generate("hi", seed=seed, **options).token_ids for seed in (1, 1, 2))  # type: ignore[arg-type]
    assert one == again != other


def test_greedy_ignores_the_seed_and_what_narrows_a_draw() -> None:
    engine, _ = engine_and_log(answer=lambda _: says(FOX))
    assert engine.generate("hi", seed=7, top_k=3, top_p=0.1).text == engine.generate("hi").text == FOX


def test_the_time_a_reader_takes_is_not_the_models() -> None:
    engine, _ = engine_and_log(FOX)
    with engine.stream("hi") as stream:
        for number, _ in enumerate(stream):
            if number < 4:
                time.sleep(0.1)
    assert stream.result.timings.decode_s < 0.3


def test_the_first_step_is_prefill_and_the_later_ones_decode() -> None:
    engine, _ = engine_and_log(says("Yes.", pauses=0.01))
    timings = engine.generate("hi").timings
    assert timings.prefill_s >= 0.01
    assert timings.decode_s >= 0.01 * timings.decode_tokens
    assert timings.decode_tokens == len(builtin_tokenizer().encode_text("Yes."))  # the end token took a step too


def test_generate_and_stream_make_the_same_request_of_their_options(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[phi3v.GenerationRequest] = []
    start = phi3v.Engine.stream_request
    monkeypatch.setattr(phi3v.Engine, "stream_request", lambda self, asked: (made.append(asked), start(self, asked))[1])
    engine, _ = engine_and_log()
    sampling = {"temperature": 0.5, "top_k": 3, "top_p": 0.7, "repetition_penalty": 1.5, "seed": 9}
    options = {"max_new_tokens": 4, "num_crops": "auto", "stop": ["x"], **sampling}
    engine.generate("hi", [IMAGE], **options)  # type: ignore[arg-type]
    engine.stream("hi", [IMAGE], **options).close()  # type: ignore[arg-type]
    expected = phi3v.GenerationRequest("hi", [IMAGE], 4, "auto", ["x"], phi3v.SamplingParams(**sampling))  # type: ignore[arg-type]
    assert [repr(request) for request in made] == [repr(expected)] * 2
