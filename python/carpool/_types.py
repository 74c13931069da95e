"""Type variables and protocols of the public surface; knows nothing else of ours."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Literal, ParamSpec, Protocol, TypeVar, runtime_checkable

P = ParamSpec("P")  # the parameters of one call
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)  # the result of one call
A = TypeVar("A")  # item of a Batcher
B = TypeVar("B")  # result of a Batcher
A1 = TypeVar("A1")
A2 = TypeVar("A2")
A3 = TypeVar("A3")
A4 = TypeVar("A4")
A5 = TypeVar("A5")
S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)  # what a method is bound to
F_co = TypeVar("F_co", covariant=True)  # what a method becomes once bound
T = TypeVar("T")

Overflow = Literal["raise", "wait", "shed"]
OnError = Literal["raise", "isolate"]
Executor = Literal["thread", "loop", "caller"]
#: What the handler runs inside; the asynchronous kind is for `async def` handlers.
Entered = AbstractContextManager[object] | AbstractAsyncContextManager[object]
Reason = Literal["full", "wait", "cost", "idle", "gather", "flush", "close", "target"]


class Rows(Protocol[R_co]):
    """What a handler may return: something with a length and rows by number."""

    def __len__(self, /) -> int: ...
    def __getitem__(self, index: int, /) -> R_co: ...


@runtime_checkable
class Collate(Protocol):
    """What `collate=` takes: items into one batch, and what the handler made of it into rows again."""

    def collate(self, items: Sequence[Any], /) -> Any:
        """The batch that the handler gets of these items, one row each.

        An item that does not fit fails alone where this raises CollateError with an error for it in
        `misfits`; the others are collated again without it.
        """
        ...

    def split(self, output: Any, n: int, /, batch: Any = None) -> Sequence[Any]:
        """The `n` rows of what the handler returned for `batch`, in the order of the items.

        Raises:
            BatchLengthError: there are not as many.
        """
        ...
