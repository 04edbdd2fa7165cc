"""`phi3v bench run`: several models side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from .options import CASE_HELP, case_type, path_type, record_option, rounds_option, say
from .terminal import print_markdown

if TYPE_CHECKING:
    from phi3v.bench.cases import Case
    from phi3v.bench.run import SubjectSpec


@click.command(short_help="Measure several models side by side.")
@click.argument("subjects", nargs=-1, required=True, metavar="[LABEL:]SUBJECT=FOLDER...")
@click.option(
    "--case",
    "cases",
    type=case_type,
    multiple=True,
    default=["1344x1344:1:16"],
    show_default=True,
    help=f"{CASE_HELP}; may be repeated.",
)
@rounds_option(5)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="For every subject. Default: each subject's own choice.")
@click.option(
    "--resident/--fresh", default=None, help="Keep all loaded, or start one process per turn. Default: what fits."
)
@record_option
@click.option("--markdown", "markdown_path", type=path_type, help="Write the tables here.")
@click.option("--html", "html_path", type=path_type, help="Write a page with tables and plots here.")
def run(
    subjects: tuple[str, ...],
    cases: tuple[Case, ...],
    rounds: int,
    device: Literal["cpu", "cuda"],
    threads: int | None,
    resident: bool | None,
    out: Path | None,
    markdown_path: Path | None,
    html_path: Path | None,
) -> None:
    """Measure SUBJECTS on every --case, in turns within one run.

    A subject is ours=MODEL, ours-int4=MODEL (a folder with int8 prefill, without it), genai=MODEL (a name or folder;
    genai's own example loop, 16 crops only), torch-fp32, torch-bf16, torch-fp16=CHECKPOINT_FOLDER (the PyTorch
    reference), or openvino=FOLDER (OpenVINO GenAI, a folder from phi3v bench openvino-folder).
    A case is WIDTHxHEIGHT:NUM_CROPS:NEW_TOKENS.

    \b
    phi3v bench run ours=full/model genai=full/model torch-fp32=full/checkpoint --case 1344x1344:16:64
    """
    from phi3v.bench.extras import require_extra
    from phi3v.bench.report import render_html, render_markdown
    from phi3v.bench.run import run as measure

    if html_path:
        require_extra("bench", "matplotlib")
    specs = [_parse_subject(text, device, threads) for text in subjects]
    record = measure(specs, cases, rounds=rounds, resident=resident, out=out, say=say)
    for path, render in ((markdown_path, render_markdown), (html_path, render_html)):
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(render(record), encoding="utf-8")
    print_markdown(render_markdown(record))


def _parse_subject(text: str, device: Literal["cpu", "cuda"], threads: int | None) -> SubjectSpec:
    from phi3v.bench.run import SubjectSpec
    from phi3v.models.local import resolve_model

    name, equals, model = text.partition("=")
    if not equals:
        raise click.UsageError(f"{text!r} is not a subject; give SUBJECT=FOLDER or LABEL:SUBJECT=FOLDER")
    label, _, subject = name.rpartition(":")
    folder = Path(model) if subject.startswith(("torch", "openvino")) else resolve_model(model, device)
    return SubjectSpec(label or subject, subject, folder, device, threads)
