"""`phi3v bench`: measure, compare, check against the reference, and make models to do it on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from phi3v.bench.case_option import case_type

from .options import build_device_option, precision_option
from .progress import progress_bar

if TYPE_CHECKING:
    from phi3v.bench.cases import Case
    from phi3v.bench.compare import Change

_path = click.Path(path_type=Path)


@click.group()
def bench() -> None:
    """Measure models side by side, compare records, check parity with the PyTorch reference."""


@bench.command()
@click.argument("subjects", nargs=-1, required=True, metavar="[LABEL:]SUBJECT=FOLDER...")
@click.option(
    "--case",
    "cases",
    type=case_type,
    multiple=True,
    default=["1344x1344:1:16"],
    show_default=True,
    help="WIDTHxHEIGHT:NUM_CROPS:NEW_TOKENS; may be repeated.",
)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="Of every subject. Default: their own choice.")
@click.option("--resident/--fresh", default=None, help="Keep all loaded, or a process a turn. Default: what fits.")
@click.option("--out", type=_path, help="Write the JSON record here.")
@click.option("--markdown", "markdown_path", type=_path, help="Write the tables here.")
@click.option("--html", "html_path", type=_path, help="Write a page with tables and plots here.")
def run(
    subjects: tuple[str, ...],
    cases: tuple[Case, ...],
    rounds: int,
    device: str,
    threads: int | None,
    resident: bool | None,
    out: Path | None,
    markdown_path: Path | None,
    html_path: Path | None,
) -> None:
    """Measure SUBJECTS on every --case, in turns within one run.

    A subject is ours=MODEL, genai=MODEL (a name or folder; genai's own example loop, 16 crops only), torch-fp32,
    torch-bf16, torch-fp16=CHECKPOINT_FOLDER (the PyTorch reference), or openvino=FOLDER (OpenVINO GenAI, from
    python -m phi3v.bench.openvino.folder). A case is WIDTHxHEIGHT:NUM_CROPS:NEW_TOKENS.

    \b
    phi3v bench run ours=full/model genai=full/model torch-fp32=full/checkpoint --case 1344x1344:16:64
    """
    from phi3v.bench.extras import require_extra
    from phi3v.bench.report import html_page, markdown
    from phi3v.bench.run import run as measure

    if html_path:
        require_extra("bench", "matplotlib")
    specs = [_spec(text, device, threads) for text in subjects]
    record = measure(
        specs,
        cases,
        rounds=rounds,
        resident=resident,
        out=out,
        say=_say,
    )
    for path, render in ((markdown_path, markdown), (html_path, html_page)):
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(render(record), encoding="utf-8")
    click.echo(markdown(record))


@bench.command()
@click.argument("old", type=_path)
@click.argument("new", type=_path)
@click.option("--ratios", metavar="SUBJECT/REFERENCE", help="Compare SUBJECT's times over REFERENCE's within each run.")
@click.option("--different", is_flag=True, help="Compare although machine, versions or models differ.")
def compare(old: Path, new: Path, ratios: str | None, different: bool) -> None:
    """Say what became better, stayed the same or became worse from record OLD to NEW. Exits with 1 on a regression.

    A change counts when it exceeds a tenth and three standard errors of the medians.
    """
    from phi3v.bench.compare import compare as compare_times
    from phi3v.bench.compare import compare_ratios
    from phi3v.bench.record import Record

    first, second = Record.read(old), Record.read(new)
    if ratios:
        subject, _, reference = ratios.partition("/")
        changes = compare_ratios(first, second, subject, reference)
    else:
        changes = compare_times(first, second, allow_different=different)
    _print_changes(changes)
    worse = sum(change.verdict == "worse" for change in changes)
    if worse:
        raise click.ClickException(f"{worse} of {len(changes)} times became worse")


@bench.command()
@click.option("--baseline", type=_path, help="Default: the committed one.")
@click.option("--record", is_flag=True, help="Write what is measured as the new baseline instead of judging it.")
def gate(baseline: Path | None, record: bool) -> None:
    """Measure a small model against the PyTorch reference and compare the ratios with the baseline's.

    Exits with 1 when a ratio is worse in two measurements running. A baseline of another processor or of other package
    versions decides nothing.
    """
    from tempfile import TemporaryDirectory

    from phi3v.bench.gate import BASELINE, check, measure
    from phi3v.bench.record import Record

    path = baseline or BASELINE
    with TemporaryDirectory() as scratch:
        if record:
            measure(Path(scratch), say=_say).write(path)
            click.echo(str(path))
            return
        judgement = check(Record.read(path), Path(scratch), _say)
    _print_changes(judgement.changes)
    if judgement.stale:
        click.echo(f"the baseline decides nothing here ({judgement.stale}); --record makes one", err=True)
    if not judgement.passed:
        raise click.ClickException("slower against the reference than the baseline")


@bench.command()
@click.argument("checkpoint", type=_path)
@click.argument("model", type=_path)
@click.option("--num-crops", type=click.IntRange(1, 16), default=1, show_default=True)
@click.option("--new-tokens", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--picture", "pictures", type=_path, multiple=True, help="Default: one that is made for the purpose.")
@click.option("--prompt", default="What is shown in this image?", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def parity(
    checkpoint: Path,
    model: Path,
    num_crops: int,
    new_tokens: int,
    pictures: tuple[Path, ...],
    prompt: str,
    as_json: bool,
) -> None:
    """Compare MODEL with the PyTorch reference on the CHECKPOINT it was built from: ids, pixels, logits, tokens."""
    import json

    from phi3v.bench.extras import require_extra

    require_extra("export", "torch", "transformers")
    from phi3v.bench.cases import picture_bytes
    from phi3v.bench.parity import parity as measure
    from phi3v.images.load import load_image

    images = [load_image(picture) for picture in pictures or (picture_bytes(640, 400),)]
    found = asdict(measure(checkpoint, model, prompt, images, num_crops=num_crops, new_tokens=new_tokens))
    click.echo(
        json.dumps(found) if as_json else "\n".join(f"{name:18} {_shown(value)}" for name, value in found.items())
    )


@bench.command()
@click.argument("out", type=_path)
@click.option("--size", type=click.Choice(["tiny", "full"]), default="tiny", show_default=True)
@click.option("--layers", type=click.IntRange(min=1), help="Decoder layers. Default: 2 (tiny), 32 (full).")
@precision_option
@build_device_option
@click.option("--seed", type=int, default=0, show_default=True)
def synth(out: Path, size: str, layers: int | None, precision: str, device: str, seed: int) -> None:
    """Write a checkpoint with random weights to OUT/checkpoint and export it to OUT/model.

    "full" has the real 4.2 B dimensions: its speed and memory are the real model's, its answers mean nothing.
    """
    from phi3v.export.build import export_model
    from phi3v.export.synthetic import full_dims, require_synthetic, tiny_dims, write_random_checkpoint
    from phi3v.models.folder import MANIFEST

    require_synthetic(out / "model", MANIFEST, "synthetic")
    dims = full_dims(layers=layers or 32) if size == "full" else tiny_dims(layers=layers or 2)
    checkpoint = write_random_checkpoint(out / "checkpoint", dims, seed)
    with progress_bar() as progress:
        export_model(checkpoint, out / "model", precision=precision, device=device, overwrite=True, progress=progress)
    click.echo("random weights: answers of this model mean nothing", err=True)
    click.echo(str(out / "model"))


def _say(line: str) -> None:
    click.echo(line, err=True)


def _spec(text: str, device: str, threads: int | None) -> Any:
    from phi3v.bench.run import SubjectSpec
    from phi3v.models.local import resolve_model

    name, equals, model = text.partition("=")
    if not equals:
        raise click.UsageError(f"{text!r} is no subject; give SUBJECT=FOLDER or LABEL:SUBJECT=FOLDER")
    label, _, subject = name.rpartition(":")
    folder = Path(model) if subject.startswith(("torch", "openvino")) else resolve_model(model, device)
    return SubjectSpec(label or subject, subject, folder, device, threads)  # type: ignore[arg-type]


def _print_changes(changes: list[Change]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("subject", "case", "metric", "old", "new", "factor", "counts from", "verdict", box=None)
    colour = {"worse": "red", "better": "green", "too noisy": "yellow", "too few": "yellow"}
    for change in changes:
        mark = f"[{colour[change.verdict]}]{change.verdict}[/]" if change.verdict in colour else change.verdict
        numbers = (f"{change.old:.4g}", f"{change.new:.4g}", f"{change.factor:.3f}", f"±{change.band:.0%}")
        table.add_row(change.subject, change.case, change.metric, *numbers, mark)
    Console(width=140).print(table)


def _shown(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
