"""What counts as worse: tables and properties of the pure functions in `baseline.py`."""

from __future__ import annotations

import random

import pytest

from baseline import Figure, Line, compare, foreign, judge, read, table, written


def count(value: float, noise: float = 0.0) -> Figure:
    return Figure("instructions", value, noise)


def ratio(value: float, noise: float = 0.0) -> Figure:
    return Figure("ratio", value, noise)


@pytest.mark.parametrize(
    ("stored", "now", "verdict"),
    [
        (count(1000), count(1000), "same"),
        (count(1000), count(1009), "same"),
        (count(1000), count(1011), "worse"),
        (count(1000), count(985), "better"),
        (count(1000, 0.02), count(1030), "same"),
        (count(1000), count(1030, 0.02), "same"),
        (count(1000, 0.02), count(1050), "worse"),
        (ratio(0.50), ratio(0.52), "same"),
        (ratio(0.50), ratio(0.53), "worse"),
        (ratio(0.50), ratio(0.45), "better"),
        (ratio(0.50), ratio(0.65, 0.2), "same"),
        (ratio(0.50, 0.5), ratio(0.26), "same"),
        (ratio(0.50, 0.5), ratio(0.24), "better"),
    ],
)
def test_worse_only_beyond_the_noise_of_either(stored: Figure, now: Figure, verdict: str) -> None:
    assert judge(stored, now) == verdict


@pytest.mark.parametrize("seed", range(200))
def test_what_is_worse_one_way_is_better_the_other(seed: int) -> None:
    rng = random.Random(seed)
    first, second = (
        ratio(rng.uniform(0.1, 2), rng.choice([0, 0, rng.uniform(0, 0.5)])) for _ in range(2)
    )
    opposite = {"worse": "better", "better": "worse", "same": "same"}
    assert judge(first, second) == opposite[judge(second, first)]


def test_counts_of_another_place_are_not_compared_but_ratios_are() -> None:
    stored = {"await": count(1000), "await / hand": ratio(0.5)}
    now = {"await": count(9000), "await / hand": ratio(0.9)}
    verdicts = {line.name: line.verdict for line in compare(stored, now, counts_hold=False)}
    assert verdicts == {"await": "not compared", "await / hand": "worse"}


def test_figures_of_one_side_alone_are_named() -> None:
    lines = compare({"old": count(1)}, {"young": ratio(2)}, counts_hold=True)
    assert [(line.name, line.verdict) for line in lines] == [("old", "gone"), ("young", "new")]
    assert "gone" in table(lines)


def test_a_foreign_place_is_told_in_words() -> None:
    stored = {"python": "3.11", "arch": "x86_64", "counter": "callgrind", "cpu": "one"}
    assert foreign(stored, {**stored, "cpu": "another"}) == []
    assert foreign(stored, {**stored, "python": "3.13"}) == ["python: stored 3.11, here 3.13"]
    assert foreign({}, stored)[0] == "python: stored None, here 3.11"


def test_what_is_written_reads_back() -> None:
    now = {"await": count(6000.12344, 0.001), "await / hand": ratio(0.5, 0.02)}
    kept = written({"python": "3.11"}, now)
    assert kept["holds_for"] == {"python": "3.11"}
    assert read(kept) == {"await": count(6000.1234, 0.001), "await / hand": ratio(0.5, 0.02)}


def test_median_and_noise_come_from_the_repeats() -> None:
    assert Figure.of("ratio", [1.0, 2.0, 3.0]) == ratio(2.0, 0.5)
    assert Figure.of("instructions", [700.0]) == count(700.0, 0.0)


def test_the_table_shouts_what_got_worse() -> None:
    lines = [
        Line("await", count(1000), count(1100), 0.01, "worse"),
        Line("core", count(675), count(670), 0.01, "same"),
    ]
    shown = table(lines).splitlines()
    assert "WORSE" in shown[2]
    assert "+10.0 %" in shown[2]
    assert "-0.7 %" in shown[3]
