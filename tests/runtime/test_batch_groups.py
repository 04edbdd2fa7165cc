"""Batches on a fake backend: who runs together, within which memory, and whose error is whose."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from fake_backend import IMAGE_TOKENS, FakeBackend, FakeBatchBackend, by_word, fails, says

import phi3v
from phi3v import GenerationRequest, GenerationResult
from phi3v.answer_format import Choices
from phi3v.errors import ContextLengthError, ImageError, InferenceError, OptionError, TruncatedAnswerError
from phi3v.prepare import PreparedRequest, attempt

IMAGE = np.full((10, 20, 3), 90, dtype=np.uint8)


def asked(*prompts: str, **options: object) -> list[GenerationRequest]:
    return [GenerationRequest(prompt, **options) for prompt in prompts]  # type: ignore[arg-type]


def texts(outcomes: Sequence[object]) -> list[object]:
    """The answers' texts, and errors by their kind."""
    return [o.text if isinstance(o, GenerationResult) else type(o) for o in outcomes]


def test_every_answer_is_the_one_of_a_run_of_its_own_in_the_order_given() -> None:
    requests = asked("one", "two words", "three words now", "four", "a fifth question", max_new_tokens=20)
    alone = [phi3v.Engine(FakeBackend()).generate(request.prompt, max_new_tokens=20) for request in requests]
    together = phi3v.Engine(FakeBatchBackend()).generate_batch(requests)
    assert texts(together) == texts(alone)
    assert len({result.text for result in alone}) == 5


def test_no_request_at_all_is_no_answer() -> None:
    assert phi3v.Engine(FakeBatchBackend()).generate_batch([]) == []


@pytest.mark.parametrize(
    ("options", "most", "batches"),
    [
        ({}, 32, [8, 8, 4]),
        ({"batch_size": 5}, 32, [5, 5, 5, 5]),
        ({"batch_size": 20}, 32, [20]),
        ({"batch_size": 32}, 32, [20]),
        ({"batch_size": 8}, 3, [3, 3, 3, 3, 3, 3, 2]),
        ({"batch_size": 1}, 32, []),
        ({"batch_size": 19}, 32, [19]),
    ],
    ids=str,
)
def test_as_many_run_together_as_the_caller_and_the_backend_allow(
    options: dict[str, int], most: int, batches: list[int]
) -> None:
    backend = FakeBatchBackend()
    backend.max_batch_size = most
    results = phi3v.Engine(backend).generate_batch(asked(*["hi"] * 20), **options)
    assert backend.log.batches == batches
    assert (len(results), backend.log.running, len(backend.log.prefills)) == (20, 0, 20)


def test_a_backend_without_batches_answers_one_after_the_other() -> None:
    backend = FakeBackend("One.", "Two.", "Three.")
    assert texts(phi3v.Engine(backend).generate_batch(asked("one", "two", "three"))) == ["One.", "Two.", "Three."]
    assert backend.log.running == 0


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0}, {"batch_size": 33}, {"batch_size": 2.5}, {"max_memory": 0}, {"max_memory": -1},
        {"max_memory": 1.5},
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_is_refused_before_a_request_is_taken(options: dict[str, int]) -> None:
    taken: list[GenerationRequest] = []

    def requests() -> Iterator[GenerationRequest]:
        for request in asked("one"):
            taken.append(request)
            yield request

    with pytest.raises(OptionError, match="allowed"):
        phi3v.Engine(FakeBatchBackend()).generate_batch(requests(), **options)
    assert taken == []


def test_requests_that_cannot_be_prepared_have_their_errors_in_their_places() -> None:
    requests = [*asked("one"), *asked("two", images=[b"garbage"]), *asked("three"), *asked("four", max_new_tokens=9999)]
    outcomes = phi3v.Engine(FakeBatchBackend("One.", "Three.")).generate_batch(requests)
    assert texts(outcomes) == ["One.", ImageError, "Three.", ContextLengthError]


def test_a_refused_request_waits_for_no_batch() -> None:
    backend = FakeBatchBackend()
    prepared = (attempt(backend, request) for request in (*asked("one"), *asked("two", images=[b"garbage"])))
    first = next(iter(phi3v.Engine(backend).answer_prepared(prepared)))
    assert (first[0], type(first[1])) == (1, ImageError)
    assert backend.log.prefills == []


def test_requests_are_taken_two_batches_ahead_and_no_further() -> None:
    backend, taken = FakeBatchBackend(), 0

    def prepared() -> Iterator[PreparedRequest | phi3v.Phi3VError]:
        nonlocal taken
        for request in asked(*["hi"] * 40):
            taken += 1
            yield attempt(backend, request)

    outcomes = phi3v.Engine(backend).answer_prepared(prepared(), batch_size=4)
    counts = []
    for _ in outcomes:
        counts.append(taken)
    assert counts[:9] == [8, 8, 8, 8, 12, 12, 12, 12, 16]
    assert taken == 40


def test_images_that_wait_are_bounded_by_the_memory_too() -> None:
    backend, taken = FakeBatchBackend(), 0

    def prepared() -> Iterator[PreparedRequest | phi3v.Phi3VError]:
        nonlocal taken
        for request in asked(*["hi"] * 20, images=[IMAGE]):
            taken += 1
            yield attempt(backend, request)

    image_bytes = attempt(backend, asked("hi", images=[IMAGE])[0]).inputs.pixel_values.nbytes  # type: ignore[union-attr]
    outcomes = phi3v.Engine(backend).answer_prepared(prepared(), batch_size=8, max_memory=12 * image_bytes)
    next(iter(outcomes))
    assert taken == 2


def test_outcomes_come_as_soon_as_their_rows_are_finished() -> None:
    backend = FakeBatchBackend(answer=by_word({"long": says("A long, long answer."), "short": says("No.")}))
    prepared = (attempt(backend, request) for request in asked("long", "short", "long", "short"))
    numbers = [number for number, _ in phi3v.Engine(backend).answer_prepared(prepared)]
    assert numbers == [1, 3, 0, 2]
    steps = [len(backend.tokenizer.encode_text(text)) + 1 for text in ("A long, long answer.", "No.")]
    assert backend.log.steps == 2 * sum(steps)  # a row that has left takes no more


def test_requests_of_like_length_run_together() -> None:
    backend = FakeBatchBackend()
    short, long = "hi", "a much longer question than the other one"
    phi3v.Engine(backend).generate_batch(asked(short, long, short, long), batch_size=2)
    lengths = [len(inputs.input_ids) for inputs in backend.log.prompts]
    assert lengths[0] == lengths[1] < lengths[2] == lengths[3]


def test_requests_that_may_say_as_much_run_together() -> None:
    backend = FakeBatchBackend("A.", "A.", "B.", "B.")
    few, many = {"max_new_tokens": 4}, {"max_new_tokens": 400}
    requests = [*asked("hi", **few), *asked("hi", **many), *asked("hi", **few), *asked("hi", **many)]
    assert texts(phi3v.Engine(backend).generate_batch(requests, batch_size=2)) == ["A.", "B.", "A.", "B."]


def test_rows_on_both_sides_of_the_longrope_switch_never_run_together() -> None:
    backend = FakeBatchBackend(original_context_length=IMAGE_TOKENS)
    requests = [*asked("one", "two"), *asked("three", "four", images=[IMAGE])]
    assert all(isinstance(outcome, GenerationResult) for outcome in phi3v.Engine(backend).generate_batch(requests))
    assert backend.log.batches == [2, 2]


def test_fewer_run_together_where_the_memory_holds_no_more() -> None:
    backend = FakeBatchBackend()
    (one,) = asked("hi", max_new_tokens=90)
    tokens = len(attempt(backend, one).inputs.input_ids) + 90  # type: ignore[union-attr]
    results = phi3v.Engine(backend).generate_batch([one] * 6, max_memory=3 * tokens + 1)
    assert backend.log.batches == [3, 3]
    assert len(results) == 6


def test_a_longer_row_makes_all_rows_of_its_batch_longer() -> None:
    backend = FakeBatchBackend()
    small, large = asked("hi", max_new_tokens=90), asked("hi", max_new_tokens=190)
    tokens = len(attempt(backend, small[0]).inputs.input_ids)  # type: ignore[union-attr]
    phi3v.Engine(backend).generate_batch([*small, *large, *small], max_memory=2 * (tokens + 190) - 1)
    assert backend.log.batches == [2]  # the two small ones; a small one beside the large one would not fit


def test_a_request_beyond_the_memory_given_fails_alone_and_says_what_to_do() -> None:
    backend = FakeBatchBackend()
    requests = [
        *asked("one", max_new_tokens=20),
        *asked("two", max_new_tokens=2000),
        *asked("three", max_new_tokens=20),
    ]
    outcomes = phi3v.Engine(backend).generate_batch(requests, max_memory=1000)
    assert [type(outcome) for outcome in outcomes] == [GenerationResult, ContextLengthError, GenerationResult]
    assert "max_memory allows" in str(outcomes[1])
    assert "lower max_new_tokens" in str(outcomes[1])


def test_an_error_of_one_row_is_answered_by_running_the_others_again() -> None:
    backend = FakeBatchBackend(answer=by_word({"good": says("Yes."), "bad": fails(2)}))
    outcomes = phi3v.Engine(backend).generate_batch(asked("good 1", "bad", "good 2"))
    assert texts(outcomes) == ["Yes.", InferenceError, "Yes."]
    assert backend.log.batches == [3]
    assert (len(backend.log.prefills), backend.log.running) == (6, 0)


def test_a_batch_that_fails_is_answered_row_by_row() -> None:
    backend = FakeBatchBackend()
    backend.batch_error = InferenceError("no memory for so many")
    requests = asked("one", "two", "three")
    outcomes = phi3v.Engine(backend).generate_batch(requests)
    alone = [phi3v.Engine(FakeBackend()).generate(request.prompt) for request in requests]
    assert texts(outcomes) == texts(alone)
    assert backend.log.batches == [3]


def test_a_row_that_was_finished_before_its_batch_failed_is_not_run_again() -> None:
    backend = FakeBatchBackend(answer=by_word({"long": says("A long, long answer."), "short": says("No.")}))
    backend.batch_error, backend.batch_fails_at = InferenceError("broken"), 8
    outcomes = phi3v.Engine(backend).generate_batch(asked("short", "long", "long"))
    assert texts(outcomes) == ["No.", "A long, long answer.", "A long, long answer."]
    assert len(backend.log.prefills) == 3 + 2


def test_what_is_no_error_of_ours_ends_the_batch_and_frees_its_rows() -> None:
    backend = FakeBatchBackend(answer=by_word({"good": says("Yes."), "bad": fails(2, KeyboardInterrupt())}))
    with pytest.raises(KeyboardInterrupt):
        phi3v.Engine(backend).generate_batch(asked("good", "bad", "good"))
    assert backend.log.running == 0


def test_leaving_early_frees_the_rows_that_run() -> None:
    backend = FakeBatchBackend(answer=by_word({"long": says("A long, long answer."), "short": says("No.")}))
    outcomes = phi3v.Engine(backend).answer_prepared(attempt(backend, r) for r in asked("short", "long", "long"))
    next(iter(outcomes))
    assert backend.log.running == 2
    outcomes.close()  # type: ignore[attr-defined]
    assert backend.log.running == 0


def test_an_answer_in_a_format_that_was_cut_is_an_error_of_its_row_only() -> None:
    backend = FakeBatchBackend(answer=lambda _: says("yes"))
    choices = {"answer_format": Choices(["yes"])}
    requests = [*asked("one", **choices), *asked("two", max_new_tokens=1, **choices), *asked("three", **choices)]
    outcomes = phi3v.Engine(backend).generate_batch(requests)
    assert texts(outcomes) == ["yes", TruncatedAnswerError, "yes"]
    assert backend.log.batches == [3]


def test_stop_strings_and_lengths_end_their_own_rows() -> None:
    backend = FakeBatchBackend(answer=lambda _: says("The quick brown fox."))
    requests = [*asked("one", stop=["brown"]), *asked("two", max_new_tokens=3), *asked("three")]
    one, two, three = phi3v.Engine(backend).generate_batch(requests)
    assert isinstance(one, GenerationResult)
    assert isinstance(two, GenerationResult)
    assert isinstance(three, GenerationResult)
    assert (one.text, three.text, len(two.token_ids)) == ("The quick", "The quick brown fox.", 3)
    assert [result.finish_reason for result in (one, two, three)] == ["stop", "length", "stop"]


def test_the_times_of_a_row_are_those_of_its_batch() -> None:
    backend = FakeBatchBackend(answer=lambda _: says("Yes.", pauses=0.005))
    one, two = phi3v.Engine(backend).generate_batch(asked("one", "two"))
    assert isinstance(one, GenerationResult)
    assert isinstance(two, GenerationResult)
    assert one.timings.prefill_s == two.timings.prefill_s >= 0.01  # both rows' pauses
    assert one.timings.decode_tokens == two.timings.decode_tokens == len(one.token_ids)


def test_draws_depend_on_the_seed_and_not_on_the_company() -> None:
    sampling = phi3v.SamplingParams(temperature=100.0, seed=5)
    engine = phi3v.Engine(FakeBatchBackend(answer=lambda _: says("The quick brown fox.", endless=True)))
    alone = engine.generate("hi", max_new_tokens=12, temperature=100.0, seed=5)
    together = engine.generate_batch(asked("hi", "ho", "hi", max_new_tokens=12, sampling=sampling))
    assert [result.token_ids == alone.token_ids for result in together[::2]] == [True, True]  # type: ignore[union-attr]
