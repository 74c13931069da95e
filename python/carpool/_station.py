"""The engine of one batcher in this process: opened at first use, with its workers, and anew after a fork."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _lifecycle
from ._core import Engine
from ._worker import open_engine

if TYPE_CHECKING:
    import threading

    from ._options import Options

__all__ = ["Station"]


class Station:
    """The engine of one batcher in this process, with its workers; made at first use, anew after a fork."""

    def __init__(self, options: Options, name: str, executor: str, slots: int | None) -> None:
        self.options = options
        self.name = name
        self.executor = executor
        self.slots = slots
        self.closed = False
        self._engine: Engine | None = None
        self._workers: list[threading.Thread] = []

    def engine(self) -> Engine:
        """The engine, without starting anything."""
        engine = self._engine
        if engine is None or not engine.is_ours:
            with _lifecycle.lock:
                engine = self._engine
                if engine is None or not engine.is_ours:
                    engine = self._open()
        return engine

    def _open(self) -> Engine:
        options = self.options
        engine = Engine(
            name=self.name,
            max_batch_size=options.max_batch_size,
            wait_ns=options.wait_ns,
            max_queue=options.max_queue,
            overflow=options.overflow,
            slots=self.slots,
            executor=self.executor,
            max_batch_cost=options.max_batch_cost,
            gather=options.gather,
        )
        open_engine(engine, 0)
        if self.closed:
            # Closed before the fork: closed in the child.
            engine.close(False)
        self._engine, self._workers = engine, []
        return engine

    def start(self) -> Engine:
        """The engine, with its workers running."""
        engine = self.engine()
        if not self._workers and not engine.closed:
            with _lifecycle.lock:
                engine = self.engine()
                if not self._workers and not engine.closed:
                    self._workers = open_engine(engine, self.slots or 1)
        return engine

    @property
    def workers(self) -> list[threading.Thread]:
        """The worker threads of this process; none before the first use."""
        return self._workers if self._engine is not None and self._engine.is_ours else []

    def release(self) -> None:
        """Ends engine and workers, nothing being pending; for collection."""
        if self._engine is not None and self._engine.is_ours:
            self._engine.close(False)
