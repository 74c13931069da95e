"""The way of a batch to a device and back: staged, copied, computed, copied back, each on a lane of its own.

A batcher does this with `device=`; what is here knows no batcher. Three lanes (CUDA streams) run beside each other:
"up" copies batches to the device, "run" computes, "down" copies answers back. Marks (events) order them, so
that no thread waits for the device but the one that delivers, and that one without the interpreter.

`lanes_of("cuda:0")` are those of a GPU, `lanes_of("cpu")` do everything at once, in main memory.
"""

from ._arrivals import Arrived, arrived, plain
from ._lanes import Lanes, Mark, lanes_of
from ._pace import Pace
from ._ring import Ring

__all__ = ["Arrived", "Lanes", "Mark", "Pace", "Ring", "arrived", "lanes_of", "plain"]
