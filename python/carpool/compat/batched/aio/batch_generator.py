"""What an `aio` processor makes of each item; programs subclass it to add attributes of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from carpool.compat.batched._features import length_of

if TYPE_CHECKING:
    import asyncio

__all__ = ["AsyncBatchItem"]

T = TypeVar("T")
U = TypeVar("U")


@dataclass(order=True)
class AsyncBatchItem(Generic[T, U]):
    """One item on its way.

    Args:
        content: the item.
        future: the caller's; answered through `set_result` and `set_exception`, on the caller's loop.
        priority: lower is more urgent; what items are compared by.
        _len_fn: what `max_batch_length` counts of the content; else its length.
    """

    content: T = field(compare=False)
    future: asyncio.Future[U] = field(compare=False)
    priority: int = 1
    _len_fn: Callable[[T], int] | None = field(default=None, compare=False)

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
