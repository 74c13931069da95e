"""The engine of one batcher in this process: opened at first use, with its workers, and anew after a fork."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, TypedDict

from . import _inline, _lifecycle
from ._core import Engine
from ._handler.recovery import Pauses
from ._handler.worker import open_engine

if TYPE_CHECKING:
    from ._options import Options
    from ._types import Executor
    from .cuda._graphs import Tally

__all__ = ["Station"]


class Numbers(TypedDict):
    """The options that are numbers, as an engine takes them: times in nanoseconds."""

    max_batch_size: int
    wait_ns: int
    max_queue: int
    slots: int | None
    max_batch_cost: int | None
    look_ahead: int
    length_window: int
    timeout_ns: int | None
    age_ns: int
    sample_rate: float
    slow_ns: int | None
    target_ns: int | None
    steps: int


class Station:
    """The engine of one batcher in this process, with its workers; made at first use, anew after a fork."""

    def __init__(
        self,
        options: Options,
        name: str,
        executor: str,
        slots: int | None,
        *,
        inline: Executor | None = None,
        threads: int | None = None,
    ) -> None:
        self.options = options
        self.name = name
        self.executor = executor
        self.slots = slots
        #: How many workers there are, where it is not one for each slot.
        self.threads = threads
        #: Who runs the handler in the inline mode; None where that changes nothing.
        self.inline = inline
        self.closed = False
        #: In the inline mode, held by whoever submits a request and takes its batch. It may run a `cost` or a `key`
        #: meanwhile, which may submit, too.
        self.taking = threading.RLock()
        #: How batches ran, by device, where graphs are asked for.
        self.tallies: list[Tally] = []
        #: Before batches that failed are run again.
        self.pauses = Pauses()
        self._engine: Engine | None = None
        self._workers: list[threading.Thread] = []
        #: The same of the mode that is off.
        self._aside: tuple[Engine | None, list[threading.Thread]] = (None, [])

    def engine(self) -> Engine:
        """The engine, without starting anything."""
        engine = self._engine
        if engine is None or not engine.is_ours:
            with _lifecycle.lock:
                engine = self._engine
                if engine is None or not engine.is_ours:
                    engine = self._open()
        return engine

    def figures(self) -> dict[str, Any]:
        """What statistics are made of: the engine's raw figures, and those of its devices."""
        figures: dict[str, Any] = dict(self.engine().stats())
        figures["replayed"] = sum(tally.replayed for tally in self.tallies)
        figures["eager"] = sum(tally.eager for tally in self.tallies)
        return figures

    @property
    def is_inline(self) -> bool:
        """Whether calls run its handler in place."""
        return self.inline is not None and _inline.is_on()

    def turn(self) -> None:
        """The inline mode is on or off now: changes over to the engine of that mode."""
        if self.inline is None:
            return
        here = self._engine, self._workers
        (self._engine, self._workers), self._aside = self._aside, here
        engine = self._engine
        if self.closed and engine is not None and engine.is_ours:
            # Closed in the other mode.
            engine.close(False)

    def _numbers(self) -> Numbers:
        """What an engine is opened with, and what of it may be changed."""
        options = self.options
        timeout_ms = options.timeout_ms
        numbers: Numbers = {
            "max_batch_size": options.max_batch_size,
            "wait_ns": options.wait_ns,
            "max_queue": options.max_queue,
            "slots": self.slots,
            "max_batch_cost": options.max_batch_cost,
            "look_ahead": options.look_ahead,
            "length_window": 0 if options.length is None else options.length_window,
            "timeout_ns": None if timeout_ms is None else round(timeout_ms * 1e6),
            "age_ns": round(options.age_ms * 1e6),
            "sample_rate": options.sample_rate,
            "steps": options.buffer_steps,
            "target_ns": None if options.target_ms is None else round(options.target_ms * 1e6),
            "slow_ns": None if options.slow_ms is None else round(options.slow_ms * 1e6),
        }
        if self.is_inline:
            # Each by itself, at once, whoever else is at it.
            numbers["max_batch_size"] = 1
            numbers["wait_ns"], numbers["slots"], numbers["target_ns"] = 0, None, None
        return numbers

    def configure(self, changes: dict[str, Any], known: tuple[str, ...]) -> None:
        """Other numbers: all of `changes` or, where one is refused, none."""
        with _lifecycle.lock:
            self.options = options = self.options.changed(self.name, changes, known)
            if self.slots is not None and self.threads is None:
                self.slots = options.max_concurrent_batches
            engine = self._engine
        if engine is None or not engine.is_ours:
            return
        # Not under the lock: it wakes. Of two changes at once the later one is told last, by whomever.
        told: Numbers | None = None
        while told != (numbers := self._numbers()):
            engine.configure(**numbers)
            told = numbers
        if self._workers:
            self._hire(engine)

    def _hire(self, engine: Engine) -> None:
        """Starts the workers that slots lack. Those beyond have nothing to do, and stay."""
        with _lifecycle.lock:
            count = (self.threads or self.slots or 1) - len(self._workers)
            if count > 0 and not engine.closed:
                self._workers += open_engine(engine, count, first=len(self._workers))

    def _open(self) -> Engine:
        options, inline = self.options, self.is_inline
        engine = Engine(
            name=self.name,
            overflow=options.overflow,
            executor=self.inline if inline and self.inline else self.executor,
            gather=options.gather and not inline,
            padded_cost=options.padded_cost,
            batch_sizes=None if inline else options.batch_sizes,
            refuse_late=options.refuse_late and not inline,
            inline=inline,
            on_request=options.on_request,
            keep_timings=options.keep_timings,
            **self._numbers(),
        )
        open_engine(engine, 0)
        if self.closed:
            # Closed before the fork: closed in the child.
            engine.close(False)
        self._engine, self._workers = engine, []
        self.tallies = []
        _inline.note(self)
        return engine

    def start(self) -> Engine:
        """The engine, with its workers running."""
        engine = self.engine()
        if not self._workers and not engine.closed:
            with _lifecycle.lock:
                engine = self.engine()
                if not self._workers and not self.is_inline:
                    self._hire(engine)
        return engine

    @property
    def workers(self) -> list[threading.Thread]:
        """The worker threads of this process; none before the first use."""
        return self._workers if self._engine is not None and self._engine.is_ours else []

    def fail(self, engine: Engine) -> None:
        """Closes: what is pending fails, and nothing that failed is run again."""
        engine.close(False)
        self.pauses.end()

    def release(self) -> None:
        """Ends engine and workers, nothing being pending; for collection."""
        for engine in (self._engine, self._aside[0]):
            if engine is not None and engine.is_ours:
                self.fail(engine)
