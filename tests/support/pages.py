"""What the documentation pages say, read so that tests can compare it with the code."""

import re
from collections.abc import Iterator
from pathlib import Path

from places import ROOT

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
_PATH = re.compile(r"(?:[\w.-]+/)*[\w.-]+(?:\.py|\.md|\.toml)|(?:[\w.-]+/)+(?:[\w.-]+)?")
_FILE_IN_A_LINE = re.compile(r"(?<![\w/.])[\w-]+\.(?:py|md|txt)(?!\w)")
_NAME_IN_A_FILE = re.compile(r"`([A-Za-z_][\w.]*)`(?: and `([A-Za-z_][\w.]*)`)? in `([\w./-]+\.py)`")


def code_blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def linked_targets(text: str) -> list[str]:
    """The targets of all links that do not leave the repository."""
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [target for target in targets if not target.startswith(("http://", "https://"))]


def heading_anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def section(text: str, heading: str) -> str:
    """What stands under a heading of the second level."""
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def table_rows(text: str) -> list[list[str]]:
    """The rows of a text's one table, without its head; a bar written as `\\|` does not end a cell."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def named_paths(text: str) -> set[str]:
    """Every path between backticks."""
    return {name for name in re.findall(r"`([^`\n]+)`", text) if _PATH.fullmatch(name)}


def named_definitions(text: str) -> Iterator[tuple[str, str]]:
    """Every name that is given with its file, as in "`load` in `runtime/engine.py`", and the file."""
    for first, second, path in _NAME_IN_A_FILE.findall(" ".join(text.split())):
        yield from ((name, path) for name in (first, second) if name)


def defines(file: Path, name: str) -> bool:
    """Whether a module defines a name; "Class.method" needs both."""
    source = file.read_text(encoding="utf-8") if file.is_file() else ""
    return all(
        re.search(rf"^\s*(?:(?:async )?def|class) {part}\b|^\s*{part}\b\s*[:=]", source, re.MULTILINE)
        for part in name.split(".")
    )


def tree_paths(tree: str) -> set[str]:
    """The paths in a drawn tree: the head of each line, and the files that a folder's line names after it."""
    paths: set[str] = set()
    folders: list[tuple[int, str]] = []
    indent = 0
    for line in tree.splitlines():
        at = len(line) - len(line.lstrip())
        head, _, rest = line.strip().partition("  ")
        continues = at > indent + 8
        if not continues:
            indent = at
            folders = [(depth, folder) for depth, folder in folders if depth < at]
            path = (folders[-1][1] if folders else "") + head
            paths.add(path)
            if not head.endswith("/"):
                continue
            folders.append((at, path))
        if folders and folders[-1][0] == indent:
            paths |= {folders[-1][1] + name for name in _FILE_IN_A_LINE.findall(line if continues else rest)}
    return paths
