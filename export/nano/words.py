"""Word lists: what titles, names and labels are made of, and words that are kept out of training."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from random import Random
from string import ascii_lowercase

_FOLDER = Path(__file__).parent / "words"
_PREPOSITIONS = ("of", "in", "under", "beyond", "behind", "for", "and", "without", "to", "from")
_LOOK_ALIKES = {
    c: group.replace(c, "")
    for group in ("aceos", "fijlrt", "hmnu", "bdgpq", "vwxyz", "EFILT", "CDGOQ", "BPRS", "HKMNUVW")
    for c in group
}


@cache
def words(name: str) -> tuple[str, ...]:
    """The list of that name, e.g. "nouns"."""
    return tuple((_FOLDER / f"{name}.txt").read_text(encoding="utf-8").split())


def title(random: Random, held_out: bool = False, capitals: float = 0.0, misspelling: float = 0.0) -> str:
    """A believable title; `held_out`: of words never trained on; how likely it is in `capitals`, and misspelt."""
    name = misspelt(random, _title(random, held_out), misspelling)
    return name.upper() if random.random() < capitals else name


def _title(random: Random, held_out: bool) -> str:
    if held_out:
        return " ".join(random.choice(words("held_out")).capitalize() for _ in range(random.randint(1, 3)))
    if random.random() < 0.25:
        return " ".join(random.choice(words("english")).capitalize() for _ in range(random.randint(1, 3)))
    noun, other = (random.choice(words("nouns")).capitalize() for _ in range(2))
    adjective = random.choice(words("adjectives")).capitalize()
    link = random.choice(_PREPOSITIONS)
    return random.choice(
        (
            f"The {adjective} {noun}",
            f"{noun} {link} {other}",
            f"The {noun} {link} the {other}",
            f"{adjective} {noun}",
            f"{noun} {other}",
            f"The {noun}",
            noun,
            adjective,
        )
    )


def author(random: Random, held_out: bool = False, misspelling: float = 0.0) -> str:
    """A person's name; `held_out`: with a last name never trained on; `misspelling`: how likely it is misspelt."""
    return misspelt(random, _author(random, held_out), misspelling)


def _author(random: Random, held_out: bool) -> str:
    first = random.choice(words("first_names"))
    if held_out:
        return f"{first} {random.choice(words('held_out')).capitalize()}"
    if random.random() < 0.15:
        last = random.choice(words("english")).capitalize()
    else:
        last = random.choice(words("last_names"))
    return f"{first} {random.choice('ABCDEFGHJKLMNPRSTVW')}. {last}" if random.random() < 0.12 else f"{first} {last}"


def any_word(random: Random) -> str:
    """A word, number or random run of characters, in any case: what dense pages are filled with."""
    kind = random.random()
    if kind < 0.6:
        word = random.choice(words("english"))
    elif kind < 0.75:
        word = random.choice(words(random.choice(("nouns", "adjectives", "first_names", "last_names"))))
    elif kind < 0.88:
        word = str(random.randrange(10 ** random.randint(1, 4)))
    else:
        return "".join(chr(random.randint(33, 126)) for _ in range(random.randint(1, 6)))
    word = misspelt(random, word, 0.2)
    word += random.choice(",.:;!?-") if random.random() < 0.08 else ""
    return random.choice((word, word, word.capitalize(), word.upper()))


def misspelt(random: Random, text: str, share: float) -> str:
    """A `share` of texts with letters exchanged, doubled, left out, put in or made capital: to be read, not guessed.

    Words that are kept out of training do not come out of it.
    """
    if random.random() >= share:
        return text
    return " ".join(_misspelt(random, word) for word in text.split(" "))


def _misspelt(random: Random, word: str) -> str:
    if random.random() < 0.6:
        found = "".join(random.choice(_LOOK_ALIKES.get(c, c)) if random.random() < 0.3 else c for c in word)
    else:
        at, other = random.randrange(len(word)), random.choice(ascii_lowercase)
        changes = (word[at] * 2, other, word[at] + other, "" if len(word) > 2 else other, word[at].upper())
        found = word[:at] + random.choice(changes) + word[at + 1 :]
    return word if found.lower() in words("held_out") else found


def plain_word(random: Random, held_out: bool = False, misspelling: float = 0.0) -> str:
    """A word as labels have it: capitalised mostly, at times lower or upper case, or misspelt."""
    lists = ("held_out",) if held_out else ("english", "english", "nouns", "last_names", "first_names")
    word = misspelt(random, random.choice(words(random.choice(lists))), misspelling)
    return random.choice((word, word.capitalize(), word.capitalize(), word.upper()))
