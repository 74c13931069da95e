"""Dynamic batching: many single calls become few batched calls.

```python
from carpool import batched

@batched(max_batch_size=32, wait_ms=2)
def embed(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]

assert embed("a ride") == 6
```
"""

from ._batcher import Batcher
from ._core import Batch, CurrentBatch, CurrentRequest, __version__, current_batch
from ._decorator import batched
from ._exceptions import (
    AlreadyAnswered,
    BatchAbandoned,
    BatcherClosed,
    BatcherDead,
    BatchLengthError,
    CarpoolError,
    CollateError,
    DeadlineExceeded,
    HandlerError,
    QueueFull,
    RequestShed,
    RequestTooLarge,
    SetupError,
    StreamStalled,
    TooLate,
    WouldDeadlock,
)
from ._function import AsyncBatchedFunction, BatchedFunction
from ._many.progress import Progress
from ._streams.function import AsyncStreamedFunction, StreamedFunction
from ._streams.readers import AsyncStream, Stream
from ._streams.stop import STOP
from ._submit.future import Future
from ._watch.stats import Histogram, Stats
from ._watch.timing import Timing, Trace

__all__ = [
    "STOP",
    "AlreadyAnswered",
    "AsyncBatchedFunction",
    "AsyncStream",
    "AsyncStreamedFunction",
    "Batch",
    "BatchAbandoned",
    "BatchLengthError",
    "BatchedFunction",
    "Batcher",
    "BatcherClosed",
    "BatcherDead",
    "CarpoolError",
    "CollateError",
    "CurrentBatch",
    "CurrentRequest",
    "DeadlineExceeded",
    "Future",
    "HandlerError",
    "Histogram",
    "Progress",
    "QueueFull",
    "RequestShed",
    "RequestTooLarge",
    "SetupError",
    "Stats",
    "Stream",
    "StreamStalled",
    "StreamedFunction",
    "Timing",
    "TooLate",
    "Trace",
    "WouldDeadlock",
    "__version__",
    "batched",
    "current_batch",
]
