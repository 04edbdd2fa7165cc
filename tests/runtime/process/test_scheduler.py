"""Which requests run when, on a backend that says what it is told to."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from fake_backend import FakeBackend, FakeBatch, FakeBatchBackend, by_word, fails, says
from PIL import Image

from phi3v.backend import BatchRow
from phi3v.errors import ContextLengthError, InferenceError, OptionError
from phi3v.prepare import prepare
from phi3v.process.images_key import hash_images
from phi3v.process.messages import Begun, Ended, Event, Step
from phi3v.process.scheduler import Costs, Job, Scheduler
from phi3v.types import GenerationRequest, GenerationResult


class Run:
    """A scheduler, and what it said."""

    def __init__(self, backend: FakeBackend, **limits: int) -> None:
        self.backend = backend
        self.events: list[Event] = []
        self.scheduler = Scheduler(backend, self.events.append, **limits)

    def ask(self, number: int, prompt: str, colours: Sequence[str] = (), **options: object) -> None:
        images = [Image.new("RGB", (40, 30), colour) for colour in colours]
        limits = {name: options.pop(name) for name in ("batch_size", "max_memory") if name in options}
        prepared = prepare(self.backend, GenerationRequest(prompt, images, **options))  # type: ignore[arg-type]
        if images:
            prepared = replace(prepared, inputs=replace(prepared.inputs, images_key=hash_images(prepared.inputs)))
        self.scheduler.submit(Job(number, prepared, **limits))  # type: ignore[arg-type]

    def finish(self) -> dict[int, object]:
        """Work until nothing is left: text of each answer, or the kind of its error."""
        for _ in range(10_000):
            if not self.scheduler.busy:
                break
            self.scheduler.work()
        assert not self.scheduler.busy
        return {
            event.number: type(event.error) if event.error is not None else event.result.text  # type: ignore[union-attr]
            for event in self.events
            if isinstance(event, Ended)
        }

    def result(self, number: int) -> GenerationResult:
        [found] = [e.result for e in self.events if isinstance(e, Ended) and e.number == number]
        assert found is not None
        return found

    def order(self, kind: type[Begun] | type[Ended] = Begun) -> list[int]:
        return [event.number for event in self.events if isinstance(event, kind)]


@pytest.fixture
def backend() -> FakeBatchBackend:
    return FakeBatchBackend(
        answer=by_word({"long": says("A long, long answer."), "short": says("No."), "": says("Yes.")})
    )


def test_requests_that_wait_run_in_one_batch(backend: FakeBatchBackend) -> None:
    run = Run(backend)
    for number in range(3):
        run.ask(number, f"short {number}")
    assert run.finish() == {0: "No.", 1: "No.", 2: "No."}
    assert backend.log.batches == [3]


def test_no_more_run_together_than_the_server_or_a_request_allows(backend: FakeBatchBackend) -> None:
    run = Run(backend, batch_size=3)
    for number in range(4):
        run.ask(number, f"short {number}", **({"batch_size": 2} if number == 0 else {}))
    run.finish()
    assert backend.log.batches == [2, 2]


def test_a_row_that_has_ended_is_said_to_at_once(backend: FakeBatchBackend) -> None:
    run = Run(backend)
    run.ask(1, "long")
    run.ask(2, "short")
    run.finish()
    assert run.order(Ended) == [2, 1]


def test_an_image_is_read_once_however_many_ask(backend: FakeBatchBackend) -> None:
    run = Run(backend)
    for number in range(4):
        run.ask(number, f"short {number}", ["red"])
    assert set(run.finish().values()) == {"No."}
    assert backend.log.batches == []
    first, *others = backend.log.prefills
    assert first > 300
    assert max(others) < 30
    assert [run.result(number).usage.cached_tokens > 300 for number in range(4)] == [False, True, True, True]


def test_other_questions_run_while_an_image_is_read_that_many_ask_about(backend: FakeBatchBackend) -> None:
    run = Run(backend)
    run.ask(1, "long", ["red"])
    run.scheduler.work()
    run.ask(2, "short", ["red"])
    run.ask(3, "short")
    run.scheduler.work()
    assert run.order() == [1, 3]
    assert run.finish()[2] == "No."


def test_the_same_image_in_other_company_is_read_again(backend: FakeBatchBackend) -> None:
    run = Run(backend)
    run.ask(1, "short", ["red"])
    run.finish()
    run.ask(2, "short", ["red", "blue"])
    run.finish()
    assert run.result(2).usage.cached_tokens == 0


def test_a_conversation_is_read_from_where_it_left_off(backend: FakeBatchBackend) -> None:
    text = "a question that is much longer than what every prompt begins with " * 6
    run = Run(backend)
    run.ask(1, text)
    run.finish()
    run.ask(2, text + "and goes on")
    run.finish()
    assert run.result(2).usage.cached_tokens > 64


def test_a_short_prompt_does_not_overwrite_another_conversation(backend: FakeBatchBackend) -> None:
    run = Run(backend)
    run.ask(1, "a question that is much longer than what every prompt begins with " * 6)
    run.finish()
    run.ask(2, "short")
    run.finish()
    assert run.result(2).usage.cached_tokens == 0


def test_what_is_kept_makes_room_for_what_runs(backend: FakeBatchBackend) -> None:
    run = Run(backend, max_memory=5000)  # enough for one answer at a byte a token, and for no KV cache
    for number, colour in enumerate(["red", "blue", "red"]):
        run.ask(number, "short", [colour])
        run.finish()
    assert [run.result(number).usage.cached_tokens for number in range(3)] == [0, 0, 0]


def test_a_request_beyond_its_own_limit_of_memory_is_refused(backend: FakeBatchBackend) -> None:
    run = Run(backend)
    run.ask(1, "short", max_memory=1)
    assert run.finish() == {1: ContextLengthError}


@pytest.mark.parametrize("limits", [{"batch_size": 0}, {"max_memory": 0}])
def test_limits_outside_their_range_are_refused(backend: FakeBatchBackend, limits: dict[str, int]) -> None:
    with pytest.raises(OptionError):
        Run(backend, **limits)


def test_a_short_prompt_overtakes_a_long_one_that_came_just_before(backend: FakeBatchBackend) -> None:
    run = Run(backend, batch_size=1)
    run.ask(0, "short warm-up, which is measured", max_new_tokens=1)
    run.finish()
    run.scheduler.costs.prompt_token_s = 1.0
    for number in (1, 2):
        run.ask(number, "long", ["red", "blue", "green"][:number])
    run.ask(3, "short")
    run.scheduler.work()
    assert run.order() == [0, 3, 1]


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_cancelled_request_ends_wherever_it_is(backend: FakeBatchBackend, steps: int) -> None:
    run = Run(backend)
    run.ask(1, "long")
    run.ask(2, "long")
    for _ in range(steps):
        run.scheduler.work()
    run.scheduler.cancel(1)
    run.scheduler.cancel(1)
    assert run.result(1).finish_reason == "cancelled"
    assert run.finish()[2] == "A long, long answer."
    assert backend.log.running == 0


def test_an_error_of_a_row_stays_with_the_row() -> None:
    answers = by_word({"good": says("Yes, that is right."), "bad": fails(2)})
    backend = FakeBatchBackend(answer=answers)
    run = Run(backend)
    for number, word in enumerate(["good", "bad", "good"]):
        run.ask(number, f"{word} {number}")
    found = run.finish()
    assert found[1] is InferenceError
    assert len(run.result(0).token_ids) == len(run.result(2).token_ids)


def test_every_token_is_said_once_with_its_time(backend: FakeBatchBackend) -> None:
    run = Run(backend)
    run.ask(1, "long")
    run.finish()
    steps = [event for event in run.events if isinstance(event, Step)]
    assert "".join(step.token.text for step in steps) == "A long, long answer."
    assert isinstance(run.events[0], Begun)
    assert isinstance(run.events[-1], Ended)


class StrictBackend(FakeBatchBackend):
    """Refuses rows on both sides of the LongRoPE switch, as genai's backend does."""

    def start_batch(self, rows: Sequence[BatchRow]) -> FakeBatch:
        assert len({self.model.past_switch(len(row.inputs.input_ids)) for row in rows}) == 1
        return super().start_batch(rows)


def test_a_batch_is_rebuilt_only_from_rows_on_one_side_of_the_longrope_switch() -> None:
    answer = by_word({"long": says("word " * 40), "short": says("No.")})
    prompts = ["long", "long and longer", "short"]
    longest = max(len(prepare(FakeBackend(), GenerationRequest(prompt)).inputs.input_ids) for prompt in prompts)
    backend = StrictBackend(answer=answer, original_context_length=longest + 3)
    run = Run(backend)
    for number, prompt in enumerate(prompts):
        run.ask(number, prompt)
    run.scheduler.work()
    run.scheduler.costs.prompt_token_s, run.scheduler.costs.step_s = 0.0, {2: 1.0, 3: 1e6}
    run.finish()
    assert backend.log.batches[:2] == [3, 2]


@pytest.fixture
def costs() -> Costs:
    costs = Costs()
    costs.note_step(8, 0.3)
    costs.note_step(1, 0.1)
    costs.note_prefill(100, 1.0)
    return costs


@pytest.mark.parametrize(("tokens", "left", "pays"), [(400, 30, True), (400, 10, False)])
def test_a_batch_is_rebuilt_when_reading_again_costs_less(costs: Costs, tokens: int, left: int, pays: bool) -> None:
    assert costs.rebuilding_pays(8, [(tokens, left)]) is pays


def test_a_batch_is_not_rebuilt_on_a_guess(costs: Costs) -> None:
    assert not costs.rebuilding_pays(8, [(10, 1000), (10, 1000)])
    assert not Costs().rebuilding_pays(8, [(10, 1000)])


def test_a_batch_that_pays_to_be_rebuilt_goes_on_alone_with_the_same_tokens() -> None:
    backend = FakeBatchBackend(answer=by_word({"long": says("word " * 40), "short": says("No.")}))
    run = Run(backend)
    run.ask(1, "long")
    run.ask(2, "short")
    run.scheduler.work()
    run.scheduler.costs.prompt_token_s, run.scheduler.costs.step_s = 0.0, {1: 1.0, 2: 1e6}
    run.finish()
    alone = backend.log.prompts[2]
    generated = len(run.result(2).token_ids) + 1  # the end of the short answer, whose step the long one was in
    assert len(alone.input_ids) == len(backend.log.prompts[0].input_ids) + generated
