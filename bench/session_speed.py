"""Many questions about one picture, one session against fresh runs: `python -m phi3v.bench.session_speed MODEL`.

Both sides answer the same questions in one process with one loaded model, the session first; the tokens are compared.
The time of a side is from the picture's bytes to the last token of the last answer; loading is apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ..engine import Engine, load
from ..types import GenerationResult
from .case_option import case_type
from .cases import Case, picture_bytes
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

Answer = Callable[[str], GenerationResult]


def timed(answer: Answer, questions: list[str], say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Each answer with its seconds."""
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


def one_round(engine: Engine, case: Case, questions: list[str], say: Callable[[str], None]) -> dict[str, Any]:
    """Both sides once."""
    picture, crops, new = picture_bytes(case.width, case.height), case.num_crops, case.new_tokens
    say("one session")
    began = time.perf_counter()
    with engine.session([picture], num_crops=crops) as session:
        asked = timed(lambda question: session.ask(question, max_new_tokens=new), questions, say)
        session_s = time.perf_counter() - began
    say("fresh runs")
    fresh = timed(lambda q: engine.generate(q, [picture], num_crops=crops, max_new_tokens=new), questions, say)
    fresh_s = sum(row["seconds"] for row in fresh)
    differing = [a["question"] for a, b in zip(asked, fresh, strict=True) if a["token_ids"] != b["token_ids"]]
    return {
        **{"session_s": session_s, "fresh_s": fresh_s, "ratio": fresh_s / session_s},
        **{"differing": differing, "session": asked, "fresh": fresh},
    }


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--case", type=case_type, default="1344x1344:16:16", show_default=True, help="Picture, crops and longest answer."
)
@click.option("--questions", type=click.IntRange(1), default=10, show_default=True, help="Beyond ten they recur.")
@click.option("--rounds", type=click.IntRange(1), default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Where to write the record (JSON).")
def main(model: Path, case: Case, questions: int, rounds: int, out: Path | None) -> None:
    """Measure on the CPU, print the ratio, and exit with 1 when a token differs."""
    asked = [QUESTIONS[n % len(QUESTIONS)] for n in range(questions)]
    began = time.perf_counter()
    with load(model, "cpu") as engine:
        load_s = time.perf_counter() - began
        record = Record.begin(
            SESSION_FORMAT, model, out=out, case=str(case), questions=questions, load_s=load_s, rounds=[]
        )
        for _ in range(rounds):
            found = one_round(engine, case, asked, lambda line: click.echo(line, err=True))
            record.add("rounds", found)
            same = "tokens identical" if not found["differing"] else f"tokens differ: {found['differing']}"
            click.echo(
                f"{questions} questions: session {found['session_s']:.2f} s, fresh runs {found['fresh_s']:.2f} s, "
                f"{found['ratio']:.1f}x; {same}"
            )
    if any(found["differing"] for found in record.content["rounds"]):
        raise click.exceptions.Exit(1)


if __name__ == "__main__":
    main()
