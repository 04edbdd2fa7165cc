"""Many questions about one image, in one session and in fresh runs: `phi3v bench session`.

Both sides answer the same questions in one process with one loaded model, the session first, and their tokens are
compared. A side's time runs from the image's bytes to the last token of its last answer; loading is timed apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..engine import Engine, load
from ..types import GenerationResult
from .cases import Case, make_jpeg
from .program import run_command
from .record import SESSION_FORMAT, Record

QUESTIONS = (
    "What is the title?",
    "Who wrote it?",
    "Which colours are there?",
    "How many shapes can be seen, and of which kinds?",
    "What is written at the bottom?",
    "What is the highest value?",
    "What is the lowest value?",
    "Describe the picture in one sentence.",
    "What is in the upper left corner, and what stands beside it?",
    "Is there a person?",
)
"""Left as they are: another wording has another number of tokens, and published records were measured with these."""

Answer = Callable[[str], GenerationResult]


def measure(
    model: Path,
    case: Case,
    *,
    questions: int = 10,
    rounds: int = 1,
    out: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Record:
    """Measure both sides on the CPU, `rounds` times. Beyond ten, the questions recur."""
    asked = [QUESTIONS[n % len(QUESTIONS)] for n in range(questions)]
    began = time.perf_counter()
    with load(model, "cpu") as engine:
        load_s = time.perf_counter() - began
        record = Record.begin(
            SESSION_FORMAT, model, out=out, case=str(case), questions=questions, load_s=load_s, rounds=[]
        )
        for _ in range(rounds):
            record.add("rounds", measure_round(engine, case, asked, say))
    return record


def measure_round(engine: Engine, case: Case, questions: list[str], say: Callable[[str], None]) -> dict[str, Any]:
    """Answer all questions in one session, then each in a fresh run."""
    image, crops, new = make_jpeg(case.width, case.height), case.num_crops, case.new_tokens
    say("one session")
    began = time.perf_counter()
    with engine.session([image], num_crops=crops) as session:
        asked = time_answers(lambda question: session.ask(question, max_new_tokens=new), questions, say)
        session_s = time.perf_counter() - began
    say("fresh runs")
    fresh = time_answers(lambda q: engine.generate(q, [image], num_crops=crops, max_new_tokens=new), questions, say)
    fresh_s = sum(row["seconds"] for row in fresh)
    differing = [a["question"] for a, b in zip(asked, fresh, strict=True) if a["token_ids"] != b["token_ids"]]
    return {
        **{"session_s": session_s, "fresh_s": fresh_s, "ratio": fresh_s / session_s},
        **{"differing": differing, "session": asked, "fresh": fresh},
    }


def time_answers(answer: Answer, questions: list[str], say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Answer the questions one after the other, and time each."""
    rows = []
    for question in questions:
        began = time.perf_counter()
        result = answer(question)
        seconds = time.perf_counter() - began
        rows.append(
            {"question": question, "seconds": seconds, "token_ids": result.token_ids}
            | {"usage": asdict(result.usage), "timings": asdict(result.timings)}
        )
        say(f"{seconds:8.3f} s  TTFT {result.timings.ttft_s:8.3f} s  {question}")
    return rows


def describe_round(found: dict[str, Any]) -> str:
    """Describe a round of a record in one line."""
    same = "tokens identical" if not found["differing"] else f"tokens differ: {found['differing']}"
    return (
        f"{len(found['session'])} questions: session {found['session_s']:.2f} s, fresh runs {found['fresh_s']:.2f} s, "
        f"{found['ratio']:.1f}x; {same}"
    )


if __name__ == "__main__":
    run_command("session")
