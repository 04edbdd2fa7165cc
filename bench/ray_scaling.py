"""How `Phi3Vision` scales on Ray, on one machine: nano on one worker against several, and workers that only sleep.

What more machines would do is not measured: the sleeping workers show what Ray and our part cost a row.
"""

from __future__ import annotations

import io
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..models.folder import BUILTIN
from ..options import make_request
from ..ray_data import Phi3Vision
from ..ray_data.rows import Rows
from ..ray_data.table import TableMaker
from ..types import GenerationResult, Timings, Usage
from .record import RAY_FORMAT, Record

QUESTION = "Help me get the title and author information of this book?"
_BATCH = 8


class Timed(Phi3Vision):
    """A worker on a core of its own, so that one worker is not helped by the other's core.

    Adds when each batch began and ended, so that loading and Ray's own start do not count.
    """

    def __init__(self, slots: str, **arguments: Any) -> None:
        _take_core(Path(slots))
        super().__init__(**arguments)

    def __call__(self, batch: Any) -> Any:
        """Answer a batch."""
        import pyarrow

        began = time.time()
        table = super().__call__(batch)
        for name, value in (("began", began), ("ended", time.time())):
            table = table.append_column(name, pyarrow.array([value] * len(table)))
        return table


class Sleeping(Timed):
    """A worker without a model: it reads its rows and makes its table, and sleeps for as long as answers take."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._question, self._options, self._keep_images = QUESTION, {}, False
        self._table = TableMaker(None)

    def _answer(self, rows: Rows) -> list[Any]:
        for number in range(len(rows)):
            make_request(QUESTION, rows.images(number))
        time.sleep(self._seconds * len(rows))
        times = Timings(0.0, 0.0, self._seconds, 0.0, 0)
        return [GenerationResult("An answer.", (1,), "stop", Usage(1, 0, 1), times) for _ in range(len(rows))]


def measure(
    image: Path,
    *,
    rows: int,
    rounds: int,
    actors: list[int],
    sleep_s: float,
    out: Path | None,
    say: Callable[[str], None],
) -> Record:
    """Measure both, and return the record. Starts Ray on this machine, with as many CPUs as actors."""
    import ray

    record = Record.begin(
        RAY_FORMAT, BUILTIN, out=out, rows=rows, sleep_s=sleep_s, batch_size=_BATCH, rounds=[], sleeping=[]
    )
    ray.init(num_cpus=max(*actors, 2) + 2, log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
    try:
        for _ in range(rounds):
            found = {}
            for workers in (1, 2):
                with TemporaryDirectory() as slots:
                    found[str(workers)] = _run(ray, image, Timed, rows, workers, _nano(slots))
            record.add("rounds", found)
            say(f"nano: 1 worker {found['1']['rows_per_s']:.1f} rows/s, 2 workers {found['2']['rows_per_s']:.1f}")
        for workers in actors:
            slept = _run(ray, image, Sleeping, workers * 4 * _BATCH, workers, {"seconds": sleep_s})
            overhead_ms = 1000 * (slept["in_calls_s"] / slept["rows"] - sleep_s)
            record.add("sleeping", {"workers": workers, **slept, "overhead_ms_per_row": overhead_ms})
            say(
                f"{workers} sleeping: {slept['rows_per_s']:.0f} rows/s of at most {workers / sleep_s:.0f}, "
                f"{overhead_ms:.2f} ms a row in our part"
            )
    finally:
        ray.shutdown()
    return record


def _take_core(slots: Path) -> None:
    """Run on the first core that no other worker of this measurement has taken; `slots` is a folder of its own."""
    for number, core in enumerate(sorted(os.sched_getaffinity(0))):
        try:
            (slots / str(number)).touch(exist_ok=False)
        except FileExistsError:
            continue
        os.sched_setaffinity(0, {core})
        return


def _nano(slots: str) -> dict[str, Any]:
    return {"slots": slots, "model": "nano", "device": "cpu", "threads": 1, "question": QUESTION, "num_crops": 1}


def _run(ray: Any, image: Path, worker: type, rows: int, workers: int, arguments: dict[str, Any]) -> dict[str, Any]:
    """Rows a second from the first batch's begin to the last one's end, and the seconds in all calls together."""
    data = ray.data.from_items([{"id": number, "image": _variant(image, number)} for number in range(rows)])
    table = data.repartition(workers * 4).map_batches(
        worker,
        fn_constructor_kwargs=arguments,
        compute=ray.data.ActorPoolStrategy(size=workers),
        batch_size=_BATCH,
        num_cpus=1,
    )
    found = table.to_pandas()
    calls = found.drop_duplicates(["began", "ended"])
    return {
        "rows": len(found),
        "failed": int(found["error"].notna().sum()),
        "rows_per_s": len(found) / float(found["ended"].max() - found["began"].min()),
        "in_calls_s": float((calls["ended"] - calls["began"]).sum()),
    }


def _variant(image: Path, number: int) -> bytes:
    """The image at one of many sizes, so that no prefix is used twice."""
    from PIL import Image

    with Image.open(image) as opened:
        small = opened.convert("RGB").resize((300 + number % 64, 300 + number // 64))
    with io.BytesIO() as file:
        small.save(file, "PNG", compress_level=1)
        return file.getvalue()


def describe(record: Record) -> str:
    """The ratio of the rounds, with its spread."""
    ratios = sorted(round_["2"]["rows_per_s"] / round_["1"]["rows_per_s"] for round_ in record.content["rounds"])
    middle = ratios[len(ratios) // 2]
    return f"two workers answer {middle:.2f}x the rows of one ({ratios[0]:.2f} to {ratios[-1]:.2f})"
