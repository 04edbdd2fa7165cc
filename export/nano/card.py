"""nano's model card and the line it is introduced with: both say what was measured, and nothing else is advertised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .evaluate import WORDS, Score

_TEMPLATE = Path(__file__).parent / "card.md"


@dataclass(frozen=True, slots=True)
class Bar:
    """What a job must reach to be advertised: `share` of the answers right to the letter."""

    what: str
    share: float


BARS = {
    "cover": Bar("the title and the author of a plain book cover", 0.90),
    "chart": Bar("the title, the highest bar and its value of a chart of lying bars", 0.85),
    "scene pair": Bar("what differs between two pictures of simple shapes", 0.90),
}


def main_scores(scores: Sequence[Score]) -> dict[str, Score]:
    """The scores the bars are held against, by job."""
    return {score.job: score for score in scores if score.job in BARS and score.words == WORDS[0]}


def working(scores: Sequence[Score]) -> list[str]:
    """The jobs that reach their bars."""
    return [job for job, score in main_scores(scores).items() if score.right >= BARS[job].share * score.asked]


def about(scores: Sequence[Score]) -> str:
    """How the model introduces itself; follows its name."""
    found, works = main_scores(scores), working(scores)
    said = "; ".join(told(found[job]) for job in works or found)
    start = "is a demonstration model of 3 million parameters for plain drawn pictures like those in examples/"
    if works:
        return f"{start} and tells {said}; of other pictures its answers mean little"
    return f"{start}, not reliable in any job yet: {said}"


BRIEF = "a small demonstration model for plain book covers, bar charts and simple shapes"
"""The same in a few words, which hold whatever the scores are."""


def card(scores: Sequence[Score], megabytes: float) -> str:
    """The model card, out of its template."""
    works = working(scores)
    missing = [job for job in BARS if job not in works]
    parts = {
        "works": _listed([told(main_scores(scores)[job]) for job in works]) or "No job has reached its bar yet.",
        "missing": _weak([_missed(main_scores(scores)[job]) for job in missing]),
        "scores": table(scores),
        "megabytes": f"{megabytes:.1f}",
    }
    text = _TEMPLATE.read_text(encoding="utf-8")
    for name, part in parts.items():
        text = text.replace(f"{{{name}}}", part)
    return text


def table(scores: Sequence[Score]) -> str:
    """Every score, in Markdown."""
    lines = [
        "| job | words or kinds | exactly right | characters read |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {s.job} | {s.words} | {s.right} of {s.asked} ({_percent(s.right, s.asked)}) | "
        f"{_percent(s.read, s.characters)} |"
        for s in scores
    ]
    return "\n".join(lines)


def told(score: Score) -> str:
    """What a job is, and how often it is done right."""
    bar = BARS[score.job]
    return f"{bar.what} ({_percent(score.right, score.asked)} of {score.asked} right)"


def _weak(missing: Sequence[str]) -> str:
    if not missing:
        return "Every job reaches its bar. Of words it was not trained on it reads fewer: see the table."
    return f"Not good enough to rely on, and not advertised anywhere:\n\n{_listed(missing)}"


def _missed(score: Score) -> str:
    return f"{told(score)}; the bar is {100 * BARS[score.job].share:.0f} %"


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else ""
