"""What an `aio` processor makes of each item; programs subclass it to add attributes of their own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from carpool.compat.batched._features import length_of

if TYPE_CHECKING:
    import asyncio

__all__ = ["AsyncBatchItem"]

T = TypeVar("T")
U = TypeVar("U")


@functools.total_ordering
class AsyncBatchItem(Generic[T, U]):
    """One item on its way.

    Args:
        content: the item.
        future: the caller's; answered through `set_result` and `set_exception`, on the caller's loop.
        priority: lower is more urgent.
        _len_fn: what `max_batch_length` counts of the content; else its length.
    """

    def __init__(
        self,
        content: T,
        future: asyncio.Future[U],
        priority: int = 1,
        _len_fn: Callable[[T], int] | None = None,
    ) -> None:
        self.content = content
        self.future = future
        self.priority = priority
        self._len_fn = _len_fn

    def set_result(self, result: U) -> None:
        """Answers with a result, unless it is answered."""
        if not self.future.done():
            self.future.set_result(result)

    def set_exception(self, exception: Exception) -> None:
        """Answers with an error, unless it is answered."""
        if not self.future.done():
            self.future.set_exception(exception)

    def done(self) -> bool:
        """Whether it is answered."""
        return self.future.done()

    def __len__(self) -> int:
        return (self._len_fn or length_of)(self.content)

    def __bool__(self) -> bool:
        # An item of length 0 is one all the same.
        return True

    def __lt__(self, other: AsyncBatchItem[Any, Any]) -> bool:
        return self.priority < other.priority

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AsyncBatchItem) and self.priority == other.priority

    __hash__ = None  # type: ignore[assignment]  # compared by priority, as it always was
