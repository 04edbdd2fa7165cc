"""Renders a record for people: as Markdown, and as one HTML page that needs no other file."""

from __future__ import annotations

import html
import io
from collections.abc import Callable
from typing import Any

from .record import Record
from .statistics import Ratio, Summary

Row = list[str]


def tabulate_times(record: Record) -> list[Row]:
    """Make a header and one row per case and subject: medians, and median absolute deviations of several samples."""
    header = ["case", "subject", "prompt", "prepare", "TTFT", "p95", "decode", "total"]
    return [[*header, "peak RSS", "GPU memory", "load", "cold start"]] + [
        [case, subject, *_render_cells(record, subject, case)]
        for case in record.cases
        for subject in record.subjects
        if record.values(subject, case, "total_s")
    ]


def tabulate_ratios(record: Record) -> list[Row]:
    """Make a header and one row per case and pair: how many times faster the first subject is, within rounds."""
    first, *others = record.subjects
    rows = [["case", f"{first} against", "prepare", "TTFT", "decode", "total", "memory"]]
    for case in record.cases:
        for other in others:
            if record.values(other, case, "total_s") and record.values(first, case, "total_s"):
                metrics = ("prepare_s", "ttft_s", "tpot_s", "total_s", "rss_peak_bytes")
                rows.append([case, other, *(_render_ratio(record, other, first, case, metric) for metric in metrics)])
    return rows


def render_markdown(record: Record) -> str:
    """Render both tables, what they were measured on, and what is not timed."""
    content = record.content
    lines = [f"# phi3v benchmark, {content['created']}", "", *(f"- {line}" for line in _list_facts(content)), ""]
    for title, table in _TABLES:
        lines += [f"{title}.", "", *_render_markdown_table(table(record)), ""]
    return "\n".join([*lines, _NOT_TIMED, ""])


def render_html(record: Record) -> str:
    """Render the same as a page, with a plot of every sample."""
    facts = "".join(f"<li>{html.escape(line)}</li>" for line in _list_facts(record.content))
    tables = "".join(f"<h2>{title}</h2>{_render_html_table(table(record))}" for title, table in _TABLES)
    return (
        "<!doctype html><meta charset='utf-8'><title>phi3v benchmark</title>"
        "<style>body{font:15px/1.5 sans-serif;margin:2em auto;max-width:70em;padding:0 1em}"
        "table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:.3em .6em;text-align:right}"
        "td:nth-child(-n+2),th{text-align:left}svg{max-width:100%;height:auto}</style>"
        f"<h1>phi3v benchmark, {html.escape(record.content['created'])}</h1><ul>{facts}</ul>{tables}"
        f"<h2>Every sample</h2>{_draw_plots(record)}<p>{html.escape(_NOT_TIMED)}</p>"
    )


_NOT_TIMED = (
    "Not timed: reading the image's file into the cache, and the pause between turns. TTFT runs from the call to the "
    "first token and includes decoding the image, preprocessing, vision and prefill; decode is the time of the tokens "
    "after it. Prepare is decoding the image and preprocessing it, which genai's own processor does in one step. Load "
    "is that of one process; cold start runs from starting the process to its first token."
)
_TABLES: tuple[tuple[str, Callable[[Record], list[Row]]], ...] = (
    ("How many times faster, and how much less memory, by round: median (least to largest)", tabulate_ratios),
    ("Medians of single answers ± median deviation; p95 is the 95th percentile of TTFT", tabulate_times),
)


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


def _render_cells(record: Record, subject: str, case: str) -> Row:
    def cell(metric: str, scale: float, unit: str) -> str:
        values = list(record.values(subject, case, metric).values())
        if not values:
            return ""
        summary = Summary.of([value * scale for value in values])
        return f"{summary.median:.4g} {unit}" + (f" ± {summary.mad:.2g}" if summary.count > 1 else "")

    rates = [1 / value for value in record.values(subject, case, "tpot_s").values()]
    rate = Summary.of(rates)
    prompt = next(s for s in record.content["samples"] if (s["subject"], s["case"]) == (subject, case))["prompt_tokens"]
    return [
        str(prompt),
        cell("prepare_s", 1e3, "ms"),
        cell("ttft_s", 1, "s"),
        f"{Summary.of(list(record.values(subject, case, 'ttft_s').values())).p95:.4g} s",
        f"{rate.median:.4g} tok/s ± {rate.mad:.2g}",
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
    return f"{ratio.median:.2f} ({ratio.least:.2f} to {ratio.largest:.2f})" if ratio else ""


def _render_markdown_table(rows: list[Row]) -> list[str]:
    header, *body = rows
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *body)]


def _render_html_table(rows: list[Row]) -> str:
    header, *body = rows
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    lines = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in body)
    return f"<table><tr>{head}</tr>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _draw_plots(record: Record) -> str:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        1, 2, figsize=(11, 1.2 + 0.5 * len(record.subjects) * len(record.cases)), sharey=True
    )
    labels = [
        (case, subject)
        for case in record.cases
        for subject in record.subjects
        if record.values(subject, case, "ttft_s")
    ]
    for axis, metric, title in zip(
        axes, ("ttft_s", "tpot_s"), ("TTFT, seconds", "decode, seconds a token"), strict=True
    ):
        for height, (case, subject) in enumerate(labels):
            values = list(record.values(subject, case, metric).values())
            axis.plot(values, [height] * len(values), "o", alpha=0.5, color="tab:blue")
            axis.plot([Summary.of(values).median], [height], "|", markersize=18, color="black")
        axis.set_xlabel(title)
        axis.set_xlim(left=0)
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(labels)), [f"{case}  {subject}" for case, subject in labels])
    figure.tight_layout()
    text = io.StringIO()
    figure.savefig(text, format="svg")
    pyplot.close(figure)
    return text.getvalue()[text.getvalue().index("<svg") :]
