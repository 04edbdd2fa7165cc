"""A model in a process of its own, on the real genai with the built-in model."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest
from PIL import Image

import phi3v
from phi3v.errors import InferenceError, ModelFolderError, ModelProcessError, OptionError
from phi3v.models.folder import BUILTIN, ModelDir
from phi3v.prepare import prepare
from phi3v.process.messages import Begun, Ended, Event
from phi3v.process.model_process import ModelProcess
from phi3v.process.process_engine import ProcessAnswerer
from phi3v.types import GenerationRequest

PATIENCE_S = 60.0


@pytest.fixture
def process() -> Iterator[ModelProcess]:
    with ModelProcess(ModelDir.open(BUILTIN), "cpu").wait_until_loaded() as process:
        yield process


class Asked:
    """A request on its way, and what came back."""

    def __init__(self, process: ModelProcess, prompt: str, *, images: int = 0, endless: bool = False) -> None:
        shown = [Image.new("RGB", (40, 30), "red")] * images
        new, answer_format = (3700, phi3v.Regex("[a-z]{9000}")) if endless else (8, None)
        request = GenerationRequest(prompt, shown, max_new_tokens=new, answer_format=answer_format)
        self.events: SimpleQueue[Event] = SimpleQueue()
        parcel = process.pack(prepare(process.preprocessor, request, waits=True))
        self.crops = parcel.crops
        self.number = process.submit(parcel, self.events.put)

    def wait(self, kind: type[Event]) -> Event:
        while not isinstance(event := self.events.get(timeout=PATIENCE_S), kind):
            pass
        return event

    def end(self) -> Ended:
        ended = self.wait(Ended)
        assert isinstance(ended, Ended)
        return ended


def test_the_process_that_dies_ends_what_ran_and_the_next_one_answers_what_waited(process: ModelProcess) -> None:
    running = [Asked(process, "hi", images=number, endless=True) for number in range(2)]  # one lane each
    for one in running:
        one.wait(Begun)
    waiting = [Asked(process, f"hi {number}", images=1) for number in range(3)]
    first = process.process_id
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert [type(one.end().error) for one in running] == [ModelProcessError] * 2
    assert [type(one.end().error) for one in waiting] == [type(None)] * 3
    assert process.process_id not in (first, None)


def test_a_process_that_dies_in_the_middle_of_a_message_is_replaced(process: ModelProcess) -> None:
    first = process.process_id
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    asked = [Asked(process, "hi " * 300) for _ in range(60)]  # more than a pipe holds
    time.sleep(0.2)
    os.kill(first, signal.SIGKILL)
    assert [type(one.end().error) for one in asked] == [type(None)] * 60


def test_a_fault_nobody_foresaw_ends_what_waits_and_not_what_comes(
    process: ModelProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        monkeypatch.undo()
        raise RuntimeError("a fault")

    monkeypatch.setattr(process, "_note", fail)
    with pytest.raises(InferenceError, match="a fault"):
        raise Asked(process, "hi").end().error or AssertionError
    assert Asked(process, "hi").end().error is None


def test_a_request_that_cannot_be_sent_is_refused_and_the_next_one_answered(
    process: ModelProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Local(str):
        pass

    with pytest.raises(InferenceError, match="cannot be sent"):
        Asked(process, Local("hi"))
    Local.__qualname__ = "Local"
    monkeypatch.setattr(sys.modules[__name__], "Local", Local, raising=False)  # known here, and not there
    with pytest.raises(InferenceError, match="cannot read"):
        raise Asked(process, Local("hi")).end().error or AssertionError
    assert Asked(process, "hi").end().error is None


def test_the_crops_of_a_request_are_freed_with_its_end(process: ModelProcess) -> None:
    asked = Asked(process, "hi", images=1)
    assert asked.crops is not None
    asked.end()
    assert not Path(asked.crops.path).exists()


def test_closing_ends_the_process_and_every_request(process: ModelProcess) -> None:
    asked, number = Asked(process, "hi", endless=True), process.process_id
    assert number is not None
    process.close()
    assert isinstance(asked.end().error, InferenceError)
    deadline = time.monotonic() + PATIENCE_S
    while process.process_id is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.process_id is None
    with pytest.raises(InferenceError, match="closed"):
        Asked(process, "hi")


def test_a_cancelled_answer_leaves_nothing_running(process: ModelProcess) -> None:
    asked = Asked(process, "hi", endless=True)
    asked.wait(Begun)
    process.cancel(asked.number)
    ended = asked.end()
    assert ended.result is not None
    assert ended.result.finish_reason == "cancelled"
    assert Asked(process, "hi").end().error is None


def test_a_prefill_that_nobody_waits_for_is_given_up_when_loading_anew_takes_less(process: ModelProcess) -> None:
    Asked(process, "hi").end()
    first = process.process_id
    process._prompt_token_s = 1000.0  # as slow as a model can be
    asked = Asked(process, "one two three " * 500)
    asked.wait(Begun)
    process.cancel(asked.number)
    assert Asked(process, "hi").end().error is None
    assert process.process_id != first


def test_a_model_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    for file in BUILTIN.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    folder = ModelDir.open(tmp_path)
    decoder = max(tmp_path.glob("*.onnx"), key=lambda file: file.stat().st_size)
    decoder.write_bytes(b"damaged" * 1000)
    with pytest.raises(ModelFolderError, match="truncated"):
        ModelProcess(folder, "cpu").wait_until_loaded()


def test_limits_that_are_not_allowed_are_refused() -> None:
    with pytest.raises(OptionError, match="max_memory"):
        ModelProcess(ModelDir.open(BUILTIN), "cpu", max_memory=0).wait_until_loaded()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_can_neither_ask_nor_close(process: ModelProcess) -> None:
    stream = ProcessAnswerer(process).open(prepare(process.preprocessor, GenerationRequest("hi", max_new_tokens=8)))
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        said = []
        for act in (
            lambda: ProcessAnswerer(process).open(prepare(process.preprocessor, GenerationRequest("hi"))),
            process.close,
            stream.drain,
        ):
            try:
                act()
                said.append("nothing")
            except InferenceError as exc:
                said.append("fork" if "fork" in str(exc) else str(exc))
        os.write(write, " ".join(said).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == b"fork fork fork"
    os.waitpid(child, 0)
    assert Asked(process, "hi").end().error is None


def test_every_method_of_an_engine_gives_the_same_answers_from_another_process() -> None:
    image = Image.new("RGB", (40, 30), "red")
    with phi3v.load("nano", "cpu") as near, phi3v.load("nano", "cpu", process=True) as far:
        for engine in (near, far):
            assert engine.device == "cpu"
        wanted = near.generate("What is this?", [image], max_new_tokens=8)
        assert far.generate("What is this?", [image], max_new_tokens=8).token_ids == wanted.token_ids
        with far.stream("What is this?", [image], max_new_tokens=8) as stream:
            assert [token.id for token in stream][: len(wanted.token_ids)] == list(wanted.token_ids)
        requests = [
            GenerationRequest("What is this?", [image], max_new_tokens=8),
            GenerationRequest("hi", ["nowhere.png"]),
        ]
        first, second = far.generate_batch(requests)
        assert first.token_ids == wanted.token_ids  # type: ignore[union-attr]
        assert isinstance(second, phi3v.Phi3VError)
        with near.session([image]) as one, far.session([image]) as other:
            for turn in ("What is this?", "And what else?"):
                assert one.chat(turn, max_new_tokens=8).token_ids == other.chat(turn, max_new_tokens=8).token_ids
            assert other.ask("What is this?", max_new_tokens=8).usage.cached_tokens > 300
            assert len(other.history) == 2
        assert far.extract(bool, "Is it red?", [image]) == near.extract(bool, "Is it red?", [image])
