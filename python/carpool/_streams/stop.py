"""What stands in a step in the place of a row that is finished."""

from __future__ import annotations

from typing import final

__all__ = ["STOP", "Stop"]


@final
class Stop:
    """The type of `STOP`, its only instance."""

    _only: Stop | None = None

    def __new__(cls) -> Stop:
        if cls._only is None:
            cls._only = super().__new__(cls)
        return cls._only

    def __repr__(self) -> str:
        return "carpool.STOP"

    def __reduce__(self) -> str:
        return "STOP"


#: In a step of a streaming handler: the row in this place is finished.
STOP = Stop()
