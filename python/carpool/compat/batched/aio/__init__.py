"""`batched.aio`: the same for coroutines, with `def` and `async def` handlers, caches and strategies."""

from . import inference
from ._item import AsyncBatchItem
from ._processor import AsyncBatchProcessor, dynamically

__all__ = ["AsyncBatchItem", "AsyncBatchProcessor", "dynamically", "inference"]
