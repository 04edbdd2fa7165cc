"""How often a model folder's answers are right: `python -m phi3v.export.nano.evaluate FOLDER [--json FILE]`.

Held-out pictures, drawn from seeds that training never uses, go through the public API at their own size.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from pathlib import Path
from random import Random

import click
from PIL import Image

import phi3v

from ...answer_format import AnswerFormat, Choices
from ...errors import TruncatedAnswerError
from ...images.cropped import NumCrops
from ...structured.field_syntax import parse_fields
from .chart_jobs import chart_format_sample, choice_sample, one_bar_sample
from .charts import chart_sample
from .columns import column_sample, line_sample
from .covers import book_format_sample, cover_sample, sharp_cover_sample
from .pairs import scene_pair
from .photographs import photograph_sample
from .plots import plot_sample
from .samples import Make, Turn
from .scenes import scene_sample
from .strangers import stranger_sample

JOBS: dict[str, Make] = {
    "cover": cover_sample,
    "sharp cover": sharp_cover_sample,
    "chart": chart_sample,
    "column chart": column_sample,
    "line chart": line_sample,
    "one bar": one_bar_sample,
    "matplotlib": plot_sample,
    "cover as JSON": book_format_sample,
    "chart as JSON": chart_format_sample,
    "chart as a choice": choice_sample,
    "scene pair": scene_pair,
    "scene": scene_sample,
    "stranger": stranger_sample,
    "photograph": photograph_sample,
}
RELEASED = ("cover", "chart", "scene pair", "scene", "stranger")
"""The jobs a release is scored on."""
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
    """Ask the first question (the reference document's job) about `count` samples, in its format if it has one."""
    score, wrong = Score(job, words), []
    for number in range(count):
        sample = JOBS[job](Random(f"evaluation {seed} {number}"), words != WORDS[0])
        turn = sample.turns[0]
        answer = _answer(engine, turn, [picture.original for picture in sample.pictures], num_crops)
        if not score.add(turn, answer):
            wrong.append(Wrong(turn.text, answer))
    return score, wrong


def _answer(engine: phi3v.Engine, turn: Turn, images: Sequence[Image.Image], num_crops: NumCrops | None) -> str:
    """What is answered, as far as it came: an answer in a format that does not end is wrong, and no reason to stop."""
    form: AnswerFormat | None = Choices(turn.choices) if turn.choices else None
    if turn.fields is not None:
        form = parse_fields(turn.fields)
    try:
        return engine.generate(turn.question, images, max_new_tokens=160, num_crops=num_crops, answer_format=form).text
    except TruncatedAnswerError as exc:
        return exc.text


def rows(jobs: Sequence[str] = RELEASED) -> Iterator[tuple[str, str]]:
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


def _num_crops(value: str) -> NumCrops:
    return "auto" if value == "auto" else int(click.IntRange(1, 16)(value))


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--count", type=click.IntRange(min=1), default=500, show_default=True, help="Pictures a job.")
@click.option(
    "--job",
    "jobs",
    type=click.Choice(list(JOBS)),
    multiple=True,
    default=RELEASED,
    help="May be given again. Default: those of a release.",
)
@click.option("--num-crops", type=_num_crops, metavar="1-16|auto", help="Default: the model folder's.")
@click.option("--show", type=click.IntRange(min=0), default=3, show_default=True, help="Wrong answers to print a job.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Keep the scores here.")
def main(
    folder: Path, count: int, jobs: tuple[str, ...], num_crops: NumCrops | None, show: int, file: Path | None
) -> None:
    """Score the answers of the model FOLDER through the public API, on pictures from seeds never trained on."""
    scores = []
    with phi3v.load(folder) as engine:
        for job, words in rows(jobs):
            score, wrong = evaluate(engine, job, count, words, num_crops=num_crops)
            scores.append(score)
            click.echo(score)
            for case in wrong[:show]:
                click.echo(f"  wanted {case.wanted!r}\n  given  {case.given!r}")
    if file:
        write_scores(scores, file)


if __name__ == "__main__":
    main()
