"""Sessions on the real genai: every answer is the one a fresh run over the same ids gives, and little is read twice."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exports import Exports
from PIL import Image

import phi3v
from phi3v.backend import Generation, ModelInputs
from phi3v.errors import ContextLengthError, ImageError, InferenceError, OptionError, PromptError
from phi3v.genai.backend import GenaiBackend
from phi3v.genai.model import GenaiModel
from phi3v.genai.prefix_cache import choose_capacity
from phi3v.models.folder import ModelDir
from phi3v.sampling import TokenChooser
from phi3v.types import SamplingParams

pytestmark = pytest.mark.torch

SWITCH = 900
"""Below it lie pictures of 1 crop (313 tokens) and of 4 (757), beyond it those of 16."""
LONG = "many words in one question " * 8
QUESTIONS = ["What is this?", LONG, "hi", "What is this? " + LONG, "What is that?"]
SAMPLINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 1.0, "top_k": 40, "top_p": 0.95, "seed": 7},
    {"repetition_penalty": 1.3},
    {"temperature": 0.7, "seed": 3, "repetition_penalty": 1.2},
]


def picture(seed: int, width: int = 500, height: int = 500) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


ONE, TWO = picture(1), picture(2, 400, 300)


SLOW = [pytest.param(how, marks=pytest.mark.slow, id="-".join(how)) for how in (("int4", "int4"), ("int4", "int8"))]


@pytest.fixture(scope="module", params=[("fp32", "int4"), *SLOW], ids=lambda how: "-".join(how))
def folder(request: pytest.FixtureRequest, exports: Exports) -> Path:
    """A precision, and what prompts are multiplied in."""
    precision, prefill = request.param
    return exports.model(precision, prefill=prefill, seed=1, layers=2, context=8192, original_context=SWITCH)


@pytest.fixture(scope="module")
def backend(folder: Path) -> GenaiBackend:
    return GenaiBackend(ModelDir.open(folder), "cpu")


@pytest.fixture
def engine(backend: GenaiBackend) -> phi3v.Engine:
    return phi3v.Engine(backend)


@pytest.fixture
def prefills(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lengths of the prompts that went through a new generator."""
    lengths: list[int] = []
    make = GenaiModel.new_generator

    def counted(self: GenaiModel, inputs: ModelInputs, max_length: int) -> Any:
        lengths.append(len(inputs.input_ids))
        return make(self, inputs, max_length)

    monkeypatch.setattr(GenaiModel, "new_generator", counted)
    return lengths


class Listening:
    """A session's `Reuse` that remembers what the last answer was asked for with."""

    def __init__(self, session: phi3v.Session) -> None:
        streams: Any = session._streams
        self._reuse, streams._reuse = streams._reuse, self

    @property
    def reused_tokens(self) -> int:
        return self._reuse.reused_tokens

    def shared_tokens(self, inputs: ModelInputs, max_new_tokens: int) -> int:
        return self._reuse.shared_tokens(inputs, max_new_tokens)

    @property
    def kept_tokens(self) -> int:
        return self._reuse.kept_tokens

    def start(self, inputs: ModelInputs, chooser: TokenChooser, max_new_tokens: int) -> Generation:
        self.inputs = inputs
        return self._reuse.start(inputs, chooser, max_new_tokens)

    def close(self) -> None:
        self._reuse.close()

    def fresh(self, backend: GenaiBackend, count: int, **sampling: Any) -> tuple[int, ...]:
        """Ids of the first `count` tokens of a fresh run over what was asked last."""
        chooser = TokenChooser(SamplingParams(**sampling), self.inputs.input_ids)
        generation = backend.start(self.inputs, chooser, count)
        tokens = tuple(generation.step() for _ in range(count))
        generation.close()
        return tokens


@pytest.fixture
def chat(engine: phi3v.Engine) -> Iterator[tuple[phi3v.Session, Listening]]:
    with engine.session([ONE], num_crops=1) as session:
        yield session, Listening(session)


CASES = [((), 1), ((ONE,), 1), ((ONE,), 4), ((ONE, TWO), 1)]
CASES += [pytest.param(images, 16, marks=pytest.mark.slow) for images in ((ONE,), (TWO, ONE))]


@pytest.mark.parametrize(
    ("images", "num_crops"), CASES, ids=lambda case: str(case if isinstance(case, int) else len(case))
)
def test_every_answer_is_the_one_a_fresh_run_gives(
    engine: phi3v.Engine, images: tuple[Image.Image, ...], num_crops: int
) -> None:
    with engine.session(images, num_crops=num_crops) as session:
        for question, sampling in list(zip(QUESTIONS, [*SAMPLINGS, {}], strict=True))[: 5 if num_crops < 16 else 3]:
            options = {"max_new_tokens": 16, **sampling}
            ours = session.ask(question, **options)  # type: ignore[arg-type]
            fresh = engine.generate(question, images, num_crops=num_crops, **options)  # type: ignore[arg-type]
            assert ours.token_ids == fresh.token_ids
            assert (ours.text, ours.finish_reason, ours.usage) == (fresh.text, fresh.finish_reason, fresh.usage)


@pytest.mark.parametrize("num_crops", [1, 16])
def test_pictures_go_through_the_model_once(engine: phi3v.Engine, prefills: list[int], num_crops: int) -> None:
    with engine.session([ONE], num_crops=num_crops) as session:
        answers = [session.ask(question, max_new_tokens=4) for question in ("hi", "What?", "hi there", "What?")]
    assert len(prefills) == 1
    assert answers[1].token_ids == answers[3].token_ids
    assert [answer.timings.image_decode_s > 0 for answer in answers] == [True, False, False, False]


def test_answers_on_either_side_of_the_longrope_switch(engine: phi3v.Engine, prefills: list[int]) -> None:
    lengths = []
    with engine.session([ONE], num_crops=4) as session:
        for words in (1, 30, 31, 1, 26, 27, 1):  # 757 tokens of picture and 4 to 5 a word
            question = " ".join(["word"] * words)
            ours = session.ask(question, max_new_tokens=20)
            new = len(prefills)
            assert ours.token_ids == engine.generate(question, [ONE], num_crops=4, max_new_tokens=20).token_ids
            del prefills[new:]
            lengths.append(ours.usage.prompt_tokens)
    assert min(lengths) + 20 < SWITCH < max(lengths)
    assert any(length <= SWITCH < length + 19 for length in lengths)  # one answer crosses it
    assert len(prefills) > 3


def test_a_question_beyond_the_buffer_starts_over_with_a_larger_one(
    engine: phi3v.Engine, prefills: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = [engine.generate(question, max_new_tokens=8).token_ids for question in ("hi", LONG, "hi")]
    prefills.clear()
    monkeypatch.setattr("phi3v.genai.prefix_cache.available_memory", lambda: 0)
    with engine.session() as session:
        assert [session.ask(question, max_new_tokens=8).token_ids for question in ("hi", LONG, "hi")] == fresh
    assert len(prefills) >= 2


def test_the_buffer_has_room_to_grow_within_memory_and_context(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ModelDir.open(folder)
    for free, length, wanted, room in (
        (None, 100, 200, 712),
        (None, 100, 700, SWITCH + 1),
        (None, 2000, 2200, 3300),
        (None, 1000, 8000, 8192),
        (model.kv_bytes(1400), 1000, 1200, 1300),
        (0, 1000, 1200, 1200),
    ):
        monkeypatch.setattr("phi3v.genai.prefix_cache.available_memory", lambda free=free: free)
        assert choose_capacity(model, length, wanted) == room


def test_a_chat_reads_the_picture_once_and_knows_the_turns_before(
    chat: tuple[phi3v.Session, Listening], backend: GenaiBackend, prefills: list[int]
) -> None:
    session, asked = chat
    lengths = []
    for question, sampling in zip(QUESTIONS[:3], SAMPLINGS, strict=False):
        answer = session.chat(question, max_new_tokens=12, **sampling)
        lengths.append(len(asked.inputs.input_ids))
        prefills_so_far = list(prefills)
        assert answer.token_ids == asked.fresh(backend, 12, **sampling)[: len(answer.token_ids)]
        prefills[:] = prefills_so_far
    assert lengths == sorted(lengths)
    assert prefills == [lengths[0]]
    assert [turn.request.prompt for turn in session.history] == QUESTIONS[:3]
    assert session.history[0].request.images == (ONE,)
    assert session.context_used == session.history[-1].result.usage.total_tokens > lengths[-1]
    assert session.context_length == 8192


@pytest.mark.parametrize("images", [(), (ONE,)], ids=["text", "picture"])
def test_logits_are_those_of_a_fresh_run(
    engine: phi3v.Engine, backend: GenaiBackend, images: tuple[Image.Image, ...]
) -> None:
    with engine.session(images, num_crops=1) as session:
        asked = Listening(session)
        reuse: Any = asked._reuse

        def distance() -> float:
            inputs, room = asked.inputs, len(asked.inputs.input_ids) + 4
            reused = reuse._take(inputs, room)
            logits = reused.get_logits()[0, -1].copy()
            reuse._give_back(reused)
            return float(np.abs(logits - backend.loaded.new_generator(inputs, room).get_logits()[0, -1]).max())

        for question in ("What is this?", "What is that?", LONG):
            session.ask(question, max_new_tokens=4)
            assert distance() < 1e-5  # the same question once more
            session.chat(question, max_new_tokens=30)
            assert distance() < 1e-5
            session.chat_stream("Why?", max_new_tokens=4)  # behind an answer
            assert distance() < 1e-5


def test_a_later_picture_joins_the_conversation(
    chat: tuple[phi3v.Session, Listening], backend: GenaiBackend, prefills: list[int]
) -> None:
    session, asked = chat
    session.chat("What is this?", max_new_tokens=6)
    answer = session.chat("And this?", [TWO], max_new_tokens=6)
    assert len(prefills) == 2
    assert asked.inputs.image_tokens == (313, 313)
    assert answer.token_ids == asked.fresh(backend, 6)
    answer = session.chat("And both?", max_new_tokens=6)
    assert len(prefills) == 3  # one was the fresh run's
    assert answer.token_ids == asked.fresh(backend, 6)
    assert [turn.request.images for turn in session.history] == [(ONE,), (TWO,), ()]


def test_asking_and_chatting_do_not_mix(chat: tuple[phi3v.Session, Listening], engine: phi3v.Engine) -> None:
    session, _ = chat
    alone = engine.generate("Why?", [ONE], num_crops=1, max_new_tokens=6).token_ids
    first = session.chat("Why?", max_new_tokens=6).token_ids
    assert session.ask("Why?", max_new_tokens=6).token_ids == alone == first
    second = session.chat("Why?", max_new_tokens=6)
    assert second.usage.prompt_tokens > session.history[0].result.usage.total_tokens
    assert len(session.history) == 2


def test_a_reset_forgets_the_conversation_and_keeps_the_pictures(
    chat: tuple[phi3v.Session, Listening], prefills: list[int]
) -> None:
    session, _ = chat
    first = session.chat("Why?", max_new_tokens=6)
    session.chat("Why?", max_new_tokens=6)
    session.reset()
    assert (session.history, session.context_used) == ((), 0)
    assert session.chat("Why?", max_new_tokens=6).token_ids == first.token_ids
    assert len(prefills) == 1


def test_a_cancelled_answer_counts_as_far_as_it_came(
    chat: tuple[phi3v.Session, Listening], backend: GenaiBackend
) -> None:
    session, asked = chat
    stream = session.chat_stream("Why?", max_new_tokens=50)
    for _, _token in zip(range(3), stream, strict=False):
        pass
    stream.cancel()
    assert session.history[0].result.token_ids == stream.result.token_ids
    assert len(stream.result.token_ids) == 3
    assert session.chat("And?", max_new_tokens=8).token_ids == asked.fresh(backend, 8)


def test_an_answer_cancelled_before_its_first_token_is_no_turn(chat: tuple[phi3v.Session, Listening]) -> None:
    session, _ = chat
    session.chat_stream("Why?", max_new_tokens=5).cancel()
    assert session.history == ()


def test_the_next_question_ends_an_unfinished_answer(
    chat: tuple[phi3v.Session, Listening], engine: phi3v.Engine
) -> None:
    session, _ = chat
    stream = session.stream("Why?", max_new_tokens=50)
    next(iter(stream))
    fresh = engine.generate("And?", [ONE], num_crops=1, max_new_tokens=8)
    assert session.ask("And?", max_new_tokens=8).token_ids == fresh.token_ids
    assert stream.result.finish_reason == "cancelled"


def test_what_a_stop_string_cut_off_is_no_part_of_the_conversation(
    chat: tuple[phi3v.Session, Listening], backend: GenaiBackend
) -> None:
    session, asked = chat
    whole = session.ask("Why?", max_new_tokens=12).text
    stopped = session.chat("Why?", max_new_tokens=12, stop=[whole[4:6]])
    assert stopped.text == whole[: whole.find(whole[4:6])].strip()
    answer = session.chat("And?", max_new_tokens=8)
    said = backend.tokenizer.encode_text(stopped.text)
    held = asked.inputs.input_ids.tolist()
    start = stopped.usage.prompt_tokens
    assert held[start : start + len(said)] == said
    assert answer.token_ids == asked.fresh(backend, 8)


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_an_answer_that_fails_leaves_the_session_right(
    chat: tuple[phi3v.Session, Listening],
    backend: GenaiBackend,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
) -> None:
    session, asked = chat
    session.chat("Why?", max_new_tokens=6)
    choose, calls = TokenChooser.choose, []

    def failing(self: TokenChooser, logits: Any) -> int:
        calls.append(1)
        if len(calls) == 3:
            raise error
        return choose(self, logits)

    with monkeypatch.context() as patch:
        patch.setattr(TokenChooser, "choose", failing)
        with pytest.raises((InferenceError, KeyboardInterrupt)):
            session.chat("And?", max_new_tokens=6, repetition_penalty=1.2)
    assert len(session.history) == 1
    assert session.chat("Really?", max_new_tokens=6).token_ids == asked.fresh(backend, 6)
    assert [turn.request.prompt for turn in session.history] == ["Why?", "Really?"]


def test_bad_questions_change_nothing(chat: tuple[phi3v.Session, Listening], backend: GenaiBackend) -> None:
    session, asked = chat
    session.chat("Why?", max_new_tokens=6)
    for question, images, error in (
        ("\ud800", (), PromptError),
        ("", (), PromptError),
        ("<|image_1|>", (), PromptError),
        ("And?", [b"garbage"], ImageError),
        ("And? " * 9000, (), ContextLengthError),
        ("And?", "photo.jpg", OptionError),
    ):
        with pytest.raises(error):
            session.chat(question, images)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="top_kk"):
        session.ask("And?", top_kk=3)  # type: ignore[call-arg]
    assert len(session.history) == 1
    assert session.chat("And?", max_new_tokens=6).token_ids == asked.fresh(backend, 6)


def test_pictures_stand_where_the_question_places_them(engine: phi3v.Engine) -> None:
    with engine.session([ONE, TWO], num_crops=1) as session:
        for question in (
            "Compare.",
            "Is <|image_2|> like <|image_1|>?",
            "Compare <|image_1|> with <|image_2|>.",
            "Compare.",
        ):
            fresh = engine.generate(question, [ONE, TWO], num_crops=1, max_new_tokens=6)
            assert session.ask(question, max_new_tokens=6).token_ids == fresh.token_ids


def test_auto_gives_each_picture_of_a_session_the_crops_it_needs(engine: phi3v.Engine) -> None:
    with engine.session([picture(3, 300, 200)], num_crops="auto") as session:
        assert session.chat("hi", max_new_tokens=1).usage.image_tokens == 313
        assert session.chat("hi", [picture(4, 640, 480)], max_new_tokens=1).usage.image_tokens == 313 + 757


def test_two_sessions_and_single_answers_share_one_engine(engine: phi3v.Engine) -> None:
    alone = [engine.generate("Why?", [image], num_crops=1, max_new_tokens=6).token_ids for image in (ONE, TWO)]
    with engine.session([ONE], num_crops=1) as first, engine.session([TWO], num_crops=1) as second:
        for _ in range(2):
            assert [s.ask("Why?", max_new_tokens=6).token_ids for s in (first, second)] == alone
            assert engine.generate("Why?", [TWO], num_crops=1, max_new_tokens=6).token_ids == alone[1]


def test_where_rewinding_fails_every_answer_starts_afresh(folder: Path, prefills: list[int]) -> None:
    backend = GenaiBackend(ModelDir.open(folder), "cpu", rewindable=False)  # genai sees the folder's own type
    backend.loaded.rewinds = True  # so we ask it to rewind, and it refuses
    engine = phi3v.Engine(backend)
    fresh = [engine.generate(question, [ONE], num_crops=1, max_new_tokens=6).token_ids for question in QUESTIONS]
    prefills.clear()
    with engine.session([ONE], num_crops=1) as session:
        assert [session.ask(question, max_new_tokens=6).token_ids for question in QUESTIONS] == fresh
    assert len(prefills) == len(QUESTIONS)


@pytest.mark.parametrize("call", ["rewind_to", "append_tokens"])
def test_a_rewind_that_fails_once_costs_one_prefill(engine: phi3v.Engine, prefills: list[int], call: str) -> None:
    class Failing:
        """A generator of genai's whose next `call` fails."""

        def __init__(self, generator: Any) -> None:
            self._generator = generator

        def __getattr__(self, name: str) -> Any:
            return fail if name == call else getattr(self._generator, name)

    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    fresh = [engine.generate(question, [ONE], num_crops=1, max_new_tokens=6).token_ids for question in QUESTIONS]
    prefills.clear()
    with engine.session([ONE], num_crops=1) as session:
        answers = [session.ask(QUESTIONS[0], max_new_tokens=6).token_ids]
        kept = session._streams._reuse._kept  # type: ignore[attr-defined]
        kept.generator = Failing(kept.generator)
        answers += [session.ask(question, max_new_tokens=6).token_ids for question in QUESTIONS[1:]]
    assert answers == fresh
    assert len(prefills) == 2


def test_reading_a_picture_is_billed_to_no_answer_that_does_not_show_it(engine: phi3v.Engine) -> None:
    with engine.session([ONE], num_crops=1) as session:
        for _ in range(2):  # the session's own pictures are still to be shown
            with pytest.raises(PromptError):
                session.chat("<|image_9|>", [TWO], max_new_tokens=2)
        assert session.chat("Why?", max_new_tokens=2).timings.image_decode_s > 0
        with pytest.raises(PromptError):
            session.chat("<|image_9|>", [TWO], max_new_tokens=2)
        assert session.chat("And?", max_new_tokens=2).timings.image_decode_s == 0


def test_a_decoder_without_a_shared_buffer_is_not_rewound(folder: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(folder, tmp_path / "copy"))
    config = json.loads((copied / "genai_config.json").read_text())
    del config["search"]["past_present_share_buffer"]
    (copied / "genai_config.json").write_text(json.dumps(config))
    (copied / "phi3v.json").unlink()
    assert not GenaiBackend(ModelDir.open(copied), "cpu").loaded.rewinds


def test_a_closed_session_or_engine_says_so(folder: Path) -> None:
    with phi3v.load(folder, "cpu") as engine:
        session = engine.session([ONE], num_crops=1)
        session.ask("Why?", max_new_tokens=2)
        session.close()
        for question in (session.ask, session.chat):
            with pytest.raises(InferenceError, match="session is closed"):
                question("Why?")
        open_one = engine.session([ONE], num_crops=1)
        open_one.ask("Why?", max_new_tokens=2)
    with pytest.raises(InferenceError, match="engine is closed"):
        open_one.ask("Why?", max_new_tokens=2)


def test_genais_own_processor_keeps_no_sessions(folder: Path) -> None:
    with phi3v.load(folder, "cpu", processor="genai") as engine, pytest.raises(OptionError, match="support sessions"):
        engine.session([ONE])


@pytest.mark.parametrize("images", ["photo.jpg", [b"garbage"]], ids=["one", "garbage"])
def test_bad_pictures_open_no_session(engine: phi3v.Engine, images: Any) -> None:
    with pytest.raises(phi3v.Phi3VError):
        engine.session(images)
