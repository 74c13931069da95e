"""`batched.aio`: the same for coroutines, with `def` and `async def` handlers, caches and strategies."""

from . import inference
from ._processor import AsyncBatchProcessor, dynamically
from .batch_generator import AsyncBatchItem

__all__ = ["AsyncBatchItem", "AsyncBatchProcessor", "dynamically", "inference"]
