"""Running a streaming handler: a generator that yields a list per step, a row of it for each request.

Between two steps it waits for readers whose buffers are full, so the slowest reader sets the pace; one that stays
behind for `stall_ms` fails alone. Once nobody reads any more the generator is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from asyncio import wait
from collections.abc import AsyncGenerator, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from carpool._core import Giver, Port, running
from carpool._exceptions import AlreadyAnswered, StreamStalled
from carpool._handler.worker import Handler, fail
from carpool._watch import events

if TYPE_CHECKING:
    from carpool._core import Batch, Engine
    from carpool._handler.worker import Desk
    from carpool._station import Station
    from carpool._submit.binding import Binding

__all__ = ["StreamingHandler", "Turn"]


class Turn(NamedTuple):
    """A batch with what belongs to it."""

    batch: Batch[Any, Any]
    engine: Engine
    binding: Binding
    bound: tuple[Any, ...]


class StreamingHandler(Handler):
    """The user's generator function with all that belongs to running it."""

    def __init__(self, function: Any, station: Station, *, is_async: bool) -> None:
        super().__init__(function, station, is_async=is_async)
        self.bare = None

    @property
    def stall_s(self) -> float | None:
        """How long a reader may stay behind, in seconds; it may change while this runs."""
        stall_ms = self.station.options.stall_ms
        return None if stall_ms is None else stall_ms / 1e3

    # ------------------------------------------------------------------------------ threads

    def run(
        self,
        batch: Batch[Any, Any],
        engine: Engine,
        binding: Binding,
        bound: tuple[Any, ...],
        desk: Desk,
    ) -> None:
        """Runs a batch to its end in this thread. Only KeyboardInterrupt is raised, after the callers have
        been told."""
        if not self._ready(batch, engine, desk):
            return
        positional, by_name = binding.lists(batch.items)
        go = self._go_async if self.is_async else self._go
        try:
            desk.context.copy().run(go, batch, (*bound, *positional), by_name, desk)
        except BaseException as error:
            self._failed(batch, error)
            if isinstance(error, KeyboardInterrupt):
                raise

    def _go(
        self, batch: Batch[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any], desk: Desk
    ) -> None:
        running.set(batch._run)
        with contextlib.nullcontext() if self.context is None else self.context():
            self._take(batch, self.function(*args, **kwargs))
        # Also where the context has swallowed an error: what was given stands.
        Giver(batch).finish()

    def _take(self, batch: Batch[Any, Any], generator: Generator[Any, Any, Any]) -> None:
        giver = Giver(batch)
        try:
            for rows in generator:
                self._give(batch, giver, rows)
                if not giver.sweep():
                    break
        finally:
            generator.close()

    def _give(self, batch: Batch[Any, Any], giver: Giver, rows: Any) -> None:
        late = giver.step(rows)
        end = self._end_of_patience() if late else None
        for place, step in late:
            self._hold(batch, giver, place, step, end)

    def _end_of_patience(self) -> float | None:
        """Until when those wait for room who had none for a step: all of them at the same time."""
        stall_s = self.stall_s
        return None if stall_s is None else time.monotonic() + stall_s

    def _hold(
        self, batch: Batch[Any, Any], giver: Giver, place: int, step: Any, end: float | None
    ) -> None:
        """Waits until a reader has room for its step, or it is `end`."""
        while not giver.give(place, step):
            rest = None if end is None else max(0, round((end - time.monotonic()) * 1e9))
            if not giver.wait_room(place, rest):
                self._stalled(batch, place)
                return

    def in_turns(self, turn: Turn) -> Generator[None, None, None]:
        """Runs a batch for whoever reads it: a turn per step. Only KeyboardInterrupt is raised, after the callers
        have been told."""
        batch = turn.batch
        try:
            if not self._ready(batch, turn.engine, self.desk):
                return
            positional, by_name = turn.binding.lists(batch.items)
            running.set(batch._run)
            with contextlib.nullcontext() if self.context is None else self.context():
                generator = self.function(*turn.bound, *positional, **by_name)
                giver = Giver(batch)
                try:
                    for rows in generator:
                        self._give(batch, giver, rows)
                        if not giver.sweep():
                            break
                        yield
                finally:
                    generator.close()
            Giver(batch).finish()
        except GeneratorExit:
            # Given up by its reader.
            raise
        except BaseException as error:
            self._failed(batch, error)
            if isinstance(error, KeyboardInterrupt):
                raise

    def _go_async(
        self, batch: Batch[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any], desk: Desk
    ) -> None:
        running.set(batch._run)
        error = desk.run(self._outcome_of_stream(batch, args, kwargs))
        try:
            if error is not None:
                raise error
        finally:
            # Its trace leads here: together they would keep the batch.
            del error

    async def _outcome_of_stream(
        self, batch: Batch[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> BaseException | None:
        # Raised out of a task, some exceptions end the loop and others lose what they carry.
        try:
            await self._stream(batch, args, kwargs)
        except BaseException as error:
            return error
        return None

    # -------------------------------------------------------------------------------- loops

    def run_on_loop(
        self,
        batch: Batch[Any, Any],
        engine: Engine,
        binding: Binding,
        bound: tuple[Any, ...],
        event_loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Runs a batch on the running event loop, as a task of its own."""
        # Raised further, a KeyboardInterrupt would tear down the loop of all other callers.
        with contextlib.suppress(KeyboardInterrupt):
            if not self._ready(batch, engine, self.desk):
                return
            positional, by_name = binding.lists(batch.items)
            context = self.desk.context.copy()
            context.run(running.set, batch._run)
            coroutine = self._answer_stream(batch, (*bound, *positional), by_name)
            # The loop holds its tasks weakly.
            task = context.run(event_loop.create_task, coroutine)
            if not task.done():
                self.tasks[id(batch)] = task

    async def _answer_stream(
        self, batch: Batch[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        try:
            await self._stream(batch, args, kwargs)
        except BaseException as error:
            self._failed(batch, error)
        finally:
            self.tasks.pop(id(batch), None)

    async def _stream(
        self, batch: Batch[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        entered: Any = contextlib.nullcontext() if self.context is None else self.context()
        if hasattr(entered, "__aenter__"):
            async with entered:
                await self._atake(batch, self.function(*args, **kwargs))
        else:
            with entered:
                await self._atake(batch, self.function(*args, **kwargs))
        Giver(batch).finish()

    async def _atake(self, batch: Batch[Any, Any], generator: Any) -> None:
        giver = Giver(batch)
        steps: AsyncGenerator[Any, Any] = generator if self.is_async else _turning(generator)
        try:
            with Watched(giver) as watched:
                while (rows := await watched.next(steps)) is not OVER:
                    late = giver.step(rows)
                    end = self._end_of_patience() if late else None
                    for place, step in late:
                        await self._ahold(batch, giver, place, step, end)
                    if not giver.sweep():
                        break
        finally:
            await steps.aclose()

    async def _ahold(
        self, batch: Batch[Any, Any], giver: Giver, place: int, step: Any, end: float | None
    ) -> None:
        event_loop = asyncio.get_running_loop()
        port = Port.here()
        assert port is not None, "inside a running loop"
        while not giver.give(place, step):
            room = event_loop.create_future()
            come = partial(port.post, partial(_resolve, room))
            if not giver.poll_room(place, come):
                rest = None if end is None else end - time.monotonic()
                if rest is not None and rest <= 0:
                    self._stalled(batch, place)
                    return
                await wait([room], timeout=rest)

    # ------------------------------------------------------------------------------- errors

    def _stalled(self, batch: Batch[Any, Any], place: int) -> None:
        error = StreamStalled(
            f"{self.name}: the stream's buffer was left full for longer than stall_ms "
            f"({self.station.options.stall_ms!r})"
        )
        # Its reader may have given up in this very moment.
        with contextlib.suppress(AlreadyAnswered):
            batch.fail_item(place, error)

    def _failed(self, batch: Batch[Any, Any], error: BaseException) -> None:
        if not batch.done:
            with contextlib.suppress(AlreadyAnswered):
                fail(batch, error)
                return
        # On its way out: every caller has had its end.
        events.late_error(self.name, error)


async def _turning(generator: Generator[Any, Any, Any]) -> AsyncGenerator[Any, None]:
    """A plain generator on an event loop, which turns between two steps."""
    try:
        for rows in generator:
            yield rows
            await asyncio.sleep(0)
    finally:
        generator.close()


#: In the place of a step: there are no more.
OVER: Any = object()


class Watched:
    """The steps of a handler on an event loop, which is cancelled where it waits once nobody reads any more."""

    def __init__(self, giver: Giver) -> None:
        self._giver = giver
        task = asyncio.current_task()
        port = Port.here()
        assert task is not None, "inside a running loop"
        assert port is not None, "inside a running loop"
        self._task = task
        self._left = partial(port.post, self._look)
        self._in_step = False
        self._cancelled = False

    def __enter__(self) -> Watched:
        self._giver.watch(self._left)
        return self

    def __exit__(self, *_: object) -> None:
        self._giver.unwatch(self._left)

    def _look(self) -> None:
        # On the loop, so the task stands where the handler waits.
        if self._in_step and not self._cancelled and not self._giver.is_wanted():
            self._cancelled = self._task.cancel()

    async def next(self, steps: AsyncGenerator[Any, Any]) -> Any:
        """The next step, or `OVER`."""
        if not self._giver.is_wanted():
            return OVER
        self._in_step = True
        try:
            return await steps.__anext__()
        except StopAsyncIteration:
            return OVER
        except asyncio.CancelledError:
            if not self._cancelled or self._is_cancelled_by_others():
                raise
            return OVER
        finally:
            self._in_step = False

    def _is_cancelled_by_others(self) -> bool:
        # Before 3.11 tasks do not count.
        uncancel = getattr(self._task, "uncancel", None)
        return uncancel is not None and uncancel() > 0


def _resolve(room: asyncio.Future[None]) -> None:
    if not room.done():
        room.set_result(None)
