"""What a person reads of a record: numbers without exponents, cases in words, a headline, worse ratios marked."""

from importlib.util import find_spec
from typing import Any

import pytest

from phi3v.bench.compare import compare
from phi3v.bench.record import Record
from phi3v.bench.report import (
    describe_case,
    describe_headline,
    render_html,
    render_markdown,
    render_measure,
    tabulate_ratios,
    tabulate_times,
)
from phi3v.errors import OptionError

CASE = "1344x1344:16:64"
needs_matplotlib = pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed")


def make_record(**subjects: tuple[float, float]) -> Record:
    """A record of subjects with their TTFT and time per token, in five rounds."""
    samples: list[dict[str, Any]] = [
        {
            "subject": subject, "case": CASE, "round": number, "warmup": False, "prompt_tokens": 2564,
            "prepare_s": 0.1, "prefill_s": ttft, "ttft_s": ttft * (1 + number / 1000), "tpot_s": tpot,
            "total_s": ttft + 63 * tpot, "rss_peak_bytes": 7e9,
        }
        for subject, (ttft, tpot) in subjects.items()
        for number in range(1, 6)
    ]  # fmt: skip
    models = {
        label: {"name": label, "hash": "abc", "bytes": 1e9, "synthetic": True, "device": "cpu"} for label in subjects
    }
    machine = {"cpu": "a CPU", "cpus": 2, "ram_bytes": 2**34, "gpus": []}
    return Record(
        {
            "created": "2026-01-01", "source": {"version": "0.1.0", "commit": "0" * 40, "dirty": False},
            "machine": machine, "packages": {}, "models": models, "cases": [CASE], "samples": samples,
            "settings": {"rounds": 5, "resident": True},
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("value", "deviation", "unit", "text"),
    [
        (307.2, 170.4, "ms", "307 ± 170 ms"),
        (86.31, 0.42, "s", "86.31 ± 0.42 s"),
        (0.0123, 0.0004, "s", "0.0123 ± 0.0004 s"),
        (12.3456, None, "s", "12.35 s"),
        (1234567.0, 89000.0, "B", "1234567 ± 89000 B"),
        (5.0, 0.0, "s", "5.000 ± 0.000 s"),
        (0.0, 0.0, "s", "0 ± 0 s"),
    ],
)
def test_numbers_are_written_as_people_write_them(value: float, deviation: float | None, unit: str, text: str) -> None:
    assert "e+" not in render_measure(value, deviation, unit)
    assert render_measure(value, deviation, unit) == text


def test_a_case_is_said_in_words() -> None:
    assert describe_case(CASE) == "1344 x 1344, 16 crops, 64 tokens"
    assert describe_case("336x336:1:8") == "336 x 336, 1 crop, 8 tokens"


def test_the_headline_says_how_much_sooner_and_faster() -> None:
    record = make_record(ours=(40.0, 0.1), torch=(80.0, 0.5), other=(20.0, 0.05))
    assert describe_headline(record) == (
        "1344 x 1344, 16 crops, 64 tokens: ours has its first token 2.00x sooner and decodes 5.00x faster than torch; "
        "2.00x later and decodes 2.00x slower than other."
    )
    assert describe_headline(make_record(ours=(40.0, 0.1))) == ""


def test_worse_ratios_are_marked() -> None:
    header, row = tabulate_ratios(make_record(ours=(40.0, 0.1), torch=(20.0, 0.5)))
    cells = dict(zip(header, row, strict=True))
    assert cells["TTFT"].endswith("(worse)")
    assert not cells["decode"].endswith("(worse)")


@needs_matplotlib
def test_worse_ratios_are_marked_on_the_page_too() -> None:
    assert "class='slower'" in render_html(make_record(ours=(40.0, 0.1), torch=(20.0, 0.5)))


def test_empty_tables_and_columns_are_left_out() -> None:
    alone = make_record(ours=(40.0, 0.1))
    assert "How many times faster" not in render_markdown(alone)
    assert "GPU memory" not in tabulate_times(alone)[0]
    assert "peak RSS" in tabulate_times(alone)[0]


@needs_matplotlib
def test_every_subject_has_a_colour_of_its_own() -> None:
    page = render_html(make_record(ours=(40.0, 0.1), torch=(20.0, 0.5)))
    assert {"#1f77b4", "#ff7f0e"} <= {colour for colour in ("#1f77b4", "#ff7f0e") if colour in page}
    assert "tokens a second" in page


def test_records_of_which_one_has_more_subjects_are_compared_in_what_they_share() -> None:
    both, one = make_record(ours=(40.0, 0.1), torch=(80.0, 0.5)), make_record(ours=(41.0, 0.1))
    assert {change.subject for change in compare(both, one)} == {"ours"}
    assert {change.subject for change in compare(one, both)} == {"ours"}


def test_records_that_share_nothing_are_not_compared() -> None:
    with pytest.raises(OptionError, match="no subject and case in common"):
        compare(make_record(ours=(40.0, 0.1)), make_record(torch=(80.0, 0.5)))
