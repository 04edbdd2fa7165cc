"""Whether an event loop goes on while the model reads, and what a second question about an image costs:
`phi3v bench heartbeat`.

A task notes the time every 10 ms while `phi3v.AsyncEngine` answers two questions about a fresh image. A beat is late by
what the loop, or the machine, held it up beyond those 10 ms.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..async_engine import AsyncEngine
from ..engine import load
from .cases import Case, make_jpeg
from .program import run_command
from .record import HEARTBEAT_FORMAT, Record
from .session_speed import QUESTIONS
from .statistics import Summary

BEAT_S = 0.01


def measure(
    model: Path,
    case: Case,
    *,
    rounds: int = 3,
    out: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Record:
    """Measure on the CPU, `rounds` times with an image of its own each; answers are compared with fresh single runs."""
    record = Record.begin(HEARTBEAT_FORMAT, model, out=out, case=str(case), beat_s=BEAT_S, rounds=[], differing=[])
    answers = asyncio.run(_measure_all(model, case, rounds, record, say))
    with load(model, "cpu") as engine:
        for number, (image, tokens) in enumerate(answers, 1):
            fresh = engine.generate(QUESTIONS[1], [image], num_crops=case.num_crops, max_new_tokens=case.new_tokens)
            if fresh.token_ids != tokens:
                record.add("differing", number)
    return record


async def _measure_all(
    model: Path, case: Case, rounds: int, record: Record, say: Callable[[str], None]
) -> list[tuple[bytes, tuple[int, ...]]]:
    answers = []
    async with AsyncEngine(model, "cpu") as engine:
        await engine.generate("hi", max_new_tokens=2)
        for number in range(rounds):
            image = make_jpeg(case.width, case.height, seed=number)
            beats: list[float] = []
            beating = asyncio.create_task(_beat(beats))
            options: Any = {"num_crops": case.num_crops, "max_new_tokens": case.new_tokens}
            first = await engine.generate(QUESTIONS[0], [image], **options)
            second = await engine.generate(QUESTIONS[1], [image], **options)
            beating.cancel()
            late = sorted(after - before - BEAT_S for before, after in itertools.pairwise(beats))
            found = {
                "round": number + 1,
                "beats": len(beats),
                "worst_late_s": late[-1],
                "late_20_ms": sum(1 for one in late if one > 0.02),
                "first": asdict(first.usage) | {"ttft_s": first.timings.ttft_s, "prefill_s": first.timings.prefill_s},
                "second": asdict(second.usage)
                | {"ttft_s": second.timings.ttft_s, "prefill_s": second.timings.prefill_s},
            }
            record.add("rounds", found)
            say(describe_round(found))
            answers.append((image, second.token_ids))
    return answers


async def _beat(beats: list[float]) -> None:
    while True:
        beats.append(time.perf_counter())
        await asyncio.sleep(BEAT_S)


def describe_round(found: dict[str, Any]) -> str:
    """A round in one line."""
    first, second = found["first"]["ttft_s"], found["second"]["ttft_s"]
    return (
        f"round {found['round']}: {found['beats']} beats, the worst {found['worst_late_s'] * 1000:.1f} ms late; first "
        f"token after {first:.2f} s, of a second question after {second:.3f} s ({first / second:.1f}x sooner)"
    )


def describe(record: Record) -> str:
    """All rounds in one line."""
    rounds = record.content["rounds"]
    ratios = [found["first"]["ttft_s"] / found["second"]["ttft_s"] for found in rounds]
    worst = max(found["worst_late_s"] for found in rounds)
    equal = "NOT equal" if record.content["differing"] else "equal"
    return (
        f"worst beat {worst * 1000:.1f} ms late; a second question's first token {Summary.of(ratios).median:.1f}x "
        f"sooner ({min(ratios):.1f} to {max(ratios):.1f}); tokens {equal} to fresh runs"
    )


if __name__ == "__main__":
    run_command("heartbeat")
