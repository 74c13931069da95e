"""What becomes of a batch whose handler failed: again after a pause, in halves, or not again.

A `Course` says which part is to be run next, and decides what follows from an error; who runs the handler (a
thread, an event loop, a caller) only carries that out. Time comes in through `now`, the batcher's own clock, and
`Pauses`, so that tests need none.
"""

from __future__ import annotations

import contextlib
import enum
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from carpool._watch import events

from . import faults
from .rows import rows

if TYPE_CHECKING:
    import asyncio

    from carpool._core import Batch
    from carpool._options import Options

    class Clock(Protocol):
        """What tells the time of a batcher."""

        def now(self) -> int: ...

    class Station(Protocol):
        """What a course asks its batcher."""

        name: str
        options: Options
        pauses: Pauses

        def engine(self) -> Clock: ...


__all__ = ["Course", "Pauses", "Verdict", "checked", "verdict"]

#: The longest pause before a batch is run again, in seconds.
LONGEST_PAUSE_S = 60.0

#: Of all pauses that last now: what ends each for a look at the clock.
_wakes: set[Callable[[], object]] = set()


class Verdict(enum.Enum):
    """What to do with a part whose run failed."""

    FAIL = enum.auto()
    """Its callers get the error."""
    FAIL_ALL = enum.auto()
    """So do those of all parts that are left: the handler was stopped, or can never run again."""
    HALVE = enum.auto()
    """Run its halves, each by itself."""
    AGAIN = enum.auto()
    """Run it again after a pause."""


def verdict(error: BaseException, size: int, tries: int, options: Options) -> Verdict:
    """What follows from `error`, raised by a run of `size` requests that have been tried again `tries` times."""
    if not isinstance(error, Exception) or faults.is_lost(error):
        return Verdict.FAIL_ALL
    halves = options.on_error == "isolate" and size > 1
    # More of the same would not fit the second time either.
    if halves and faults.is_out_of_memory(error):
        return Verdict.HALVE
    if tries < options.retries and issubclass(type(error), options.retry_on or ()):
        return Verdict.AGAIN
    return Verdict.HALVE if halves else Verdict.FAIL


def pause_after(tries: int, options: Options) -> float:
    """How long to wait, in seconds, before a part is run again that has been `tries` times already."""
    # Beyond so many doublings it is the longest in any case.
    return float(min(options.retry_ms / 1e3 * 2.0 ** min(tries, 60), LONGEST_PAUSE_S))


def checked(batch: Batch[Any, Any], results: Any, name: str) -> Any:
    """The rows of what a handler returned, as many as it saw.

    Raises:
        BatchLengthError: it has no rows, or not as many.
    """
    if type(results) is list and len(results) == batch.padded_size:
        return results
    return rows(results, batch.padded_size, name)


def now(station: Station) -> float:
    """The moment on the clock of a batcher, in seconds."""
    return station.engine().now() / 1e9


def clock_moved() -> None:
    """A test has moved the clock of all batchers: who pauses looks at it."""
    for wake in list(_wakes):
        wake()


class Pauses:
    """The pauses of one batcher; a close that lets nothing run any more cuts them short."""

    def __init__(self) -> None:
        self.cut = False
        # Changed by single steps of the interpreter, so no lock is left behind by a fork.
        self._wakes: set[Callable[[], object]] = set()

    def end(self) -> None:
        """Cuts short those of now and all later ones."""
        self.cut = True
        for wake in list(self._wakes):
            wake()

    def sleep(self, seconds: float) -> None:
        """Blocks this thread; perhaps for less: look at the clock again."""
        over = threading.Event()
        with self._waking(over.set):
            if not self.cut:
                over.wait(seconds)

    @contextlib.contextmanager
    def _waking(self, wake: Callable[[], object]) -> Iterator[None]:
        self._wakes.add(wake)
        _wakes.add(wake)
        try:
            yield
        finally:
            self._wakes.discard(wake)
            _wakes.discard(wake)

    async def asleep(self, seconds: float) -> None:
        """The same for a task, whose event loop goes on."""
        import asyncio

        event_loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = event_loop.create_future()

        def finish() -> None:
            if not over.done():
                over.set_result(None)

        def wake() -> None:
            # A loop that is closed waits no more.
            try:
                event_loop.call_soon_threadsafe(finish)
            except RuntimeError:
                pass

        timer = event_loop.call_later(seconds, finish)
        try:
            with self._waking(wake):
                if not self.cut:
                    await over
        finally:
            timer.cancel()


class _Part:
    __slots__ = ("batch", "due", "error", "first", "tries")

    def __init__(self, batch: Batch[Any, Any], tries: int, first: bool = False) -> None:
        self.batch = batch
        #: How often it, or what it was split from, has been run again for an error of `retry_on`.
        self.tries = tries
        #: It has not been run, nor was it split from what was.
        self.first = first
        #: When it may run, and what it fails with if it never does.
        self.due = 0.0
        self.error: BaseException | None = None


class Course:
    """One batch on its way through runs, halves and pauses."""

    def __init__(self, batch: Batch[Any, Any], station: Station) -> None:
        self._parts: list[_Part] = [_Part(batch, 0, first=True)]
        self._station = station
        #: The most requests that fit the memory, once that is known.
        self._most: int | None = None

    @property
    def over(self) -> bool:
        """Whether every request has its answer."""
        return not self._parts

    def pause(self) -> float:
        """How many seconds to wait before `following`; ask again then. 0: none."""
        if not self._parts or (part := self._parts[-1]).error is None:
            return 0.0
        left = part.due - now(self._station)
        if left <= 0:
            return 0.0
        if self._station.pauses.cut:
            self._parts.pop()
            _fail(part.batch, part.error)
            return self.pause()
        # Who is overdue meanwhile learns of it then.
        overdue = part.batch._leave_out()
        if part.batch.done:
            self._parts.pop()
            return self.pause()
        return left if overdue is None else max(min(left, overdue), 1e-6)

    def following(self) -> Batch[Any, Any] | None:
        """The part to run next, as large as fits; None when all is over."""
        while self._parts:
            part = self._parts[-1]
            part.error = None
            if not part.first:
                # Cancelled or overdue since it was sealed: not worth another run.
                part.batch._leave_out()
            if part.batch.done:
                self._parts.pop()
            elif self._most is not None and len(part.batch) > self._most:
                self._halve(part)
            else:
                return part.batch
        return None

    def answered(self, results: Any) -> None:
        """The part that is run next has been, with these rows.

        Raises:
            KeyboardInterrupt: it came meanwhile; the callers have their answers.
        """
        batch = self._parts.pop().batch
        try:
            batch.complete(results)
        except KeyboardInterrupt:
            raise
        except BaseException:
            # Its callers have had another answer: that it was abandoned.
            pass

    def failed(self, error: BaseException) -> None:
        """The part that is run next has been, and failed."""
        part = self._parts[-1]
        part.first = False
        options = self._station.options
        size = len(part.batch)
        match verdict(error, size, part.tries, options):
            case Verdict.FAIL:
                self._parts.pop()
                if faults.is_out_of_memory(error):
                    # Whoever keeps it must not keep the memory.
                    _free(error)
                _fail(part.batch, error)
            case Verdict.FAIL_ALL:
                self.give_up(error)
                if isinstance(error, Exception):
                    # Dead by now. Batches in other slots are not to be tried again either.
                    self._station.pauses.end()
            case Verdict.AGAIN:
                _free(error)
                part.error = error
                part.due = now(self._station) + pause_after(part.tries, options)
                part.tries += 1
            case Verdict.HALVE:
                if faults.is_out_of_memory(error):
                    self._most = (size + 1) // 2
                    events.out_of_memory(self._station.name, size, *part.batch._was_too_large())
                _free(error)
                self._halve(part)

    def give_up(self, error: BaseException) -> None:
        """Fails all that is left."""
        parts, self._parts = self._parts, []
        for part in parts:
            _fail(part.batch, error)

    def _halve(self, part: _Part) -> None:
        rest = _Part(part.batch._split((len(part.batch) + 1) // 2), part.tries)
        # The earlier half goes first.
        self._parts.insert(len(self._parts) - 1, rest)


def _fail(batch: Batch[Any, Any], error: BaseException) -> None:
    # One that runs on a loop that stopped may have been abandoned meanwhile.
    if not batch.done:
        batch._failed(error)


def _free(error: BaseException) -> None:
    """Lets go of what the frames of a run held that is over: tensors, most of all.

    The error itself may live on, in a cycle of its own or in somebody's hands.
    """
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        traceback.clear_frames(_TRACEBACK.__get__(one))
        one = _CAUSE.__get__(one) or _CONTEXT.__get__(one)


#: Of the exception itself, whatever its class makes of these names.
_vars: Any = vars(BaseException)
_TRACEBACK, _CAUSE, _CONTEXT = (_vars[f"__{name}__"] for name in ("traceback", "cause", "context"))
