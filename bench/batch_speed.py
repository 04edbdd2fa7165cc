"""A batch against the same requests one by one: `python -m phi3v.bench.batch_speed MODEL`.

Both in turns in one process, round by round, so that a machine that drifts slows both. Every answer has its full
length. The record holds every sample, whether the tokens were the same, how much memory each way took, and how far
the logits of a row lie from those of its own run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from ..backend import ModelInputs
from ..engine import Engine
from ..genai.backend import GenaiBackend
from ..genai.batch import pad
from ..machine.memory import peak_memory, reset_peak_memory
from ..models.folder import ModelDir
from ..types import MAX_BATCH_SIZE, GenerationRequest, GenerationResult
from .case_option import case_type
from .cases import PROMPT, Case, picture_bytes
from .record import BATCH_FORMAT, Record
from .statistics import Ratio

_LOGIT_STEPS = 8


def make_requests(case: Case, rows: int) -> list[GenerationRequest]:
    """Questions of different lengths about pictures of different shapes."""
    return [
        GenerationRequest(
            f"{PROMPT} " + "Please take your time. " * row,
            [picture_bytes(case.width, max(16, case.height - 24 * row))],
            case.new_tokens,
            case.num_crops,
        )
        for row in range(rows)
    ]


def measure_round(engine: Engine, requests: Sequence[GenerationRequest], max_memory: int | None) -> dict[str, Any]:
    """One round: all alone, then all together."""
    reset_peak_memory()
    before = peak_memory()
    alone = [engine.generate_batch([request])[0] for request in requests]
    alone_peak = peak_memory()
    reset_peak_memory()
    together = engine.generate_batch(requests, batch_size=len(requests), max_memory=max_memory)
    singles, rows = [_answered(a) for a in alone], [_answered(a) for a in together]
    return {
        "alone": _sums(singles) | {"rss_growth_bytes": _minus(alone_peak, before)},
        "together": _sums_of_batch(rows) | {"rss_growth_bytes": _minus(peak_memory(), before)},
        "first_difference": [_first_difference(a.token_ids, b.token_ids) for a, b in zip(singles, rows, strict=True)],
    }


def logit_gap(backend: GenaiBackend, requests: Sequence[GenerationRequest]) -> dict[str, float]:
    """How far the logits of rows lie from those of runs of their own, both fed the same tokens.

    `largest`: over all rows, steps and ids. `margin_least`: between the two likeliest tokens of a run of its own; a
    token can only differ where the margin is below twice the gap. `spread`: a standard deviation of the logits.
    """
    from ..prepare import prepare

    inputs = [prepare(backend, request).inputs for request in requests]
    alone = [_logits(backend, one, 1) for one in inputs]
    forced = [[step[0].argmax() for step in run] for run in alone]
    together = _logits(backend, pad(inputs, backend.model.pad_token_id), len(inputs), forced)
    gaps = [
        np.abs(together[step][row] - run[step][0]).max() for row, run in enumerate(alone) for step in range(len(run))
    ]
    top = [np.sort(step[0])[-2:] for run in alone for step in run]
    return {
        "largest": float(max(gaps)),
        "median": float(np.median(gaps)),
        "margin_least": float(min(second - first for first, second in top)),
        "margin_median": float(np.median([second - first for first, second in top])),
        "spread": float(np.std(alone[0][0])),
    }


def _logits(
    backend: GenaiBackend, inputs: ModelInputs, rows: int, forced: Sequence[Sequence[int]] | None = None
) -> list[npt.NDArray[np.float32]]:
    """float32 [rows, vocab] of every step; `forced` are the tokens to go on with, by row."""
    generator = backend.loaded.new_generator(inputs, inputs.input_ids.shape[-1] + _LOGIT_STEPS + 1, rows)
    found = []
    for step in range(_LOGIT_STEPS):
        logits = np.array(generator.get_logits())
        found.append(logits[:, -1].copy())
        if forced is not None:
            logits.fill(-np.inf)
            for row in range(rows):
                logits[row, -1, forced[row][step]] = 0.0
            generator.set_logits(logits)
        generator.generate_next_token()
    return found


def _answered(outcome: object) -> GenerationResult:
    if isinstance(outcome, Exception):
        raise outcome
    assert isinstance(outcome, GenerationResult)
    return outcome


def _sums(answers: Sequence[GenerationResult]) -> dict[str, float]:
    """Seconds of each stage, one answer after the other, and tokens after the first."""
    return {
        "prefill_s": sum(answer.timings.prefill_s for answer in answers),
        "decode_s": sum(answer.timings.decode_s for answer in answers),
        "decode_tokens": sum(answer.timings.decode_tokens for answer in answers),
    }


def _sums_of_batch(answers: Sequence[GenerationResult]) -> dict[str, float]:
    """The same of rows that ran together: their times are the batch's, not each one's own."""
    return _sums(answers) | {
        "prefill_s": max(answer.timings.prefill_s for answer in answers),
        "decode_s": max(answer.timings.decode_s for answer in answers),
    }


def _first_difference(ours: Sequence[int], theirs: Sequence[int]) -> int | None:
    return next((at for at, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b), None)


def _minus(peak: int | None, before: int | None) -> int | None:
    return None if peak is None or before is None else peak - before


def table(record: Record) -> str:
    """Markdown: throughput and memory, the median of the rounds with the least and the largest."""
    content = record.content
    rounds = content["rounds"]

    def ratio(value: Any) -> str:
        found = Ratio.of(
            {n: value(one["together"]) for n, one in enumerate(rounds)},
            {n: value(one["alone"]) for n, one in enumerate(rounds)},
        )
        assert found is not None
        return f"{found.median:.2f}x ({found.least:.2f} to {found.largest:.2f})"

    same = sum(at is None for one in rounds for at in one["first_difference"])
    count = sum(len(one["first_difference"]) for one in rounds)
    grown = [one["together"]["rss_growth_bytes"] for one in rounds if one["together"]["rss_growth_bytes"] is not None]
    return "\n".join(
        [
            f"| {content['settings']['rows']} rows, {content['settings']['case']} | together against alone |",
            "|---|---|",
            f"| decode, tokens/s | {ratio(lambda s: s['decode_tokens'] / s['decode_s'])} |",
            f"| prefill, 1/s | {ratio(lambda s: 1 / s['prefill_s'])} |",
            f"| both, 1/s | {ratio(lambda s: 1 / (s['prefill_s'] + s['decode_s']))} |",
            f"| answers with the same tokens | {same} of {count} |",
            f"| memory taken, largest | {max(grown, default=0) / 1e6:.0f} MB, "
            f"estimated {content['estimated_bytes'] / 1e6:.0f} MB |",
            f"| logits, largest difference | {content['logits']['largest']:.2g} "
            f"(least margin of a token {content['logits']['margin_least']:.2g}) |",
        ]
    )


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--case", type=case_type, default="640x480:1:64", show_default=True, help="WIDTHxHEIGHT:NUM_CROPS:NEW_TOKENS"
)
@click.option("--rows", type=click.IntRange(2, MAX_BATCH_SIZE), default=8, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--threads", type=click.IntRange(min=1))
@click.option("--max-memory", type=int, help="Bytes the batch may take. Default: half of what is free.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the JSON record here.")
def main(
    model: Path, case: Case, rows: int, rounds: int, threads: int | None, max_memory: int | None, out: Path | None
) -> None:
    """Answer the same requests alone and together, in turns, and print the ratios."""
    folder = dataclasses.replace(ModelDir.open(model), eos_token_ids=frozenset())
    backend = GenaiBackend(folder, "cpu", threads=threads)
    requests = make_requests(case, rows)
    if not reset_peak_memory():
        click.echo("the peak of memory cannot be reset here: growth is measured from the start", err=True)
    with Engine(backend) as engine:
        prepared = [backend.preprocess(r.prompt, [_picture(r)], r.num_crops or 1) for r in requests]
        estimated = backend.batch_bytes(prepared, requests[0].max_new_tokens)
        if max_memory is not None and max_memory < estimated:
            raise click.UsageError(
                f"{rows} rows may take {estimated} bytes and --max-memory is {max_memory}: they would run in groups; "
                "give more memory or fewer --rows"
            )
        record = Record.begin(
            BATCH_FORMAT,
            model,
            out=out,
            settings={"case": str(case), "rows": rows, "threads": threads, "max_memory": max_memory},
            prompt_tokens=[len(one.input_ids) for one in prepared],
            estimated_bytes=estimated,
            rounds=[],
        )
        record.set("warmup", measure_round(engine, requests, max_memory))
        for number in range(rounds):
            record.add("rounds", measure_round(engine, requests, max_memory))
            click.echo(f"round {number + 1} of {rounds}", err=True)
        record.set("logits", logit_gap(backend, requests))
    click.echo(table(record))


def _picture(request: GenerationRequest) -> Any:
    from ..images.load import load_image

    return load_image(request.images[0])


if __name__ == "__main__":
    main()
