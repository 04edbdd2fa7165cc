"""The gate: ours over the reference, against the committed baseline of ratios."""

from pathlib import Path

import pytest

from phi3v.bench.gate import BASELINE, check, judge
from phi3v.bench.record import Record

pytestmark = pytest.mark.torch


@pytest.mark.slow
def test_ours_is_no_slower_against_the_reference_than_the_baseline(tmp_path: Path) -> None:
    judgement = check(Record.read(BASELINE), tmp_path)
    if judgement.stale:
        pytest.skip(f"the baseline decides nothing here: {judgement.stale}")
    assert judgement.passed, judgement.changes


def test_a_baseline_of_another_processor_decides_nothing() -> None:
    baseline = Record.read(BASELINE)
    other = Record(baseline.content | {"machine": baseline.content["machine"] | {"cpu": "another"}})
    assert "cpu" in judge(other, baseline).stale
    assert judge(other, baseline).passed


def test_a_busy_machine_decides_nothing() -> None:
    baseline = Record.read(BASELINE)
    busy = [sample | {"total_s": 2 * sample["total_s"]} for sample in baseline.content["samples"]]
    assert "busy" in judge(baseline, Record(baseline.content | {"samples": busy})).stale


def test_a_fifth_more_time_in_the_baselines_own_samples_is_caught() -> None:
    baseline = Record.read(BASELINE)
    times = ("prepare_s", "prefill_s", "ttft_s", "tpot_s", "total_s")
    slow = [
        sample | ({name: 1.2 * sample[name] for name in times} if sample["subject"] == "ours" else {})
        for sample in baseline.content["samples"]
    ]
    assert not judge(baseline, Record(baseline.content | {"samples": slow})).passed
    assert judge(baseline, baseline).passed
