"""When a change counts: never by noise alone, always when it is a fifth."""

import random
from typing import Any

import pytest

from phi3v.bench.compare import compare, compare_ratios
from phi3v.bench.record import Record
from phi3v.errors import OptionError

CASE = "1344x1344:16:64"


def record(
    *, ours: float = 1.0, torch: float = 6.0, noise: float = 0.02, rounds: int = 7, seed: int = 0, **changes: Any
) -> Record:
    r = random.Random(seed)
    samples = []
    for number in range(rounds + 1):
        drift = 1 + 0.3 * r.random()  # a machine that is now faster, now slower, for both
        for subject, base in (("ours", ours), ("torch-fp32", torch)):
            times = {
                m: base * drift * r.gauss(1, noise) for m in ("prepare_s", "prefill_s", "ttft_s", "tpot_s", "total_s")
            }
            samples.append({"subject": subject, "case": CASE, "round": number, "warmup": number == 0, **times})
    content = {
        "machine": {"cpu": "one"},
        "packages": {"numpy": "2"},
        "models": {"ours": {"hash": "a"}, "torch-fp32": {"hash": "b"}},
        "cases": [CASE],
        "samples": samples,
    }
    return Record(content | changes)


def verdicts(changes: list[Any], metric: str = "ttft_s") -> dict[str, str]:
    return {change.subject: change.verdict for change in changes if change.metric == metric}


def test_a_fifth_slower_is_worse_by_ratio_even_on_a_drifting_machine() -> None:
    found = verdicts(compare_ratios(record(), record(ours=1.2, seed=1), "ours", "torch-fp32"))
    assert found == {"ours/torch-fp32": "worse"}


def test_ten_clean_runs_pass() -> None:
    for seed in range(1, 11):
        assert set(verdicts(compare_ratios(record(), record(seed=seed), "ours", "torch-fp32")).values()) == {"same"}


def test_a_fifth_faster_is_better() -> None:
    assert set(verdicts(compare_ratios(record(), record(ours=0.8, seed=1), "ours", "torch-fp32")).values()) == {
        "better"
    }


def test_a_machine_that_slowed_down_moves_times_but_not_ratios() -> None:
    slow = record(ours=2.0, torch=12.0, seed=1)
    assert verdicts(compare(record(), slow))["ours"] == "worse"
    assert set(verdicts(compare_ratios(record(), slow, "ours", "torch-fp32")).values()) == {"same"}


def test_noise_is_called_noise() -> None:
    wild = record(noise=0.4, seed=3)
    assert set(verdicts(compare_ratios(wild, wild, "ours", "torch-fp32")).values()) == {"too noisy"}


def test_fewer_than_five_samples_decide_nothing() -> None:
    assert set(verdicts(compare(record(rounds=4), record(ours=3, rounds=4))).values()) == {"too few"}


@pytest.mark.parametrize("part", ["machine", "packages", "models"])
def test_records_that_differ_are_refused_and_the_difference_named(part: str) -> None:
    other = record(**{part: {"ours": {"hash": "two"}} if part == "models" else {"cpu": "two"}})
    with pytest.raises(OptionError, match=part):
        compare(record(), other)


def test_a_ratio_needs_both_subjects() -> None:
    with pytest.raises(OptionError, match="but not torch-bf16"):
        compare_ratios(record(), record(), "ours", "torch-bf16")
