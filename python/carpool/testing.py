"""For tests of code that batches: a clock that the test moves, gates that hold handlers, calls that run in place.

```python
from carpool import batched
from carpool.testing import Gate, ManualClock, inline

@batched(wait_ms=50)
def double(numbers: list[int]) -> list[int]:
    return [2 * number for number in numbers]

with ManualClock() as clock:
    future = double.submit(21)
    clock.advance(ms=49)
    assert double.stats.pending == 1        # held for company, however slow the test is
    clock.advance(ms=1)
    assert future.result(timeout=5) == 42
```
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from . import _core, _inline, _lifecycle
from ._handler import recovery

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["Gate", "ManualClock", "inline"]

#: After how many seconds a gate gives up, unless it is said otherwise.
PATIENCE_S = 60.0


class ManualClock:
    """While it is entered, time stands still for all batchers of the process, but for what the test adds.

    It drives what the batchers decide by time: `wait_ms`, `timeout_ms`, `age_ms`, the pauses before `retries`,
    what is learned of run times, `slow_ms`. How long a caller itself waits (`future.result(timeout=5)`, `close(timeout=5)`,
    `next_batch(timeout=5)`) stays real: that is for when something goes wrong.

    When it is left, what is pending leaves without waiting longer, and time runs on. It never goes back: from then on
    moments of this process (`Timing`, deadlines) are ahead of `time.monotonic()` by as much as it was advanced further
    than time went by.

    Raises:
        RuntimeError: entered while another is.
    """

    def __enter__(self) -> Self:
        _core.stop_clock()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _core.run_clock()
        _tell(runs=True)

    def advance(self, ms: float = 0.0, *, seconds: float = 0.0) -> None:
        """Moves time on; from any thread, a handler's too. Whatever became due is seen to: batches leave as soon
        as their workers get the processor, requests whose time is over have failed.

        Raises:
            TypeError, ValueError: it is no number from 0.
            RuntimeError: it is not entered.
        """
        nanos = _nanos("ms", ms, 1e6) + _nanos("seconds", seconds, 1e9)
        _core.move_clock(nanos)
        _tell(runs=False)

    @property
    def now(self) -> float:
        """The moment at which it stands, in seconds; comparable with those of `Timing`.

        Raises:
            RuntimeError: it is not entered.
        """
        return _core.move_clock(0)


def _tell(*, runs: bool) -> None:
    with _lifecycle.lock:
        engines = _lifecycle.engines()
    for engine in engines:
        engine._clock_moved(runs)
    recovery.clock_moved()


def _nanos(name: str, value: float, unit: float) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {value!r} ({type(value).__name__})")
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be a finite number from 0, not {value!r}")
    return round(value * unit)


@contextlib.contextmanager
def inline() -> Iterator[None]:
    """While it is entered, each call runs its handler at once in the caller's own thread, with a batch of one: so that
    a debugger stops in the handler with the caller on the stack, and an exception has one trace.

    For all decorated functions of the process; a `Batcher` with a loop of its own stays as it is. `submit`, `acall` and
    `map` have run the handler when they return; an `async def` handler runs on the caller's event loop, a batch per
    call; a streaming one goes on whenever its reader asks for a step. Costs, keys, limits and errors are as ever; nothing waits for company, and slots are not counted.
    CARPOOL_INLINE=1 in the environment does the same from the start of the process.
    """
    _inline.enter()
    try:
        yield
    finally:
        _inline.leave()


class Gate:
    """Holds handlers until the test lets them go.

    The handler says `gate.hold()`, or `await gate.ahold()`. The test waits until it stands there (`entered`), does
    what it wants to see done meanwhile, and lets it go (`release`, or `open` for all that come). Used in a
    `with`, it is open afterwards, so that no worker is left behind.

    Args:
        patience: after so many seconds every wait at it, of the handler or of the test, is a TimeoutError.
    """

    def __init__(self, patience: float = PATIENCE_S) -> None:
        self._patience = patience
        self._changed = threading.Condition()
        self._came = 0
        self._passes = 0
        self._gone = 0
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    @property
    def came(self) -> int:
        """How often a handler has come to it."""
        return self._came

    @property
    def held(self) -> int:
        """How many handlers stand at it now."""
        with self._changed:
            return self._came - self._gone

    def hold(self) -> None:
        """In a handler: waits until the test lets it go. Handlers go in the order in which they came."""
        number = self._come()
        try:
            self._wait(lambda: self._passes >= number, "a handler was not let go")
        finally:
            self._go()

    async def ahold(self) -> None:
        """`hold` for `async def` handlers."""
        number = self._come()
        try:
            await self._await(lambda: self._passes >= number, "a handler was not let go")
        finally:
            self._go()

    def entered(self, count: int = 1) -> None:
        """Waits until handlers have come to it so often, in all."""
        self._wait(lambda: self._came >= count, f"a handler came {{came}} times, not {count}")

    async def aentered(self, count: int = 1) -> None:
        """`entered` for coroutines."""
        what = f"a handler came {{came}} times, not {count}"
        await self._await(lambda: self._came >= count, what)

    def release(self, count: int = 1) -> None:
        """Lets so many more go."""
        with self._changed:
            self._passes += count
            self._announce()

    def open(self) -> None:
        """Lets all go, now and from now on."""
        self.release(10**9)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.open()

    def _come(self) -> int:
        with self._changed:
            self._came += 1
            self._announce()
            return self._came

    def _go(self) -> None:
        with self._changed:
            self._gone += 1
            self._announce()

    def _announce(self) -> None:
        self._changed.notify_all()
        waiters, self._waiters = self._waiters, []
        for event_loop, future in waiters:
            try:
                event_loop.call_soon_threadsafe(_finish, future)
            except RuntimeError:
                # That loop is closed: whoever waited there is gone.
                pass

    def _wait(self, done: Callable[[], bool], otherwise: str) -> None:
        with self._changed:
            if not self._changed.wait_for(done, self._patience):
                raise self._in_vain(otherwise)

    async def _await(self, done: Callable[[], bool], otherwise: str) -> None:
        event_loop = asyncio.get_running_loop()
        while True:
            with self._changed:
                if done():
                    return
                future = event_loop.create_future()
                self._waiters.append((event_loop, future))
            try:
                await asyncio.wait_for(future, self._patience)
            except asyncio.TimeoutError:
                raise self._in_vain(otherwise) from None

    def _in_vain(self, otherwise: str) -> TimeoutError:
        text = otherwise.format(came=self._came)
        return TimeoutError(f"{text} within {self._patience:g} s")


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
