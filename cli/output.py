"""How an answer is printed: its text as it comes, the whole of it at once, or a JSON object; and what it cost."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from .interrupts import killable
from .notices import report_result

if TYPE_CHECKING:
    from phi3v import GenerationResult, TokenStream

    from .answering import Answerer, OpenAnswer


@dataclass(frozen=True, slots=True)
class AnswerPrinter:
    """Prints answers for `phi3v ask`.

    `as_json` prints one JSON object per answer. `whole` prints the text only when it is complete, so that a pipe never
    sees half of an answer that has a format. `stats` prints what the answer cost, on stderr.
    """

    as_json: bool
    whole: bool
    stats: bool

    @property
    def streams(self) -> bool:
        """Whether the text is printed token by token."""
        return not (self.as_json or self.whole)

    def separate(self, question: str, *, first: bool) -> None:
        """Set the answer to one of several questions apart from the one before."""
        if self.as_json:
            return
        write("" if first or self.whole else "\n")
        click.echo(f"> {question}", err=True)

    def print_tokens(self, answer: OpenAnswer | TokenStream) -> GenerationResult:
        """Iterate the answer, printing its text if it `streams`, and return its result.

        Until the first token Ctrl-C kills the process, because vision and prefill hold the interpreter.
        """
        for token in killable(answer):
            if self.streams:
                write(token.text)
        if self.streams:
            write("\n")
        return answer.result

    def print_result(self, answerer: Answerer, prompt: str, result: GenerationResult) -> None:
        """Print the JSON object, or the text that was held back, what there is to say of the images, and the stats."""
        if self.as_json:
            click.echo(json.dumps(answer_record(answerer, prompt, result) | {"warm": answerer.warm}))
        elif self.whole:
            click.echo(result.text)
        report_result(result)
        if self.stats:
            click.echo("\n".join(stats_lines(answerer, result)), err=True)


def write(text: str) -> None:
    """Write to stdout and flush."""
    sys.stdout.write(text)
    sys.stdout.flush()


def answer_record(answerer: Answerer, prompt: str, result: GenerationResult) -> dict[str, Any]:
    """Return one answer as `--json` prints it."""
    timings = result.timings
    times = {**asdict(timings), "ttft_s": timings.ttft_s, "tpot_s": timings.tpot_s}
    return {
        "prompt": prompt,
        "text": result.text,
        "finish_reason": result.finish_reason,
        "notes": list(result.notes),
        "usage": asdict(result.usage),
        "timings": {"load_s": answerer.load_s, **times},
        "model": str(answerer.model.path),
        "device": answerer.device,
        "synthetic": answerer.model.synthetic,
    }


def stats_lines(answerer: Answerer, result: GenerationResult) -> list[str]:
    """Return the six lines of `--stats`: model, prompt, images, TTFT, decode, total."""
    usage, timings, model = result.usage, result.timings, answerer.model
    kv_mib = model.kv_bytes(usage.total_tokens) / (1 << 20)
    build = f"{model.precision or 'published build'}, {answerer.device}{', warm' if answerer.warm else ''}"
    return [
        f"model       {model.name} ({build}), loaded in {answerer.load_s:.2f} s",
        f"prompt      {usage.prompt_tokens} tokens, {usage.image_tokens} of them images; KV cache {kv_mib:.0f} MiB",
        f"images      decoded in {timings.image_decode_s:.3f} s, preprocessed in {timings.preprocess_s:.3f} s",
        f"TTFT        {timings.ttft_s:.3f} s, of which vision + prefill {timings.prefill_s:.3f} s",
        f"decode      {usage.completion_tokens} tokens, {timings.tokens_per_s:.1f} tokens/s"
        f" (TPOT {timings.tpot_s * 1000:.1f} ms)",
        f"total       {timings.total_s:.2f} s, finished by {result.finish_reason}",
    ]
