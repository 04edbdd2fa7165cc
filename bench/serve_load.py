"""Load on `phi3v serve`: many clients against one client, on a fresh server each: `phi3v bench load`.

Every answer is compared with that of a fresh single run of the same request, which is made before any server starts.
The requests are a fixed mix: half of them about four images that everybody asks about, a quarter about images that few
ask about, a quarter without an image.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..engine import load
from ..machine.child_process import child_command, child_environment
from .cases import make_jpeg
from .program import run_command
from .record import LOAD_FORMAT, Record
from .session_speed import QUESTIONS
from .statistics import Summary

_COMMON_IMAGES, _RARE_IMAGES = 4, 40
_SIDE = 600
_START_S = 600.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and the answer of a fresh single run."""

    question: str
    image: bytes | None
    answer: str = ""

    def body(self, model: str, new_tokens: int) -> dict[str, Any]:
        """The request as a client sends it."""
        parts: list[dict[str, Any]] = [{"type": "text", "text": self.question}]
        if self.image is not None:
            url = f"data:image/jpeg;base64,{base64.b64encode(self.image).decode()}"
            parts.append({"type": "image_url", "image_url": {"url": url}})
        message = {"role": "user", "content": parts}
        return {"model": model, "messages": [message], "max_tokens": new_tokens, "stream": True}


def measure(
    model: Path,
    *,
    clients: int = 64,
    seconds: float = 60.0,
    new_tokens: int = 32,
    soak: int = 0,
    out: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Record:
    """Measure one client, then `clients`, for `seconds` each, on the CPU; then `soak` requests of 16 clients.

    Needs httpx and the extra `serve`.
    """
    say("fresh single runs, to compare with")
    requests = make_requests(model, new_tokens)
    settings = {"clients": clients, "seconds": seconds, "new_tokens": new_tokens, "soak": soak}
    record = Record.begin(LOAD_FORMAT, model, out=out, settings=settings, phases=[], soak=[])
    for count in (1, clients):
        with _serving(model, count) as (url, process):
            name = _get_name(url)
            before = memory(process)
            found = asyncio.run(_run_phase(url, name, requests, count, new_tokens, seconds=seconds))
            found |= {"clients": count, "memory_bytes": {"before": before, "after": memory(process)}}
        record.add("phases", found)
        say(describe_phase(found))
    if soak:
        with _serving(model, 16) as (url, process):
            name, done = _get_name(url), 0
            while done < soak:
                asyncio.run(_run_phase(url, name, requests, 16, new_tokens, count=min(100, soak - done)))
                done += min(100, soak - done)
                record.add("soak", {"requests": done, "memory_bytes": memory(process)})
    return record


def make_requests(model: Path, new_tokens: int) -> list[Asked]:
    """The mix, in the order in which clients take them, with the answers of fresh runs."""
    common = [make_jpeg(_SIDE, _SIDE, seed=number) for number in range(_COMMON_IMAGES)]
    rare = [make_jpeg(_SIDE, _SIDE, seed=100 + number) for number in range(_RARE_IMAGES)]
    wanted: list[Asked] = []
    for number in range(_RARE_IMAGES):
        question = QUESTIONS[number % len(QUESTIONS)]
        wanted += [
            Asked(question, common[number % _COMMON_IMAGES]),
            Asked(f"{question} (Question {number}.)", None),
            Asked(question, common[(number + 1) % _COMMON_IMAGES]),
            Asked(question, rare[number]),
        ]
    known: dict[Asked, str] = {}
    with load(model, "cpu") as engine:
        for asked in wanted:
            if asked not in known:
                images = [] if asked.image is None else [asked.image]
                known[asked] = engine.generate(asked.question, images, max_new_tokens=new_tokens).text
    return [Asked(asked.question, asked.image, known[asked]) for asked in wanted]


@contextlib.contextmanager
def _serving(model: Path, clients: int) -> Iterator[tuple[str, int]]:
    """A server of its own: its address and its process."""
    command = child_command("phi3v", "serve", "--model", str(model), "--device", "cpu", "--port", "0")
    command += ["--max-queue", str(clients)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=child_environment()) as process:
        try:
            assert process.stderr is not None
            url = next(found[0] for line in process.stderr if (found := re.search(r"http://[0-9.]+:[0-9]+", line)))
            _wait_until_loaded(url)
            yield url, process.pid
        finally:
            process.kill()


def _wait_until_loaded(url: str) -> None:
    import httpx

    deadline = time.monotonic() + _START_S
    while httpx.get(f"{url}/health", timeout=30).status_code != 200:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{url} has not loaded its model within {_START_S:g} s")
        time.sleep(0.05)


def _get_name(url: str) -> str:
    import httpx

    name: str = httpx.get(f"{url}/v1/models", timeout=30).json()["data"][0]["id"]
    return name


async def _run_phase(
    url: str,
    model: str,
    requests: Sequence[Asked],
    clients: int,
    new_tokens: int,
    *,
    seconds: float = float("inf"),
    count: int | None = None,
) -> dict[str, Any]:
    """So many clients, each asking one request after the other, until the time is over or `count` were asked."""
    import httpx

    end, following = time.perf_counter() + seconds, itertools.cycle(requests)
    left = itertools.count() if count is None else iter(range(count))
    statuses: Counter[int] = Counter()
    ttfts: list[float] = []
    times: list[float] = []
    wrong: list[str] = []

    async def ask_on(client: httpx.AsyncClient) -> None:
        while time.perf_counter() < end and next(left, None) is not None:
            asked = next(following)
            status, ttft, total, text = await _ask(client, asked.body(model, new_tokens))
            statuses[status] += 1
            if status != 200:
                await asyncio.sleep(1.0)
                continue
            ttfts.append(ttft)
            times.append(total)
            if text != asked.answer:
                wrong.append(asked.question)

    limits = httpx.Limits(max_connections=clients)
    began = time.perf_counter()
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:
        await asyncio.gather(*(ask_on(client) for _ in range(clients)))
    taken = time.perf_counter() - began
    answered = len(times)
    return {
        "seconds": taken,
        "answered": answered,
        "statuses": {str(status): number for status, number in statuses.items()},
        "wrong": wrong,
        "requests_per_s": answered / taken,
        "ttft_s": _spread(ttfts),
        "total_s": _spread(times),
    }


async def _ask(client: Any, body: dict[str, Any]) -> tuple[int, float, float, str]:
    """Status, seconds to the first text, seconds in all, and the text."""
    began, first, pieces = time.perf_counter(), 0.0, list[str]()
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        if response.status_code != 200:
            await response.aread()
            return response.status_code, 0.0, 0.0, ""
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            content = json.loads(line.removeprefix("data: "))
            if "error" in content:
                return 599, 0.0, 0.0, ""
            piece = content["choices"][0]["delta"].get("content", "")
            if piece and not pieces:
                first = time.perf_counter() - began
            pieces += [piece] if piece else []
    total = time.perf_counter() - began
    return 200, first or total, total, "".join(pieces)


def memory(process: int) -> int:
    """Resident bytes of a process and its children, on Linux; 0 elsewhere."""
    children = [
        int(child) for file in Path(f"/proc/{process}/task").glob("*/children") for child in file.read_text().split()
    ]
    total = 0
    for one in (process, *children):
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{one}/status").read_text()
            total += sum(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmRSS"))
    return total


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    found = Summary.of(values)
    return {"median": found.median, "p95": found.p95, "worst": max(values)}


def describe_phase(found: dict[str, Any]) -> str:
    """One phase in a line."""
    ttft = found["ttft_s"] or {"median": 0.0, "p95": 0.0}
    failed = sum(count for status, count in found["statuses"].items() if status != "200")
    return (
        f"{found['clients']} clients: {found['requests_per_s']:.2f} requests/s, first token after {ttft['median']:.2f} "
        f"s (p95 {ttft['p95']:.2f}), {found['answered']} answered, {failed} failed, {len(found['wrong'])} wrong"
    )


def describe(record: Record) -> str:
    """The ratio, and what a soak cost."""
    one, many = record.content["phases"]
    lines = [f"{many['requests_per_s'] / one['requests_per_s']:.2f}x the requests of one client"]
    soak = record.content["soak"]
    if len(soak) > 2:
        before, after = soak[1]["memory_bytes"], soak[-1]["memory_bytes"]
        lines.append(
            f"after {soak[1]['requests']} requests {before / 1e6:.0f} MB resident, after {soak[-1]['requests']} "
            f"{after / 1e6:.0f} MB ({100 * (after / before - 1):+.1f} %)"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    run_command("load")
