"""What is said of a job while it runs."""

import re
import threading

import pytest

from phi3v.cli.batch import progress as module
from phi3v.cli.batch.progress import Progress, Rate, format_time, show_progress


class Clock:
    """A clock that is moved by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_rate_is_that_of_the_last_minute() -> None:
    clock = Clock()
    rate = Rate(clock)
    clock.now = 50  # a slow first image
    rate.add()
    assert rate.per_s() is None
    for _ in range(120):
        clock.now += 0.5
        rate.add()
    assert rate.per_s() == pytest.approx(2, rel=0.05)
    clock.now += 30
    assert rate.per_s() == pytest.approx(1, rel=0.05)
    clock.now += 100
    assert rate.per_s() is None


def test_speed_tells_what_failed_the_rate_and_what_is_left() -> None:
    clock = Clock()
    progress = Progress(100, Rate(clock))
    assert progress.speed() == ""
    for _ in range(10):
        clock.now += 2
        progress.add(5, None)
    progress.add(0, "ImageError")
    assert progress.speed() == "1 failed, 1.8 s a row, 2 min 42 s left"


def test_the_summary_counts_failures_by_kind() -> None:
    progress = Progress(4)
    progress.add(50, None)
    for kind in ("ImageError", "ImageNotFoundError", "ImageError"):
        progress.add(0, kind)
    said = progress.summary(before=7)
    assert said.startswith("1 answered, 3 failed (2 ImageError, 1 ImageNotFoundError), 7 done before; ")
    assert re.search(r"\d tokens/s$", said)


@pytest.mark.parametrize(
    ("seconds", "text"), [(8.21, "8.2 s"), (9.99, "10 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_times_read_as_people_say_them(seconds: float, text: str) -> None:
    assert format_time(seconds) == text


def test_lines_come_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = threading.Event()
    monkeypatch.setattr(module, "LINE_EVERY_S", 0.01)
    monkeypatch.setattr(module, "say", lambda line: (print(line), said.set()))
    with show_progress(3) as progress:
        progress.add(5, None)
        assert said.wait(20)
    assert " of 3" in capsys.readouterr().out
