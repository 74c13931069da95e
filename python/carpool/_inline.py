"""The inline mode, in which each call runs its handler at once, in the thread of the caller: for debuggers.

It is on while `carpool.testing.inline()` is entered, and in a process that was started with CARPOOL_INLINE=1. A
station has an engine for either mode and changes over with it; `renew` has the functions ask theirs again.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol

from . import _core, _lifecycle

__all__ = ["enter", "is_on", "leave", "note"]


class Turns(Protocol):
    """What changes over with the mode."""

    def turn(self) -> None:
        """Changes over; called with the lock of `_lifecycle` held."""


_stations: weakref.WeakSet[Turns] = weakref.WeakSet()

#: How often it was entered; once by the environment.
_depth = int(os.environ.get("CARPOOL_INLINE", "") not in ("", "0"))


def is_on() -> bool:
    """Whether calls run their handlers in place."""
    return _depth > 0


def note(station: Turns) -> None:
    """Has `station` change over with the mode; call with the lock held."""
    _stations.add(station)


def enter() -> None:
    """Once more on."""
    _change(1)


def leave() -> None:
    """Once less."""
    _change(-1)


def _change(by: int) -> None:
    global _depth
    with _lifecycle.lock:
        before = is_on()
        _depth += by
        if before == is_on():
            return
        for station in list(_stations):
            station.turn()
        _core.renew()
