"""Numbers in words."""

from __future__ import annotations

from carpool._watch.stats import Histogram


def count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def percent(share: float) -> str:
    percent = share * 100
    if 0 < percent < 1:
        return "less than 1 %"
    # Not all of it, where a little is missing.
    return f"{min(percent, 99) if share < 1 else 100:.0f} %"


def number(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


ms = number


def spread(times: Histogram) -> str:
    return f"{ms(times.p50)} ms at the median and {ms(times.p99)} ms at the 99th percentile"
