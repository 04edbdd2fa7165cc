"""The documentation pages: their links lead somewhere, their commands exist, and their examples run."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import get_args

import click
import pytest
from pages import DOCS, PAGES, code_blocks, heading_anchors, linked_targets, named_paths, section, table_rows
from places import ROOT
from processes import PATIENCE_S

from phi3v.cli.main import main as phi3v
from phi3v.export.hub.catalog import BUILDS
from phi3v.export.nano.examples import EXAMPLES
from phi3v.images.load import FORMATS
from phi3v.options import GenerationOptions
from phi3v.types import FinishReason

README = (ROOT / "README.md").read_text(encoding="utf-8")
USAGE, MODELS = ((DOCS / name).read_text(encoding="utf-8") for name in ("usage.md", "models.md"))
WRITTEN_BY_HAND = [page for page in PAGES if page.name != "cli.md"]
NANO = [ROOT / "export" / "nano" / "README.md", ROOT / "runtime" / "builtin" / "nano" / "README.md"]


def page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture
def script() -> ModuleType:
    """scripts/docs as a module."""
    loader = SourceFileLoader("docs_script", str(ROOT / "scripts" / "docs"))
    module = ModuleType(loader.name)
    module.__file__ = loader.path
    loader.exec_module(module)
    return module


def shell_commands(page: str) -> Iterator[list[str]]:
    """The words of every command of ours in a page's shell blocks and between its backticks."""
    lines = [line for block in code_blocks(page, "sh") for line in block.splitlines()]
    lines += re.findall(r"`(phi3v [^`]+)`", re.sub(r"```.*?```", "", page, flags=re.DOTALL).replace("\n", " "))
    for line in lines:
        for command in re.split(r"&&|(?<!\\)\|", line):
            words = shlex.split(command.replace("\\|", "|"), comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words = words[1:]
            if words[:1] == ["phi3v"]:
                yield words[1:]


def unknown_word(words: list[str]) -> str | None:
    """The first word that is neither a command of ours nor an option of the command it is given to."""
    command: click.Command = phi3v
    while isinstance(command, click.Group) and words and not words[0].startswith((".", "-")):
        if words[0] not in command.commands:
            return words[0]
        command, words = command.commands[words[0]], words[1:]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    given = [word for word in words if re.match(r"--?[a-z]", word)]
    return next((word for word in given if word not in known | {"-h", "--help"}), None)


def run_blocks(page: str) -> str:
    """The stdout of a page's Python blocks, run one after the other as one program in the repository."""
    program = "\n".join(code_blocks(page, "python"))
    command = [sys.executable, "-W", "error", "-P", "-c", program]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE_S)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_readme_is_short() -> None:
    assert len(README.encode()) <= 7000


def test_the_readmes_first_command_installs_plainly() -> None:
    install = code_blocks(README, "sh")[0].splitlines()[0]
    assert "pip install" in install
    assert " -e " not in install


def test_ci_finds_one_test_command_in_the_readme() -> None:
    block = README.partition("<!-- test command -->")[2].partition("```\n")[0]
    assert [line.endswith("python -m pytest") for line in block.splitlines() if line.startswith("python3 ")] == [True]


def test_the_readme_leads_to_every_page() -> None:
    assert {page_name(page) for page in PAGES} - {"README.md"} <= set(linked_targets(README))


@pytest.mark.parametrize("page", PAGES + NANO, ids=page_name)
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target in linked_targets(page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in heading_anchors(file.read_text(encoding="utf-8"))):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", [page for page in WRITTEN_BY_HAND if page.name != "architecture.md"], ids=page_name)
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    named = named_paths(page.read_text(encoding="utf-8"))
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


@pytest.mark.parametrize("page", WRITTEN_BY_HAND, ids=page_name)
def test_every_command_of_ours_exists_with_its_options(page: Path) -> None:
    commands = list(shell_commands(page.read_text(encoding="utf-8")))
    assert [words for words in commands if unknown_word(words) is not None] == []


@pytest.mark.parametrize(
    ("words", "unknown"),
    [
        (["ask", "What?", "a.png", "--num-crops", "1", "-q", "Who?"], None),
        (["bench", "run", "ours=x", "--case", "1344x1344:16:64"], None),
        (["asks", "What?"], "asks"),
        (["bench", "runs"], "runs"),
        (["ask", "What?", "--num_crops", "1"], "--num_crops"),
        (["--version"], None),
        (["bench", "..."], None),
    ],
)
def test_a_command_that_is_none_is_found(words: list[str], unknown: str | None) -> None:
    assert unknown_word(words) == unknown


def test_the_readmes_example_prints_the_answer_it_shows() -> None:
    assert run_blocks(README).strip() == EXAMPLES[-1].answer


def test_the_usage_pages_examples_run() -> None:
    assert EXAMPLES[1].answer in run_blocks(USAGE)


def test_the_usage_page_names_every_option_of_an_answer_with_a_row_of_its_own() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", section(USAGE, "Python"), re.MULTILINE)
    assert set(rows) == set(GenerationOptions.__annotations__)


def test_the_usage_page_names_every_finish_reason_and_image_format() -> None:
    python = section(USAGE, "Python")
    assert [reason for reason in get_args(FinishReason) if f'`"{reason}"`' not in python] == []
    assert [form for form in FORMATS if form not in python.upper()] == []


def test_the_usage_page_lists_every_command() -> None:
    listed = re.findall(r"`(?:phi3v )?([a-z]+)", "".join(row[0] for row in table_rows(section(USAGE, "Commands"))))
    assert set(listed) == set(phi3v.commands)


def test_the_page_of_models_lists_every_published_build() -> None:
    rows = {row[0]: row[1] for row in table_rows(section(MODELS, "Pull a published model"))}
    assert rows.keys() == {f"`{build.name}`" for build in BUILDS}
    assert [build.full_name for build in BUILDS if f"`{build.variant}`" not in rows[f"`{build.name}`"]] == []


def test_the_command_line_page_has_a_section_for_every_command(script: ModuleType) -> None:
    page = script.render_page()
    assert all(f"\n## phi3v {name}\n" in page for name in phi3v.commands)
    assert "\n### phi3v bench run\n" in page


def test_the_command_line_page_does_not_depend_on_the_terminal(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = set()
    for columns in ("40", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        pages.add(script.render_page())
    assert len(pages) == 1


def test_a_stale_command_line_page_fails_the_check(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "PAGE", tmp_path / "cli.md")
    with pytest.raises(SystemExit, match="run scripts/docs"):
        script.main(["--check"], standalone_mode=False)
    assert not (tmp_path / "cli.md").exists()
    script.main([], standalone_mode=False)
    script.main(["--check"], standalone_mode=False)
