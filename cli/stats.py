"""The footer of `--stats`: what an answer cost, in six lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from phi3v import Engine, GenerationResult

    from .warm.ask_engine import AskEngine


def stats_lines(engine: Engine | AskEngine, result: GenerationResult, load_s: float) -> list[str]:
    """Six lines: model, prompt, stages before the first token, TTFT, decode, total."""
    usage, timings, model = result.usage, result.timings, engine.model
    kv_mib = model.kv_bytes(usage.total_tokens) / (1 << 20)
    build = f"{model.precision or 'published build'}, {engine.device}"
    warm = ", warm" if getattr(engine, "warm", False) else ""
    return [
        f"model       {model.name} ({build}{warm}), loaded in {load_s:.2f} s",
        f"prompt      {usage.prompt_tokens} tokens, {usage.image_tokens} of them pictures; KV cache {kv_mib:.0f} MiB",
        f"pictures    decoded in {timings.image_decode_s:.3f} s, preprocessed in {timings.preprocess_s:.3f} s",
        f"TTFT        {timings.ttft_s:.3f} s, of which vision + prefill {timings.prefill_s:.3f} s",
        f"decode      {usage.completion_tokens} tokens, {timings.tokens_per_s:.1f} tokens/s"
        f" (TPOT {timings.tpot_s * 1000:.1f} ms)",
        f"total       {timings.total_s:.2f} s, finished by {result.finish_reason}",
    ]
