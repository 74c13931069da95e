"""`aiodataloader`: all that is asked for in one turn of the loop goes together. No wait, no slots."""

from __future__ import annotations

from typing import Any

from .contender import Asked, AwaitedPeer, Door, Form, in_its_form


class AioDataLoader(AwaitedPeer):
    name = "aiodataloader"
    package = "aiodataloader"
    module = "aiodataloader"

    def refuses(self, form: Form, wait_ms: float) -> str | None:
        return super().refuses(form, wait_ms) or ("it knows no wait" if wait_ms else None)

    def open(self, asked: Asked) -> Door:
        import aiodataloader

        handler, close = in_its_form(asked)

        # It asks whether its handler is a coroutine function. The cache is off: every item counts.
        loader: Any = aiodataloader.DataLoader(
            handler, max_batch_size=asked.max_batch_size, cache=False, loop=asked.on
        )
        return Door(loader.load, close)
