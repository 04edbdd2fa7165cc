"""How often a model folder's answers are right: `python -m phi3v.export.nano.evaluate FOLDER [--json FILE]`.

Held-out pictures, drawn from seeds that training never uses, go through the public API at their own size.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from pathlib import Path
from random import Random

import phi3v

from ...types import NumCrops
from .charts import chart_sample
from .covers import cover_sample
from .pairs import scene_pair
from .samples import Make, Turn
from .scenes import scene_sample
from .strangers import stranger_sample

JOBS: dict[str, Make] = {
    "cover": cover_sample,
    "chart": chart_sample,
    "scene pair": scene_pair,
    "scene": scene_sample,
    "stranger": stranger_sample,
}
WORDS = ("known", "held out")
"""What pictures are drawn of: words (strangers: kinds) of the training, and words (kinds) never trained on."""

_HELD_OUT = ("cover", "chart", "stranger")


@dataclass(slots=True)
class Score:
    """Answers of one job: how many were right to the letter.

    `characters` are those that stand in the pictures and belong into the answers; `read` of them are there, in order.
    """

    job: str
    words: str
    asked: int = 0
    right: int = 0
    characters: int = 0
    read: int = 0

    def add(self, turn: Turn, answer: str) -> bool:
        """Count one answer; whether it was right."""
        self.asked += 1
        self.right += answer == turn.text
        blocks = SequenceMatcher(None, turn.text, answer, autojunk=False).get_matching_blocks()
        for start, end in _copied(turn):
            self.characters += end - start
            self.read += sum(max(0, min(end, b.a + b.size) - max(start, b.a)) for b in blocks)
        return answer == turn.text

    def __str__(self) -> str:
        return (
            f"{self.job}, {self.words}: {self.right} of {self.asked} exactly right, "
            f"{self.read} of {self.characters} characters"
        )


def _copied(turn: Turn) -> Iterator[tuple[int, int]]:
    """Where in the answer's text stands what was read from a picture: begin and end."""
    at = 0
    for part in turn.answer:
        text = part if isinstance(part, str) else part.text
        if not isinstance(part, str):
            yield at, at + len(text)
        at += len(text)


@dataclass(frozen=True, slots=True)
class Wrong:
    """An answer that was not right."""

    wanted: str
    given: str


def evaluate(
    engine: phi3v.Engine, job: str, count: int, words: str = WORDS[0], seed: int = 0, num_crops: NumCrops | None = None
) -> tuple[Score, list[Wrong]]:
    """Ask the first question (the reference document's job) about `count` samples."""
    score, wrong = Score(job, words), []
    for number in range(count):
        sample = JOBS[job](Random(f"evaluation {seed} {number}"), words != WORDS[0])
        turn = sample.turns[0]
        images = [picture.original for picture in sample.pictures]
        answer = engine.generate(turn.question, images, max_new_tokens=160, num_crops=num_crops).text
        if not score.add(turn, answer):
            wrong.append(Wrong(turn.text, answer))
    return score, wrong


def rows(jobs: Sequence[str] = tuple(JOBS)) -> Iterator[tuple[str, str]]:
    """What is scored, job by job: known words, and held-out ones where some are held out."""
    for job in jobs:
        for words in WORDS if job in _HELD_OUT else WORDS[:1]:
            yield job, words


def write_scores(scores: Sequence[Score], file: Path) -> None:
    """Keep scores; `read_scores` reads them again."""
    file.write_text(json.dumps([asdict(score) for score in scores], indent=1) + "\n", encoding="utf-8")


def read_scores(file: Path) -> list[Score]:
    """Scores that were kept."""
    return [Score(**row) for row in json.loads(file.read_text(encoding="utf-8"))]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m phi3v.export.nano.evaluate", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--jobs", nargs="+", choices=list(JOBS), default=list(JOBS))
    parser.add_argument("--num-crops", type=lambda text: text if text == "auto" else int(text), help="or auto")
    parser.add_argument("--show", type=int, default=3, help="wrong answers to print a job")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the scores")
    options = parser.parse_args(arguments)
    scores = []
    with phi3v.load(options.folder) as engine:
        for job, words in rows(options.jobs):
            score, wrong = evaluate(engine, job, options.count, words, num_crops=options.num_crops)
            scores.append(score)
            print(score, flush=True)
            for case in wrong[: options.show]:
                print(f"  wanted {case.wanted!r}\n  given  {case.given!r}", flush=True)
    if options.json:
        write_scores(scores, options.json)


if __name__ == "__main__":
    main()
