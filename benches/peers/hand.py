"""The floors as contenders (`floors.py`, `blocking_floors.py`)."""

from __future__ import annotations

from typing import Any

import blocking_floors
import floors

from .contender import Asked, Contender, Door, Form


class Floor(Contender):
    floor = True


class Hand(Floor):
    """The batcher a good engineer writes by hand, for each form."""

    name = "hand"

    def refuses(self, form: Form, wait_ms: float) -> str | None:
        return None

    def open(self, asked: Asked) -> Door:
        limits: dict[str, Any] = {
            "max_batch_size": asked.max_batch_size,
            "wait_s": asked.wait_ms / 1000,
        }
        if asked.form == "blocking":
            worker = blocking_floors.HandWorker(asked.handler, **limits)
            return Door(worker, worker.close)
        if asked.form == "thread":
            thread = floors.HandThread(asked.on, asked.handler, **limits)
            return Door(thread, thread.close)
        handler = asked.handler

        async def served(items: list[Any]) -> Any:
            return handler(items)

        return Door(floors.HandBatcher(asked.on, served, **limits), lambda: None)


class Bare(Floor):
    """Futures resolved in bulk: the handler is called, and nothing else is done for it."""

    name = "bare"

    def refuses(self, form: Form, wait_ms: float) -> str | None:
        if form != "loop":
            return "no thread in it"
        return "it knows no wait" if wait_ms else None

    def open(self, asked: Asked) -> Door:
        return Door(floors.BareFutures(asked.on), lambda: None)


class Direct(Floor):
    """`handler([item])[0]`: no batching at all."""

    name = "direct"

    def refuses(self, form: Form, wait_ms: float) -> str | None:
        if form != "blocking":
            return "it would block the loop"
        return "it knows no wait" if wait_ms else None

    def open(self, asked: Asked) -> Door:
        handler = asked.handler
        return Door(lambda item: handler([item])[0], lambda: None)


class Leader(Floor):
    """Whoever finds nobody at work runs the handler for all that are there: combining, in Python."""

    name = "leader"

    def refuses(self, form: Form, wait_ms: float) -> str | None:
        if form != "blocking":
            return "it would block the loop"
        return "it knows no wait" if wait_ms else None

    def open(self, asked: Asked) -> Door:
        leader = blocking_floors.Leader(asked.handler, max_batch_size=asked.max_batch_size)
        return Door(leader, lambda: None)
