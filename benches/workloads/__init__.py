"""What the contenders are measured with: one file per workload, named in the tables by its number."""

from __future__ import annotations

from .alone import ALONE
from .arrivals import ARRIVALS
from .awaiting import OFF_LOOP, ON_LOOP
from .blocking import BLOCKING
from .memory import MEMORY
from .workload import Cell, Order, Table, Workload

ALL: dict[str, Workload] = {
    workload.name: workload for workload in (ON_LOOP, OFF_LOOP, BLOCKING, ARRIVALS, ALONE, MEMORY)
}

__all__ = ["ALL", "Cell", "Order", "Table", "Workload"]
