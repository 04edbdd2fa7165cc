"""Read a book cover into a dataclass, then ask about it: `python examples/read_cover.py examples/cover.png`."""

import sys
from dataclasses import dataclass

import phi3v


@dataclass
class Book:
    """What a cover says."""

    title: str
    authors: list[str]
    year: int | None  # null where the cover has none


def read_cover(engine: phi3v.Engine, cover: str) -> Book:
    """The book on one cover."""
    return engine.extract(Book, "Title, authors and year of this book?", [cover], max_new_tokens=200)


def read_shelf(engine: phi3v.Engine, photo: str) -> list[Book]:
    """Every book in one photo."""
    return engine.extract(list[Book], "Title, authors and year of each book?", [photo])


def main(cover: str) -> None:
    """Print the book, and one streamed answer about its cover."""
    with phi3v.load() as engine:
        print(read_cover(engine, cover))
        with engine.stream("What is the title?", [cover], temperature=0.0) as stream:
            for token in stream:
                print(token.text, end="", flush=True)
        usage: phi3v.Usage = stream.result.usage
        print(f"\n{usage.completion_tokens} tokens")
        print(engine.extract(phi3v.Choices(["novel", "textbook"]), "Is this a novel or a textbook?", [cover]))


if __name__ == "__main__":
    main(sys.argv[1])
