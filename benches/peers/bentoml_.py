"""BentoML's dispatcher (`CorkDispatcher`), out of its server: what decides when a batch leaves there.

It has no wait to be set: it learns one, from its first requests, under a bound on latency.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from .contender import Asked, AwaitedPeer, Door, Form, awaited_handler

LATENCY_MS = 60_000
"""BentoML's default bound."""


class BentoML(AwaitedPeer):
    name = "bentoml"
    package = "bentoml"
    module = "bentoml"
    big = True
    hint = ", with fifty packages: pip install --group peers-big"

    def missing(self) -> str | None:
        if importlib.util.find_spec("bentoml") is None:
            return f"{self.package} is not installed{self.hint}"
        return None

    def refuses(self, form: Form, wait_ms: float) -> str | None:
        return super().refuses(form, wait_ms)

    def open(self, asked: Asked) -> Door:
        from bentoml._internal.marshal.dispatcher import CorkDispatcher

        def overloaded() -> Any:
            raise RuntimeError("the dispatcher gave a request up: overloaded")

        # A plain handler goes to a thread pool. What it hands over is a tuple.
        handler = asked.handler

        def on_thread(items: Any) -> Any:
            return handler(list(items))

        run: Any = on_thread if asked.form == "thread" else awaited_handler(on_thread)
        dispatcher: Any = CorkDispatcher(
            LATENCY_MS, asked.max_batch_size, fallback=overloaded, get_batch_size=lambda item: 1
        )
        return Door(dispatcher(run), dispatcher.shutdown)
