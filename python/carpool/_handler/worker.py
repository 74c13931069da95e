"""Running a handler: on worker threads, on event loops, in the callers themselves.

A batch's outcome always reaches its callers: whatever the handler, `setup`, `context` or a row does,
ends as an answer of the batch, and the worker goes on. Handlers run in a context (`contextvars`) of
their own, empty but for what `setup` set: nothing leaks in from the caller whose batch it happens to be.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any

# What the core imports by name at first need comes along: a fork that meets a first import half done leaves
# the child with a lock that nobody lets go of.
from carpool import _core, _errands, _lifecycle  # noqa: F401
from carpool._core import running
from carpool._exceptions import HandlerError, SetupError
from carpool._watch import events

from . import rows  # noqa: F401
from .recovery import Course, checked

if TYPE_CHECKING:
    import asyncio

    from carpool._core import Batch, Engine, Worker
    from carpool._station import Station
    from carpool._submit.binding import Binding

    from .step import Rest

__all__ = ["Desk", "Handler", "start_workers"]


class Desk(_core.Desk):
    """What stays between the batches of one worker: its context, its event loop if it needs one."""

    _event_loop: asyncio.AbstractEventLoop | None = None
    #: How its batches come to a device and back.
    road: Any = None

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Runs a coroutine to its end on the worker's own event loop."""
        import asyncio

        if self._event_loop is None:
            self._event_loop = asyncio.new_event_loop()
        return self._event_loop.run_until_complete(coroutine)

    def close(self) -> None:
        """Ends the event loop, and what leads to a device."""
        road, self.road = self.road, None
        if road is not None:
            road.close()
        event_loop, self._event_loop = self._event_loop, None
        if event_loop is not None:
            event_loop.run_until_complete(event_loop.shutdown_asyncgens())
            event_loop.close()


class Handler:
    """The user's function with all that belongs to running it."""

    def __init__(self, function: Callable[..., Any], station: Station, *, is_async: bool) -> None:
        options = station.options
        self.function = function
        self.is_async = is_async
        self.station = station
        self.name: str = station.name
        #: Whether a batch may be run again, whole or in parts.
        self.recovers: bool = options.on_error != "raise" or options.retry_on is not None
        self.setup: Callable[[], object] | None = options.setup
        self.context: Callable[[], Any] | None = options.context
        # Where several threads or loops run batches without a desk of their own, they share this one.
        self.desk: Desk = Desk()
        #: What needs no more than to be called.
        self.bare: _core.Bare | None = None
        if not is_async and self.context is None and not self.recovers:
            self.bare = _core.Bare(function, self.desk, self.setup is not None)
        #: Guards `setup`, for one engine: a forked child has another, and nobody who lets go of its parent's.
        self._setting_up: tuple[Engine | None, threading.RLock] = None, threading.RLock()
        # By batch: the tasks of handlers on loops, and what is left for them to do while that is not known.
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.rests: dict[int, Rest] = {}

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
        if self.recovers:
            return self._go_through(Course(batch, self.station), binding, bound, desk)
        positional, by_name = binding.lists(batch.items)
        call = self._call_async if self.is_async else self._call
        context = desk.context.copy()
        try:
            results = context.run(call, batch, (*bound, *positional), by_name, desk)
        except BaseException as error:
            fail(batch, error)
            if isinstance(error, KeyboardInterrupt):
                raise
        else:
            complete(batch, results)

    def _call(
        self, batch: Batch[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any], desk: Desk
    ) -> Any:
        running.set(batch._run)
        if self.context is None:
            return self.function(*args, **kwargs)
        results = _NOTHING
        with self.context():
            results = self.function(*args, **kwargs)
        return _unless_swallowed(results, self.name)

    def _call_async(
        self, batch: Batch[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any], desk: Desk
    ) -> Any:
        running.set(batch._run)
        results, error = desk.run(self._outcome(args, kwargs))
        try:
            if error is not None:
                raise error
            return results
        finally:
            # Its trace leads here: together they would keep the batch.
            del error

    async def _outcome(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, BaseException | None]:
        # Raised out of a task, some exceptions end the loop and others lose what they carry.
        try:
            return await self._await(args, kwargs), None
        except BaseException as error:
            return None, error

    async def _await(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.context is None:
            return await self.function(*args, **kwargs)
        results = _NOTHING
        entered = self.context()
        if hasattr(entered, "__aenter__"):
            async with entered:
                results = await self.function(*args, **kwargs)
        else:
            with entered:
                results = await self.function(*args, **kwargs)
        return _unless_swallowed(results, self.name)

    def _go_through(
        self, course: Course, binding: Binding, bound: tuple[Any, ...], desk: Desk
    ) -> None:
        """Runs a batch to its end in this thread, as often as it takes."""
        try:
            while not course.over:
                while seconds := course.pause():
                    self.station.pauses.sleep(seconds)
                if (part := course.following()) is not None:
                    self._run_part(course, part, binding, bound, desk)
        except BaseException as error:
            # Interrupted, in a run or between two.
            course.give_up(error)
            raise

    def _run_part(
        self,
        course: Course,
        part: Batch[Any, Any],
        binding: Binding,
        bound: tuple[Any, ...],
        desk: Desk,
    ) -> None:
        call = self._call_async if self.is_async else self._call
        try:
            positional, by_name = binding.lists(part.items)
            context = desk.context.copy()
            results = context.run(call, part, (*bound, *positional), by_name, desk)
            results = checked(part, results, self.name)
        except BaseException as error:
            course.failed(_of_handler(error))
            if isinstance(error, KeyboardInterrupt):
                raise
        else:
            course.answered(results)

    # -------------------------------------------------------------------------------- loops

    def run_on_loop(
        self,
        batch: Batch[Any, Any],
        engine: Engine,
        binding: Binding,
        bound: tuple[Any, ...],
        event_loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Runs a batch on the running event loop: at once, or for `async def` as a task of its own."""
        # Raised further, a KeyboardInterrupt would tear down the loop of all other callers.
        with contextlib.suppress(KeyboardInterrupt):
            if self.recovers:
                if self._ready(batch, engine, self.desk):
                    self._go_through_on_loop(batch, binding, bound, event_loop)
            elif not self.is_async:
                self.run(batch, engine, binding, bound, self.desk)
            elif self._ready(batch, engine, self.desk):
                positional, by_name = binding.lists(batch.items)
                context = self.desk.context.copy()
                context.run(running.set, batch._run)
                coroutine = self._answer(batch, (*bound, *positional), by_name)
                # The loop holds its tasks weakly. (A task of its own rather than a coroutine driven by
                # hand: handlers may ask for the current task, set timeouts, be cancelled.)
                task = context.run(event_loop.create_task, coroutine)
                if not task.done():
                    self.tasks[id(batch)] = task

    async def _answer(
        self, batch: Batch[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        try:
            if self.context is None:
                results = await self.function(*args, **kwargs)
            else:
                results = await self._await(args, kwargs)
        except BaseException as error:
            fail(batch, error)
        else:
            with contextlib.suppress(KeyboardInterrupt):
                complete(batch, results)
        finally:
            self.tasks.pop(id(batch), None)

    def _go_through_on_loop(
        self,
        batch: Batch[Any, Any],
        binding: Binding,
        bound: tuple[Any, ...],
        event_loop: asyncio.AbstractEventLoop,
    ) -> None:
        """The same on the running event loop: the first run as any other, a task for what follows."""
        course = Course(batch, self.station)
        part = course.following()
        if part is None:
            return
        if self.is_async:
            context = self.desk.context.copy()
            context.run(running.set, part._run)
            task = context.run(event_loop.create_task, self._go_on(course, binding, bound, part))
        else:
            self._run_part(course, part, binding, bound, self.desk)
            if course.over:
                return
            task = event_loop.create_task(self._go_on(course, binding, bound))
        if not task.done():
            self.tasks[id(task)] = task
            task.add_done_callback(lambda task: self.tasks.pop(id(task), None))

    async def _go_on(
        self,
        course: Course,
        binding: Binding,
        bound: tuple[Any, ...],
        first: Batch[Any, Any] | None = None,
    ) -> None:
        import asyncio

        event_loop = asyncio.get_running_loop()
        try:
            if first is not None:
                await self._await_part(course, first, binding, bound)
            while not course.over:
                while seconds := course.pause():
                    await self.station.pauses.asleep(seconds)
                if (part := course.following()) is None:
                    break
                if self.is_async:
                    context = self.desk.context.copy()
                    context.run(running.set, part._run)
                    run = self._await_part(course, part, binding, bound)
                    await context.run(event_loop.create_task, run)
                else:
                    self._run_part(course, part, binding, bound, self.desk)
                    # Others have their turn in between.
                    await asyncio.sleep(0)
        except BaseException as error:
            # Raised further, some would end the loop.
            course.give_up(error)

    async def _await_part(
        self, course: Course, part: Batch[Any, Any], binding: Binding, bound: tuple[Any, ...]
    ) -> None:
        try:
            positional, by_name = binding.lists(part.items)
            results = await self._await((*bound, *positional), by_name)
            results = checked(part, results, self.name)
        except BaseException as error:
            course.failed(_of_handler(error))
        else:
            with contextlib.suppress(KeyboardInterrupt):
                course.answered(results)

    # -------------------------------------------------------------------------------- setup

    def _ready(self, batch: Batch[Any, Any], engine: Engine, desk: Desk) -> bool:
        """Runs `setup` before the first batch at a desk; False if the batch failed by it."""
        if desk.is_set_up or self.setup is None:
            return True
        with self._lock_of(engine):
            if desk.is_set_up:
                return True  # type: ignore[unreachable]  # another thread was faster
            # A copy: that of the desk a forked child may find entered, by a thread of its parent.
            context = desk.context.copy()
            try:
                context.run(self._set_up, batch, self.setup)
            except BaseException as cause:
                error = SetupError(f"{self.name}: setup raised {type(cause).__name__}: {cause}")
                error.__cause__ = cause
                events.setup_failed(self.name, cause)
                engine.die(error)
                batch.fail(error)
                if isinstance(cause, KeyboardInterrupt):
                    raise
                return False
            desk.set_up(context)
            return True

    def _lock_of(self, engine: Engine) -> threading.RLock:
        with _lifecycle.lock:
            if self._setting_up[0] is not engine:
                self._setting_up = engine, threading.RLock()
            return self._setting_up[1]

    def _set_up(self, batch: Batch[Any, Any], setup: Callable[[], object]) -> None:
        # Marked, so that a call of this very function in there is found out.
        mark = batch._run.setup()
        token = running.set(mark)
        try:
            setup()
        finally:
            mark.end()
            running.reset(token)


_NOTHING: Any = object()


def _unless_swallowed(results: Any, name: str) -> Any:
    if results is _NOTHING:
        raise HandlerError(f"{name}: its context swallowed the handler's exception: no results")
    return results


def complete(batch: Batch[Any, Any], results: Any) -> None:
    """Takes the rows of a result to their callers, or what is wrong with it to all of them."""
    try:
        batch.complete(results)
    except KeyboardInterrupt:
        raise
    except BaseException:
        # Raised for loops of the user's own; the callers have it already.
        pass


def fail(batch: Batch[Any, Any], error: BaseException) -> None:
    """Takes the handler's error to the callers, with its trace from the handler on.

    Our own frames are cut off: they tell the user nothing and would keep the batch alive with the error.
    """
    batch._failed(_of_handler(error))


def _of_handler(error: BaseException) -> BaseException:
    # Not by assignment, which some exceptions (frozen dataclasses) refuse; of the exception itself, whatever its
    # class makes of that name.
    return BaseException.with_traceback(error, _beyond_here(_TRACEBACK.__get__(error)))


_TRACEBACK: Any = vars(BaseException)["__traceback__"]


_OURS = (
    __name__,
    "carpool._handler.collated",
    "carpool._handler.device",
    "carpool.cuda._ring",
    "carpool._handler.step",
)


def _beyond_here(trace: TracebackType | None) -> TracebackType | None:
    first = trace
    while first is not None and first.tb_frame.f_globals.get("__name__") in _OURS:
        first = first.tb_next
    return first if first is not None else trace


# ------------------------------------------------------------------------------ worker threads


def start_workers(engine: Engine, count: int, first: int = 0) -> list[threading.Thread]:
    """Starts `count` daemon threads that run the engine's batches until it is closed and drained.

    A waiting worker refers to the engine alone: neither the function nor the instance it belongs to
    is kept alive by it. Each request brings its function along.
    """
    threads = [
        threading.Thread(
            target=_work, args=(engine,), name=f"carpool {engine.name} {number}", daemon=True
        )
        for number in range(first, first + count)
    ]
    for thread in threads:
        thread.start()
    return threads


def _work(engine: Engine) -> None:
    # Handlers run in a context of their own; this one is what callbacks of futures find here.
    running.set(engine.on_worker())
    desk = Desk()
    while True:
        try:
            _work_through(engine.worker(desk))
            break
        except BaseException as error:
            # Not of the handler, whose errors are answers: something reached into the thread. The
            # batch in hand, if any, has been dropped, which failed its callers.
            with contextlib.suppress(BaseException):
                # Whatever a logger makes of it.
                events.worker_died(engine.name, error)
            desk = Desk()
    with contextlib.suppress(Exception):
        desk.close()


def _work_through(worker: Worker) -> None:
    following, answered = worker.next, worker.answered
    call = function = args = results = None
    try:
        while (call := following()) is not None:
            function, args = call
            try:
                results = function(*args)
            except BaseException as error:
                # A KeyboardInterrupt out of a handler is an answer here: this is not the main thread.
                worker.failed(_of_handler(error))
            else:
                answered(results)
            # While it waits it keeps neither handler nor items alive.
            call = function = args = results = None
    finally:
        # Struck from outside, also not in the traceback.
        call = function = args = results = None
        worker.let_go()


def open_engine(engine: Engine, threads: int, first: int = 0) -> list[threading.Thread]:
    """Notes an engine for the end of the process, with `threads` workers started, numbered from `first`."""
    workers = start_workers(engine, threads, first) if threads else []
    _lifecycle.opened(engine, workers)
    return workers
