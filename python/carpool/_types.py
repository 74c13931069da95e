"""Type variables and protocols of the public surface; knows nothing else of ours."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    from typing_extensions import ParamSpec
else:
    from typing import ParamSpec

P = ParamSpec("P")  # the parameters of one call
Q = ParamSpec("Q")
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

Overflow = Literal["raise", "wait"]
Executor = Literal["thread", "loop", "caller"]
Reason = Literal["full", "wait", "cost", "idle", "gather", "flush", "close"]


class Rows(Protocol[R_co]):
    """What a handler may return: something with a length and rows by number."""

    def __len__(self, /) -> int: ...
    def __getitem__(self, index: int, /) -> R_co: ...


if TYPE_CHECKING:

    class Answer(Coroutine[Any, Any, R_co]):
        """What `acall` gives: await it, make a task of it, cancel it. (The real class is the core's; its stub may replace this.)"""

        def done(self) -> bool: ...
        def cancelled(self) -> bool: ...
        def cancel(self, msg: object = None) -> bool: ...
        def __await__(self) -> Generator[Any, Any, R_co]: ...
        def send(self, value: Any, /) -> Any: ...
        def throw(self, typ: Any, val: Any = None, tb: Any = None, /) -> Any: ...
        def close(self) -> None: ...
