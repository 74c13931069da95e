"""What settings may be, by the names that callers know them by."""

from __future__ import annotations

from typing import Any

__all__ = ["ON_ERROR", "at_least_one", "known", "milliseconds"]

#: What becomes of a batch that fails.
ON_ERROR = ("raise", "isolate")

#: The longest wait, in seconds.
LONGEST_S = 864_000


def at_least_one(name: str, value: Any) -> int:
    """
    Raises:
        TypeError: it is no int.
        ValueError: it is less than 1.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value!r}")
    return value


def milliseconds(name: str, seconds: Any) -> float:
    """Seconds in milliseconds.

    Raises:
        TypeError: it is no number.
        ValueError: it is less than 0, or more than ten days.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {seconds!r}")
    if not 0 <= seconds <= LONGEST_S:
        raise ValueError(f"{name} must be from 0 to {LONGEST_S} seconds, not {seconds!r}")
    return seconds * 1000


def known(name: str, value: Any, among: tuple[str, ...]) -> str:
    """
    Raises:
        ValueError: it is none of these.
    """
    if value not in among:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, among))}, not {value!r}")
    return str(value)
