"""The engine for asyncio, on the real genai with the built-in model."""

import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import phi3v
from phi3v.errors import InferenceError, OptionError

IMAGE = Image.new("RGB", (40, 30), "red")
QUESTION = "What is this?"


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 120))


def test_its_answers_are_the_engines() -> None:
    with phi3v.load("nano", "cpu") as engine:
        wanted = engine.generate(QUESTION, [IMAGE], max_new_tokens=8)

    async def check() -> None:
        async with phi3v.AsyncEngine("nano", "cpu") as engine:
            assert engine.device == "cpu"
            assert engine.model.name == "nano"
            assert (await engine.generate(QUESTION, [IMAGE], max_new_tokens=8)).text == wanted.text
            stream = engine.stream(QUESTION, [IMAGE], max_new_tokens=8)
            assert "".join([token.text async for token in stream]) == wanted.text
            assert stream.result.usage.cached_tokens > 300
            requests = [phi3v.GenerationRequest(QUESTION, [IMAGE], max_new_tokens=8)] * 3
            outcomes = await engine.generate_batch([*requests, phi3v.GenerationRequest("", [])])
            assert [str(outcome) for outcome in outcomes[:3]] == [wanted.text] * 3
            assert isinstance(outcomes[3], phi3v.Phi3VError)
            assert await engine.extract(bool, "Is it red?", [IMAGE]) in (True, False)
            async with await engine.session([IMAGE]) as session:
                assert (await session.ask(QUESTION, max_new_tokens=8)).text == wanted.text
                assert (await session.chat(QUESTION, max_new_tokens=8)).text == wanted.text
                assert len(session.history) == 1

    run(check())


def test_earlier_turns_and_crops_of_single_images_are_part_of_a_request() -> None:
    earlier = [phi3v.PastTurn(QUESTION, [IMAGE], "A red square.")]
    request = phi3v.GenerationRequest("And this?", [phi3v.CroppedImage(IMAGE, 4)], earlier=earlier, max_new_tokens=8)
    with phi3v.load("nano", "cpu") as engine:
        with engine.session([IMAGE]) as session:
            session.resume([(QUESTION, (), "A red square.")])
            wanted = session.chat("And this?", [phi3v.CroppedImage(IMAGE, 4)], max_new_tokens=8)
        assert engine.stream_request(request).drain().token_ids == wanted.token_ids

    async def check() -> None:
        async with phi3v.AsyncEngine("nano", "cpu") as engine:
            assert (await engine.stream_request(request).drain()).token_ids == wanted.token_ids

    run(check())


def test_the_loop_goes_on_while_the_model_reads() -> None:
    """That the model computes elsewhere, and that beats come meanwhile; how regularly is measured, not tested."""

    async def check() -> None:
        async with phi3v.AsyncEngine("nano", "cpu") as engine:
            assert engine.process.process_id not in (None, os.getpid())
            task = asyncio.create_task(
                engine.generate(QUESTION, [IMAGE.resize((2000, 2000))], num_crops=16, max_new_tokens=2)
            )
            beats = 0
            while not task.done():
                await asyncio.sleep(0.01)
                beats += 1
            assert (await task).usage.image_tokens > 2000
            assert beats > 3

    run(check())


def test_cancelling_a_task_cancels_its_answer() -> None:
    async def check() -> None:
        async with phi3v.AsyncEngine("nano", "cpu") as engine:
            stream = engine.stream("hi", max_new_tokens=4000, answer_format=phi3v.Regex("[a-z]{9000}"))
            seen = asyncio.Event()

            async def read() -> None:
                async for _ in stream:
                    seen.set()

            task = asyncio.create_task(read())
            await seen.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert stream.result.finish_reason == "cancelled"
            while engine.process._pending:
                await asyncio.sleep(0.01)
            assert str(await engine.generate("hi", max_new_tokens=4))

    run(check())


def test_cancelling_while_images_are_prepared_leaves_no_crops_behind() -> None:
    async def check() -> None:
        async with phi3v.AsyncEngine("nano", "cpu") as engine:
            places = [place for place in engine.process._crops._places if place]
            for wait_s in (0.0, 0.01, 0.05, 0.1):
                work = engine.generate(QUESTION, [IMAGE.resize((2000, 2000))], num_crops=16, max_new_tokens=1)
                task = asyncio.create_task(work)
                await asyncio.sleep(wait_s)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            while any(any(Path(place).iterdir()) for place in places):
                await asyncio.sleep(0.02)

    run(check())


def test_it_must_be_loaded_first() -> None:
    with pytest.raises(InferenceError, match="async with"):
        phi3v.AsyncEngine("nano").stream("hi")


def test_options_are_refused_as_the_engine_refuses_them() -> None:
    async def check() -> None:
        async with phi3v.AsyncEngine("nano", "cpu") as engine:
            with pytest.raises(TypeError, match="max_new_token"):
                engine.stream("hi", max_new_token=4)  # type: ignore[call-arg]
            with pytest.raises(OptionError, match="first argument"):
                await engine.extract(bool, "hi", stop=["x"])  # type: ignore[call-arg]

    run(check())
