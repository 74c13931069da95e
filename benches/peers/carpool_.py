"""carpool itself: awaited and blocking with a worker, and blocking calls that run the batch themselves."""

from __future__ import annotations

import importlib.util
from typing import Any

from .contender import Asked, Contender, Door, Form, awaited_handler

MANY = 2_000_000
"""`max_queue`: no workload is about the bound."""


class Carpool(Contender):
    name = "carpool"
    package = "carpool"
    module = "carpool"

    def missing(self) -> str | None:
        if importlib.util.find_spec("carpool") is None:
            return "carpool is not installed in this Python: make build"
        if importlib.util.find_spec("carpool._core") is None:
            return "carpool has no compiled extension here: make build"
        return None

    def refuses(self, form: Form, wait_ms: float) -> str | None:
        return None

    def open(self, asked: Asked) -> Door:
        import carpool

        options: dict[str, Any] = {
            "max_batch_size": asked.max_batch_size,
            "wait_ms": asked.wait_ms,
            "max_queue": MANY,
        }
        if asked.form == "loop":
            handler: Any = awaited_handler(asked.handler)
            on_loop: Any = carpool.batched(**options)(handler)
            return Door(on_loop, on_loop.close)
        batcher: Any = carpool.batched(**options)(asked.handler)
        call = batcher if asked.form == "blocking" else batcher.acall
        return Door(call, batcher.close)


class CarpoolCaller(Carpool):
    """`executor="caller"`: the thread whose call closes the batch runs it."""

    name = "carpool-caller"

    def refuses(self, form: Form, wait_ms: float) -> str | None:
        return None if form == "blocking" else "the handler would be a worker's, as carpool's"

    def open(self, asked: Asked) -> Door:
        import carpool

        batcher: Any = carpool.batched(
            max_batch_size=asked.max_batch_size,
            wait_ms=asked.wait_ms,
            max_queue=MANY,
            executor="caller",
        )(asked.handler)
        return Door(batcher, batcher.close)
