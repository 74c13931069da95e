"""What `prices.py` counts runs under each row's options, and each caller gets its own answer."""

from __future__ import annotations

import pytest

import prices


@pytest.mark.parametrize("name", [*prices.OPTIONS, prices.PRIORITY, prices.ALL])
def test_a_row_runs(name: str) -> None:
    prices.run(name, callers=128, requests=512)


def test_the_last_row_has_all_of_the_others() -> None:
    for given in prices.OPTIONS.values():
        assert given.keys() <= prices.TOGETHER.keys()


def test_the_table_says_what_each_adds() -> None:
    table = prices.table({"none": 5000.0, "`key`": 6250.0})
    assert table.splitlines()[2:] == ["| none | 5 000 |  |", "| `key` | 6 250 | +25.0 % |"]
