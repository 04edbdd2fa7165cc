"""What /metrics tells Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from phi3v.types import GenerationResult

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)


class Metrics:
    """The numbers of one server."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter("phi3v_requests", "Answers by how they ended", ["outcome"], registry=registry)
        self.running = Gauge("phi3v_running", "Answers that the model works on", registry=registry)
        self.waiting = Gauge("phi3v_waiting", "Requests that wait for the model", registry=registry)
        self.queue = Histogram(
            "phi3v_queue_seconds", "From the request to the model's start on it", buckets=_SECONDS, registry=registry
        )
        self.ttft = Histogram(
            "phi3v_ttft_seconds", "From the request to its first token", buckets=_SECONDS, registry=registry
        )
        self.tpot = Histogram(
            "phi3v_time_per_token_seconds", "Per token after the first", buckets=_TOKEN_SECONDS, registry=registry
        )
        self.prompt = Counter("phi3v_prompt_tokens", "Tokens of prompts, images among them", registry=registry)
        self.cached = Counter("phi3v_cached_tokens", "Tokens of prompts that were not read again", registry=registry)
        self.generated = Counter("phi3v_generated_tokens", "Tokens of answers", registry=registry)
        self.images = Counter(
            "phi3v_image_prompts", "Prompts with images: read before, or not", ["cache"], registry=registry
        )

    def note(self, result: GenerationResult) -> None:
        """Count a finished answer."""
        self.requests.labels(result.finish_reason).inc()
        self.prompt.inc(result.usage.prompt_tokens)
        self.cached.inc(result.usage.cached_tokens)
        self.generated.inc(result.usage.completion_tokens)
        if result.usage.image_tokens:
            hit = result.usage.cached_tokens >= result.usage.image_tokens
            self.images.labels("hit" if hit else "miss").inc()
        if result.timings.decode_tokens:
            self.tpot.observe(result.timings.tpot_s)

    def text(self) -> bytes:
        """In Prometheus' format."""
        return generate_latest(self._registry)
