"""How time and memory grow with the prompt and with the rows of a batch: `phi3v bench growth`.

Each point prefills prompts of text of an exact length in one genai generator, and generates a few tokens. There is no
image: vision costs the same for each crop (`phi3v bench run`), what grows otherwise is the decoder.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from ..backend import BatchRow, ModelInputs
from ..errors import OptionError
from ..genai.backend import GenaiBackend
from ..genai.batch import batch_bytes
from ..genai.prefill import Prefill
from ..machine.memory import available_memory, peak_memory, reset_peak_memory
from ..models.folder import ModelDir
from ..sampling import TokenChooser
from .program import run_command
from .record import GROWTH_FORMAT, Record
from .statistics import Summary

_TEXT = "Point {} on the agenda: read the table again, and say in one sentence what has changed since last year. "


def measure(
    model: Path,
    points: Sequence[tuple[int, int]],
    *,
    prefills: Sequence[Prefill] = ("auto",),
    new_tokens: int = 16,
    rounds: int = 1,
    threads: int | None = None,
    out: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Record:
    """Measure (rows, prompt tokens) `points` on the CPU, `rounds` times after a short warm-up, with each prefill.

    A point that may take more memory than is free is left out and named under "skipped". Raises OptionError for a point
    beyond the model's context.
    """
    folder = dataclasses.replace(ModelDir.open(model), eos_token_ids=frozenset())
    for rows, tokens in points:
        if rows < 1 or tokens < 2 or tokens + new_tokens > folder.context_length:
            raise OptionError(
                f"{rows} rows of {tokens} prompt tokens and {new_tokens} new ones; allowed: 1 or more rows, and 2 to "
                f"{folder.context_length} tokens together"
            )
    settings = {"new_tokens": new_tokens, "rounds": rounds, "threads": threads, "prefills": list(prefills)}
    record = Record.begin(GROWTH_FORMAT, model, out=out, settings=settings, samples=[], skipped=[])
    for prefill in prefills:
        with closing(GenaiBackend(folder, "cpu", threads=threads, prefill=prefill)) as backend:
            prompt = make_prompt(backend, max(tokens for _, tokens in points))
            _measure_point(backend, [prompt[:64]], 2)
            for rows, tokens in points:
                point = {"prefill": prefill, "rows": rows, "tokens": tokens}
                inputs = [prompt[:tokens]] * rows
                needed, free = batch_bytes(folder, [_as_inputs(one) for one in inputs], new_tokens), available_memory()
                if free is not None and needed > free:
                    record.add("skipped", point | {"needed_bytes": needed, "free_bytes": free})
                    say(f"{point}: left out, may take {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free")
                    continue
                for number in range(1, rounds + 1):
                    found = _measure_point(backend, inputs, new_tokens)
                    record.add("samples", point | {"round": number} | found)
                    say(f"round {number} {point}: first token {found['prefill_s']:.2f} s, {found['decode_tps']:.2f}/s")
    return record


def make_prompt(backend: GenaiBackend, length: int) -> list[int]:
    """Token ids of a text that is no shorter."""
    ids: list[int] = []
    number = 0
    while len(ids) < length:
        number += 1
        ids += backend.tokenizer.encode_text(_TEXT.format(number))
    return ids[:length]


def _as_inputs(ids: Sequence[int]) -> ModelInputs:
    import numpy as np

    return ModelInputs(np.array(ids, dtype=np.int32), None, None, ())


def _measure_point(backend: GenaiBackend, prompts: Sequence[Sequence[int]], new_tokens: int) -> dict[str, Any]:
    """Seconds to the first token of all rows, tokens a second of all rows together after it, and the peak of memory."""
    reset_peak_memory()
    rows = [BatchRow(_as_inputs(ids), TokenChooser(), new_tokens) for ids in prompts]
    began = time.perf_counter()
    if len(rows) == 1:
        with closing(backend.start(rows[0].inputs, rows[0].chooser, new_tokens)) as generation:
            times = list(_time_steps(generation.step, new_tokens))
    else:
        with closing(backend.start_batch(rows)) as batch:
            times = list(_time_steps(batch.step, new_tokens))
    decode_s = times[-1] - times[0]
    return {
        "prefill_s": times[0] - began,
        "decode_tps": len(rows) * (new_tokens - 1) / decode_s,
        "rss_peak_bytes": peak_memory(),
    }


def _time_steps(step: Callable[[], object], count: int) -> Iterator[float]:
    for _ in range(count):
        step()
        yield time.perf_counter()


def summarise(record: Record) -> list[dict[str, Any]]:
    """One row for each point: medians over the rounds."""
    found: dict[tuple[str, int, int], list[dict[str, Any]]] = {}
    for sample in record.content["samples"]:
        found.setdefault((sample["prefill"], sample["rows"], sample["tokens"]), []).append(sample)
    return [
        {"prefill": prefill, "rows": rows, "tokens": tokens}
        | {name: Summary.of([s[name] for s in samples]).median for name in ("prefill_s", "decode_tps")}
        | {"rss_peak_bytes": max((s["rss_peak_bytes"] or 0) for s in samples)}
        for (prefill, rows, tokens), samples in found.items()
    ]


def format_table(record: Record) -> str:
    """The points as a Markdown table, and a line for each that was left out."""
    lines = [
        "| prefill | rows | prompt tokens | first token | prompt tokens/s | decode, all rows | peak memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in summarise(record):
        speed = row["rows"] * row["tokens"] / row["prefill_s"]
        lines.append(
            f"| {row['prefill']} | {row['rows']} | {row['tokens']} | {row['prefill_s']:.2f} s | {speed:.0f} | "
            f"{row['decode_tps']:.1f} tok/s | {row['rss_peak_bytes'] / 1e9:.1f} GB |"
        )
    for left in record.content["skipped"]:
        lines.append(
            f"\nLeft out: {left['rows']} rows of {left['tokens']} with prefill {left['prefill']}, which may take "
            f"{left['needed_bytes'] / 1e9:.1f} GB where {left['free_bytes'] / 1e9:.1f} were free."
        )
    return "\n".join(lines)


def draw(record: Record, path: Path) -> None:
    """Plot seconds to the first token, decode and peak memory over the prompt's length, as SVG. Needs matplotlib."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    rows = summarise(record)
    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.6))
    panels = (
        ("prefill_s", "seconds to the first token", 1.0),
        ("decode_tps", "decode, tokens/s of all rows", 1.0),
        ("rss_peak_bytes", "peak memory, GB", 1e-9),
    )
    lines = sorted({(row["prefill"], row["rows"]) for row in rows})
    for axis, (name, title, unit) in zip(axes, panels, strict=True):
        for prefill, count in lines:
            own = sorted(
                (row["tokens"], row[name] * unit) for row in rows if (row["prefill"], row["rows"]) == (prefill, count)
            )
            axis.plot(*zip(*own, strict=True), "o-", markersize=4, label=f"{prefill}, {count} rows")
        axis.set(xlabel="prompt tokens of a row", title=title)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize="small")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg")
    pyplot.close(figure)


if __name__ == "__main__":
    run_command("growth")
