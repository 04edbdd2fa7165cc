"""A batch against the same requests one by one: `phi3v bench batch`.

Both take turns in one process, round by round, so that a machine that drifts slows both. Every answer has its full
length. The record holds every sample, whether the tokens were the same, how much memory each way took, and how far
the logits of a row are from those of the same request run alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..backend import ModelInputs
from ..engine import Engine
from ..errors import OptionError
from ..genai.backend import GenaiBackend
from ..genai.batch import pad
from ..genai.model import force_tokens
from ..machine.memory import peak_memory, reset_peak_memory
from ..models.folder import ModelDir
from ..prepare import prepare
from ..types import GenerationRequest, GenerationResult
from .cases import PROMPT, Case, make_jpeg
from .program import run_command
from .record import BATCH_FORMAT, Record
from .statistics import Ratio

_LOGIT_STEPS = 8

Logits = npt.NDArray[np.float32]


def measure(
    model: Path,
    case: Case,
    *,
    rows: int = 8,
    rounds: int = 5,
    threads: int | None = None,
    max_memory: int | None = None,
    out: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Record:
    """Answer `rows` requests alone and together on the CPU, `rounds` times after a warm-up, then compare logits.

    Raises OptionError when the rows may take more than `max_memory` bytes and would not run in one batch.
    """
    folder = dataclasses.replace(ModelDir.open(model), eos_token_ids=frozenset())
    backend = GenaiBackend(folder, "cpu", threads=threads)
    requests = make_requests(case, rows)
    if not reset_peak_memory():
        say("the peak of memory cannot be reset here: growth is measured from the start of the process")
    with Engine(backend) as engine:
        inputs = [prepare(backend, request).inputs for request in requests]
        estimated = backend.batch_bytes(inputs, case.new_tokens)
        if max_memory is not None and max_memory < estimated:
            raise OptionError(
                f"{rows} rows may take {estimated} bytes and max_memory is {max_memory}: they would run in groups; "
                "give more memory or fewer rows"
            )
        record = Record.begin(
            BATCH_FORMAT,
            model,
            out=out,
            settings={"case": str(case), "rows": rows, "threads": threads, "max_memory": max_memory},
            prompt_tokens=[len(one.input_ids) for one in inputs],
            estimated_bytes=estimated,
            rounds=[],
        )
        record.set("warmup", measure_round(engine, requests, max_memory))
        for number in range(rounds):
            record.add("rounds", measure_round(engine, requests, max_memory))
            say(f"round {number + 1} of {rounds}")
        record.set("logits", measure_logit_gap(backend, inputs))
    return record


def make_requests(case: Case, rows: int) -> list[GenerationRequest]:
    """Make questions of different lengths about images of different shapes."""
    return [
        GenerationRequest(
            f"{PROMPT} " + "Please take your time. " * row,
            [make_jpeg(case.width, max(16, case.height - 24 * row))],
            case.new_tokens,
            case.num_crops,
        )
        for row in range(rows)
    ]


def measure_round(engine: Engine, requests: Sequence[GenerationRequest], max_memory: int | None) -> dict[str, Any]:
    """Answer each request alone, then all together."""
    reset_peak_memory()
    before = peak_memory()
    alone = [engine.generate_batch([request])[0] for request in requests]
    alone_peak = peak_memory()
    reset_peak_memory()
    together = engine.generate_batch(requests, batch_size=len(requests), max_memory=max_memory)
    singles, rows = [_require_answer(a) for a in alone], [_require_answer(a) for a in together]
    return {
        "alone": _sum_up(singles) | {"rss_growth_bytes": _subtract(alone_peak, before)},
        "together": _sum_up_batch(rows) | {"rss_growth_bytes": _subtract(peak_memory(), before)},
        "first_difference": [
            _find_first_difference(a.token_ids, b.token_ids) for a, b in zip(singles, rows, strict=True)
        ],
    }


def measure_logit_gap(backend: GenaiBackend, inputs: Sequence[ModelInputs]) -> dict[str, float]:
    """Measure how far the logits of rows are from those of the same requests run alone, all fed the same tokens.

    `largest`: over all rows, steps and ids. `margin_least`: the smallest difference between the two likeliest tokens
    of a request run alone; a token can only differ where the margin is below twice the gap. `spread`: the standard
    deviation of the logits.
    """
    alone = [_run_steps(backend, one, 1) for one in inputs]
    forced = [[int(step[0].argmax()) for step in run] for run in alone]
    together = _run_steps(backend, pad(inputs, backend.model.pad_token_id), len(inputs), forced)
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


def _run_steps(
    backend: GenaiBackend, inputs: ModelInputs, rows: int, forced: Sequence[Sequence[int]] | None = None
) -> list[Logits]:
    """Generate and return the logits of every step, float32 [rows, vocab].

    `forced` holds, by row, the tokens to generate; None takes the likeliest.
    """
    generator = backend.loaded.new_generator(inputs, inputs.input_ids.shape[-1] + _LOGIT_STEPS + 1, rows)
    found = []
    for step in range(_LOGIT_STEPS):
        logits = np.array(generator.get_logits())
        found.append(logits[:, -1].copy())
        if forced is not None:
            force_tokens(generator, logits, {row: tokens[step] for row, tokens in enumerate(forced)})
        generator.generate_next_token()
    return found


def _require_answer(outcome: object) -> GenerationResult:
    if isinstance(outcome, Exception):
        raise outcome
    assert isinstance(outcome, GenerationResult)
    return outcome


def _sum_up(answers: Sequence[GenerationResult]) -> dict[str, float]:
    """Add up the seconds of each stage of answers that ran one after the other, and their tokens after the first."""
    return {
        "prefill_s": sum(answer.timings.prefill_s for answer in answers),
        "decode_s": sum(answer.timings.decode_s for answer in answers),
        "decode_tokens": sum(answer.timings.decode_tokens for answer in answers),
    }


def _sum_up_batch(answers: Sequence[GenerationResult]) -> dict[str, float]:
    """The same for answers that ran together: each one's times are the whole batch's, so the longest counts."""
    return _sum_up(answers) | {
        "prefill_s": max(answer.timings.prefill_s for answer in answers),
        "decode_s": max(answer.timings.decode_s for answer in answers),
    }


def _find_first_difference(ours: Sequence[int], theirs: Sequence[int]) -> int | None:
    return next((at for at, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b), None)


def _subtract(peak: int | None, before: int | None) -> int | None:
    return None if peak is None or before is None else peak - before


def format_table(record: Record) -> str:
    """Write throughput and memory as Markdown: the median of the rounds, with the least and the largest."""
    content = record.content
    rounds = content["rounds"]

    def ratio(value: Callable[[dict[str, Any]], float]) -> str:
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


if __name__ == "__main__":
    run_command("batch")
