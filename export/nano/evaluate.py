"""How often a model folder's answers are right: `python -m phi3v.export.nano.evaluate FOLDER`.

Held-out pictures, drawn from seeds that training never uses, go through the public API at their own size.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from random import Random

import phi3v

from .charts import chart_sample
from .covers import cover_sample
from .pairs import cover_pair, scene_pair
from .samples import Turn
from .scenes import scene_sample
from .stages import Make
from .strangers import stranger_sample

JOBS: dict[str, Make] = {
    "cover": cover_sample,
    "chart": chart_sample,
    "scene": scene_sample,
    "scene pair": scene_pair,
    "cover pair": cover_pair,
    "stranger": stranger_sample,
}


@dataclass(slots=True)
class Score:
    """Answers of one job."""

    asked: int = 0
    right: int = 0
    ends_right: int = 0
    characters: float = 0.0
    wrong: list[tuple[str, str]] = field(default_factory=list)

    def add(self, turn: Turn, answer: str) -> None:
        """Count one answer."""
        self.asked += 1
        self.right += answer == turn.text
        self.ends_right += answer.rpartition(". ")[2] == turn.text.rpartition(". ")[2]
        self.characters += SequenceMatcher(None, turn.text, answer, autojunk=False).ratio()
        if answer != turn.text:
            self.wrong.append((turn.text, answer))

    def __str__(self) -> str:
        return (
            f"{self.right / self.asked:.3f} exactly right, {self.ends_right / self.asked:.3f} last sentence right, "
            f"{self.characters / self.asked:.4f} of the characters, {self.asked} answers"
        )


def evaluate(engine: phi3v.Engine, make: Make, count: int, held_out: bool = False, seed: int = 0) -> Score:
    """Ask the first question (the reference document's job) about `count` samples."""
    score = Score()
    for number in range(count):
        sample = make(Random(f"evaluation {seed} {number}"), held_out)
        turn = sample.turns[0]
        images = [picture.original for picture in sample.pictures]
        score.add(turn, engine.generate(turn.question, images, max_new_tokens=160).text)
    return score


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m phi3v.export.nano.evaluate", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--jobs", nargs="+", choices=list(JOBS), default=list(JOBS))
    parser.add_argument("--show", type=int, default=3, help="wrong answers to print a job")
    options = parser.parse_args(arguments)
    with phi3v.load(options.folder) as engine:
        for job in options.jobs:
            for held_out in (False, True) if job in ("cover", "chart", "cover pair") else (False,):
                score = evaluate(engine, JOBS[job], options.count, held_out)
                print(f"{job}, {'held-out' if held_out else 'known'} words: {score}", flush=True)
                for wanted, given in score.wrong[: options.show]:
                    print(f"  wanted {wanted!r}\n  given  {given!r}", flush=True)


if __name__ == "__main__":
    main()
