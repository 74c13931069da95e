"""One pass over a data set, for coroutines: the same as for a thread, and asynchronous sources."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable
from functools import partial
from typing import Any

from carpool._core import Port

from .backoff import PACE, Pace
from .progress import bar
from .spans import Entry
from .sync_pass import How, Lot, Reader

__all__ = ["aover"]


async def aover(
    lot: Lot, source: Any, how: How, total: int | None, pace: Pace = PACE
) -> AsyncGenerator[Any, None]:
    """The answers to all items of a source, for coroutines."""
    event_loop = asyncio.get_running_loop()
    port = Port.here()
    assert port is not None, "inside a running loop"
    bell = Bell(event_loop)

    def tell(entry: Entry) -> None:
        # However many come before the loop's next round, it is woken once.
        port.post(partial(bell.ring, entry))

    reader = Reader(lot, how, tell, pace)
    course = reader.course
    shown = bar(how.progress, lot.name, total, reader.engine, pace)
    reader.engine.check_chain()
    feeder: asyncio.Task[None] | None = None
    feed: Feed | None = None
    if isinstance(source, AsyncIterable):
        feed = Feed(reader, source, bell)
        feeder = event_loop.create_task(feed.run())
    plain: Any = source
    on_error = how.on_error
    try:
        while True:
            if feed is None and not reader.exhausted and reader.has_room:
                reader.read(plain)
            elif not course.held and reader.exhausted:
                break
            elif not course.ready:
                await bell.wait(course.next_try(), pace)
            while bell.rung:
                course.settle(bell.rung.popleft())
            course.try_again()
            if course.ready:
                outcomes, failed = course.take()
                if shown is not None:
                    shown.add(len(outcomes), failed, course.retried)
                if feed is not None:
                    feed.has_room()
                if not failed:
                    for outcome in outcomes:
                        yield outcome
                    continue
                for outcome in outcomes:
                    if on_error == "return" or not isinstance(outcome, BaseException):
                        yield outcome
                    elif on_error == "raise":
                        raise outcome
        if reader.error is not None:
            raise reader.error
    finally:
        course.cancel()
        if shown is not None:
            shown.close()
        outcomes, outcome = [], None
        reader.exhausted = True
        if feeder is not None and not feeder.done():
            feeder.cancel()
            # Ended before the source can be looked at by anybody else.
            await asyncio.wait([feeder])


class Bell:
    """Where an asynchronous generator waits for whatever comes next."""

    def __init__(self, event_loop: asyncio.AbstractEventLoop) -> None:
        self._event_loop = event_loop
        self._waiter: asyncio.Future[None] | None = None
        self._news = False
        self.rung: deque[Entry] = deque()

    def ring(self, entry: Entry) -> None:
        """Some of an entry have their outcomes."""
        self.rung.append(entry)
        self.wake()

    def wake(self) -> None:
        """Something else has changed."""
        self._news = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self, until: float | None, pace: Pace) -> None:
        """Until something has changed since the last wait, or it is `until`."""
        if not self._news:
            timer = None if until is None else pace.call_at(self._event_loop, until, self.wake)
            self._waiter = self._event_loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
        self._news = False


class Feed:
    """Reads an asynchronous source, ahead of the consumer by a window.

    What was read is submitted when it makes a span, or when the source has nothing more at the moment: how long
    an item waits for company is then the batcher's to say.
    """

    def __init__(self, reader: Reader, source: AsyncIterable[Any], bell: Bell) -> None:
        self._reader = reader
        self._source = source
        self._bell = bell
        self._items: list[Any] = []
        self._room: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Reads to the end."""
        event_loop = asyncio.get_running_loop()
        reader, items = self._reader, self._items
        try:
            async for item in self._source:
                items.append(item)
                if len(items) == 1:
                    event_loop.call_soon(self._flush)
                if len(items) >= reader.size:
                    self._flush()
                while not self._fits():
                    self._flush()
                    self._room = event_loop.create_future()
                    await self._room
                if reader.exhausted:
                    return
        except (Exception, asyncio.CancelledError) as error:
            # Also one that was cancelled in the source, which must not look like its end.
            self._flush()
            reader.error = reader.error or error
        finally:
            self._flush()
            reader.exhausted = True
            self._bell.wake()

    def _fits(self) -> bool:
        reader = self._reader
        return reader.course.held + len(self._items) < reader.window or reader.exhausted

    def _flush(self) -> None:
        items = self._items[:]
        self._items.clear()
        if items and not self._reader.exhausted:
            self._reader.add(items)
            self._bell.wake()

    def has_room(self) -> None:
        """The consumer has taken some."""
        room = self._room
        if room is not None and not room.done() and self._fits():
            room.set_result(None)
