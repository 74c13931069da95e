"""The options of a batcher: their defaults, and what each may be."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

__all__ = ["Options"]

#: Longest `wait_ms` (ten days) and largest counts: far beyond use, well inside 64 bits.
LONGEST_WAIT_MS = 864_000_000.0
LARGEST_COUNT = 2**48

OVERFLOWS = ("raise", "wait")
EXECUTORS = ("thread", "loop", "caller")


@dataclass(frozen=True)
class Options:
    """Checked options. What a `Batcher` does not take stays at its default.

    Raises:
        TypeError: an option is of the wrong type.
        ValueError: an option is out of range.
    """

    max_batch_size: int = 32
    wait_ms: float = 0
    max_queue: int = 10_000
    overflow: str = "raise"
    max_concurrent_batches: int = 1
    executor: str | None = None
    gather: bool = True
    setup: Callable[[], object] | None = None
    context: Callable[[], Any] | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        _count("max_batch_size", self.max_batch_size)
        _count("max_queue", self.max_queue)
        _count("max_concurrent_batches", self.max_concurrent_batches)
        _milliseconds("wait_ms", self.wait_ms)
        _choice("overflow", self.overflow, OVERFLOWS)
        if self.executor is not None:
            _choice("executor", self.executor, EXECUTORS)
        _switch("gather", self.gather)
        _callable("setup", self.setup)
        _callable("context", self.context)
        if self.name is not None and not isinstance(self.name, str):
            raise TypeError(f"name must be a str or None, not {_shown(self.name)}")

    @property
    def wait_ns(self) -> int:
        """`wait_ms` in nanoseconds."""
        return round(self.wait_ms * 1e6)

    def given(self) -> dict[str, Any]:
        """The options that differ from their defaults, by name."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }


def refuse_unknown(what: str, unknown: dict[str, Any], known: tuple[str, ...]) -> None:
    """TypeError that names the first unknown option and the closest known one."""
    for name in unknown:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
        raise TypeError(f"{what} has no option {name!r}: {hint}")


def timeout_ns(name: str, seconds: float | None) -> int | None:
    """A time limit in nanoseconds; None for no limit.

    Raises:
        TypeError: it is no number.
        ValueError: it is negative or no finite number.
    """
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"{name} must be a number of seconds or None, not {_shown(seconds)}")
    if math.isinf(seconds) and seconds > 0:
        return None
    if math.isnan(seconds) or seconds < 0:
        raise ValueError(f"{name} must be 0 or more seconds, not {seconds!r}")
    return min(round(seconds * 1e9), 2**62)


def max_size(value: int | None) -> int | None:
    """The `max_size` of one pull: None or a positive int.

    Raises:
        TypeError: it is no int.
        ValueError: it is not positive.
    """
    if value is not None:
        _count("max_size", value)
    return value


def _count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {_shown(value)}")
    if not 1 <= value <= LARGEST_COUNT:
        raise ValueError(f"{name} must be at least 1 (and at most {LARGEST_COUNT}), not {value}")


def _milliseconds(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of milliseconds, not {_shown(value)}")
    if not 0 <= value <= LONGEST_WAIT_MS:
        raise ValueError(
            f"{name} must be from 0 to {LONGEST_WAIT_MS:.0f} milliseconds, not {value!r}"
        )


def _choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    listed = ", ".join(repr(one) for one in allowed)
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {listed}, not {_shown(value)}")
    if value not in allowed:
        raise ValueError(f"{name} must be one of {listed}, not {value!r}")


def _switch(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {_shown(value)}")


def _callable(name: str, value: object) -> None:
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be callable without arguments, or None, not {_shown(value)}")


def _shown(value: object) -> str:
    return f"{value!r} ({type(value).__name__})"
