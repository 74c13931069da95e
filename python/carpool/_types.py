"""Type variables and protocols of the public surface; knows nothing else of ours."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Literal, ParamSpec, Protocol, TypeVar

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
Executor = Literal["thread", "loop", "caller"]
#: What the handler runs inside; the asynchronous kind is for `async def` handlers.
Entered = AbstractContextManager[object] | AbstractAsyncContextManager[object]
Reason = Literal["full", "wait", "cost", "idle", "gather", "flush", "close"]


class Rows(Protocol[R_co]):
    """What a handler may return: something with a length and rows by number."""

    def __len__(self, /) -> int: ...
    def __getitem__(self, index: int, /) -> R_co: ...
