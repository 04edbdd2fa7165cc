"""Renders a record for people: as Markdown, and as one HTML page that needs no other file."""

from __future__ import annotations

import html
import io
import math
from collections.abc import Callable
from typing import Any

from .record import Record
from .statistics import Ratio, Summary

Row = list[str]


def tabulate_times(record: Record) -> list[Row]:
    """Make a header and one row per case and subject: medians, and median absolute deviations of several samples."""
    header = ["case", "subject", "prompt", "prepare", "TTFT", "p95", "decode", "total"]
    return _drop_empty_columns(
        [[*header, "peak RSS", "GPU memory", "load", "cold start"]]
        + [
            [describe_case(case), subject, *_render_cells(record, subject, case)]
            for case in record.cases
            for subject in record.subjects
            if record.values(subject, case, "total_s")
        ]
    )


def tabulate_ratios(record: Record) -> list[Row]:
    """Make a header and one row per case and pair: how many times faster the first subject is, within rounds."""
    first, *others = record.subjects
    rows = [["case", f"{first} against", "prepare", "TTFT", "decode", "total", "memory"]]
    for case in record.cases:
        for other in others:
            if record.values(other, case, "total_s") and record.values(first, case, "total_s"):
                metrics = ("prepare_s", "ttft_s", "tpot_s", "total_s", "rss_peak_bytes")
                rows.append(
                    [
                        describe_case(case),
                        other,
                        *(_render_ratio(record, other, first, case, metric) for metric in metrics),
                    ]
                )
    return _drop_empty_columns(rows)


def describe_case(case: str) -> str:
    """A case in words: `1344x1344:16:64` is an image of 1344 x 1344 pixels, 16 crops, 64 new tokens."""
    size, crops, tokens = case.split(":")
    plural = "" if crops == "1" else "s"
    return f"{size.replace('x', ' x ')}, {crops} crop{plural}, {tokens} tokens"


def describe_headline(record: Record) -> str:
    """The result in a sentence: the first subject against each other one, on the first case; "" for one subject."""
    first, *others = record.subjects
    found = [
        f"{_compare(record, other, first, case)} than {other}"
        for case in record.cases[:1]
        for other in others
        if _compare(record, other, first, case)
    ]
    if not found:
        return ""
    return f"{describe_case(record.cases[0])}: {first} has its first token {'; '.join(found)}."


def _compare(record: Record, other: str, first: str, case: str) -> str:
    """How many times sooner `first` has its first token, and how many times as fast it decodes."""
    sooner, faster = (
        Ratio.of(record.values(other, case, metric), record.values(first, case, metric))
        for metric in ("ttft_s", "tpot_s")
    )
    if sooner is None or faster is None:
        return ""
    times = (ratio.median if ratio.median >= 1 else 1 / ratio.median for ratio in (sooner, faster))
    words = ("sooner" if sooner.median >= 1 else "later", "faster" if faster.median >= 1 else "slower")
    ttft, decode = (f"{time:.2f}x {word}" for time, word in zip(times, words, strict=True))
    return f"{ttft} and decodes {decode}"


def _drop_empty_columns(rows: list[Row]) -> list[Row]:
    """Without the columns that hold nothing below their title."""
    kept = [number for number in range(len(rows[0])) if any(row[number] for row in rows[1:])]
    return [[row[number] for number in kept] for row in rows]


def render_markdown(record: Record) -> str:
    """Render both tables, what they were measured on, and what is not timed."""
    content = record.content
    lines = [f"# phi3v benchmark, {content['created']}", "", *(f"- {line}" for line in _list_facts(content)), ""]
    if headline := describe_headline(record):
        lines += [headline, ""]
    for title, rows in _list_tables(record):
        lines += [f"{title}.", "", *_render_markdown_table(rows), ""]
    return "\n".join([*lines, _NOT_TIMED, ""])


def render_html(record: Record) -> str:
    """Render the same as a page, with a plot of every sample."""
    facts = "".join(f"<li>{html.escape(line)}</li>" for line in _list_facts(record.content))
    tables = "".join(f"<h2>{title}</h2>{_render_html_table(rows)}" for title, rows in _list_tables(record))
    headline = html.escape(describe_headline(record))
    return (
        "<!doctype html><meta charset='utf-8'><title>phi3v benchmark</title>"
        "<style>body{font:15px/1.5 sans-serif;margin:2em auto;max-width:70em;padding:0 1em}"
        "table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:.3em .6em;text-align:right}"
        "td:nth-child(-n+2),th{text-align:left}.slower{color:#b00020}svg{max-width:100%;height:auto}</style>"
        f"<h1>phi3v benchmark, {html.escape(record.content['created'])}</h1><p><b>{headline}</b></p>"
        f"<ul>{facts}</ul>{tables}"
        f"<h2>Every sample</h2>{_draw_plots(record)}<p>{html.escape(_NOT_TIMED)}</p>"
    )


_NOT_TIMED = (
    "Not timed: reading the image's file into the cache, and the pause between turns. TTFT runs from the call to the "
    "first token and includes decoding the image, preprocessing, vision and prefill; decode is the time of the tokens "
    "after it. Prepare is decoding the image and preprocessing it, which genai's own processor does in one step. Load "
    "is that of one process; cold start runs from starting the process to its first token."
)
_SLOWER = "(worse)"
"""Behind a ratio below 1."""

_TABLES: tuple[tuple[str, Callable[[Record], list[Row]]], ...] = (
    ("How many times faster, and how much less memory, by round: median (least to largest)", tabulate_ratios),
    ("Medians of single answers ± median deviation; p95 is the 95th percentile of TTFT", tabulate_times),
)


def _list_tables(record: Record) -> list[tuple[str, list[Row]]]:
    """Titles and tables, without those that have no row."""
    return [(title, rows) for title, table in _TABLES if len(rows := table(record)) > 1]


def _list_facts(content: dict[str, Any]) -> list[str]:
    machine, source = content["machine"], content["source"]
    gpus = ", ".join(gpu["name"] for gpu in machine["gpus"]) or "no GPU"
    lines = [
        f"{machine['cpu']}, {machine['cpus']} CPUs, {(machine['ram_bytes'] or 0) / 1e9:.0f} GB RAM, {gpus}",
        f"phi3v {source['version']} {source['commit'][:10]}{' (changed files)' if source['dirty'] else ''}, "
        + ", ".join(f"{name} {version}" for name, version in content["packages"].items()),
    ]
    for label, model in content["models"].items():
        weights = "random weights (speed does not depend on the values)" if model["synthetic"] else "trained weights"
        lines.append(
            f"{label}: {model['name']} ({model['hash']}), {model['bytes'] / 1e9:.2f} GB, {weights}, {model['device']}"
        )
    lines += [failure["error"] for failure in content.get("failures", [])]
    settings = content["settings"]
    how = "all loaded at once, in turns" if settings["resident"] else "one process per turn"
    return [*lines, f"{settings['rounds']} rounds after a warm-up, {how}; greedy, every answer of full length"]


def render_measure(value: float, deviation: float | None, unit: str) -> str:
    """A number as people write it, `307 ± 170 ms`: both to the deviation's second digit, and never an exponent."""
    scale = deviation or abs(value) / 100
    places = min(4, max(0, 1 - math.floor(math.log10(scale)))) if scale else 0
    shown = f"{value:.{places}f}"
    return f"{shown} {unit}" if deviation is None else f"{shown} ± {deviation:.{places}f} {unit}"


def _render_cells(record: Record, subject: str, case: str) -> Row:
    def cell(metric: str, scale: float, unit: str) -> str:
        values = list(record.values(subject, case, metric).values())
        if not values:
            return ""
        summary = Summary.of([value * scale for value in values])
        return render_measure(summary.median, summary.mad if summary.count > 1 else None, unit)

    rates = [1 / value for value in record.values(subject, case, "tpot_s").values()]
    rate = Summary.of(rates)
    prompt = next(s for s in record.content["samples"] if (s["subject"], s["case"]) == (subject, case))["prompt_tokens"]
    return [
        str(prompt),
        cell("prepare_s", 1e3, "ms"),
        cell("ttft_s", 1, "s"),
        f"{Summary.of(list(record.values(subject, case, 'ttft_s').values())).p95:.4g} s",
        render_measure(rate.median, rate.mad if rate.count > 1 else None, "tok/s"),
        cell("total_s", 1, "s"),
        cell("rss_peak_bytes", 1e-9, "GB"),
        _summarise_starts(record, subject, case, "gpu_used_bytes", 1e-9, "GB"),
        *(_summarise_starts(record, subject, case, metric) for metric in ("load_s", "cold_start_s")),
    ]


def _summarise_starts(record: Record, subject: str, case: str, metric: str, scale: float = 1, unit: str = "s") -> str:
    """Render the median of what a process measures once, in the row of the case it answered first.

    The number of new tokens is ignored: the first answer may be a short warm-up.
    """
    same = case.rpartition(":")[0] + ":"
    samples = [s for s in record.content["samples"] if s["subject"] == subject and s["case"].startswith(same)]
    values = [scale * s[metric] for s in samples if s.get(metric) is not None]
    return f"{Summary.of(values).median:.3g} {unit}" if values else ""


def _render_ratio(record: Record, above: str, below: str, case: str, metric: str) -> str:
    ratio = Ratio.of(record.values(above, case, metric), record.values(below, case, metric))
    if ratio is None:
        return ""
    worse = "" if ratio.median >= 1 else f" {_SLOWER}"
    return f"{ratio.median:.2f} ({ratio.least:.2f} to {ratio.largest:.2f}){worse}"


def _render_markdown_table(rows: list[Row]) -> list[str]:
    header, *body = rows
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *body)]


def _render_html_table(rows: list[Row]) -> str:
    header, *body = rows
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    lines = ("".join(f"<td{_mark(cell)}>{html.escape(cell)}</td>" for cell in row) for row in body)
    return f"<table><tr>{head}</tr>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _mark(cell: str) -> str:
    return " class='slower'" if cell.endswith(_SLOWER) else ""


def _draw_plots(record: Record) -> str:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        1, 2, figsize=(11, 1.2 + 0.6 * len(record.subjects) * len(record.cases)), sharey=True
    )
    labels = [
        (case, subject)
        for case in record.cases
        for subject in record.subjects
        if record.values(subject, case, "ttft_s")
    ]
    measures: tuple[tuple[str, str, Callable[[float], float]], ...] = (
        ("ttft_s", "TTFT, seconds", lambda seconds: seconds),
        ("tpot_s", "decode, tokens a second", lambda seconds: 1 / seconds),
    )
    for axis, (metric, title, convert) in zip(axes, measures, strict=True):
        for height, (case, subject) in enumerate(labels):
            values = [convert(value) for value in record.values(subject, case, metric).values()]
            colour = f"C{record.subjects.index(subject) % 10}"
            axis.plot(values, [height] * len(values), "o", alpha=0.5, color=colour)
            axis.plot([Summary.of(values).median], [height], "|", markersize=18, color="black")
        axis.set_xlabel(title)
        axis.set_xlim(left=0)
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(labels)), [f"{describe_case(case)}\n{subject}" for case, subject in labels])
    axes[0].invert_yaxis()
    figure.tight_layout()
    text = io.StringIO()
    figure.savefig(text, format="svg")
    pyplot.close(figure)
    return text.getvalue()[text.getvalue().index("<svg") :]
