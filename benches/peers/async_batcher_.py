"""`async-batcher`: a batcher per subclass, on one loop; plain handlers go to the loop's executor."""

from __future__ import annotations

from typing import Any

from .contender import Asked, AwaitedPeer, Door


class AsyncBatcher(AwaitedPeer):
    name = "async-batcher"
    package = "async-batcher"
    module = "async_batcher"

    def open(self, asked: Asked) -> Door:
        from async_batcher.batcher import AsyncBatcher as Base

        handler = asked.handler

        async def on_loop(self: object, batch: list[Any]) -> Any:
            return handler(batch)

        def on_thread(self: object, batch: list[Any]) -> Any:
            return handler(batch)

        run = on_loop if asked.form == "loop" else on_thread
        made: Any = type("Served", (Base,), {"process_batch": run})(
            max_batch_size=asked.max_batch_size, max_queue_time=asked.wait_ms / 1000
        )
        return Door(made.process, lambda: None)
