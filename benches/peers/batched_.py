"""`batched` of mixedbread, in both flavours. It polls: what is queued is looked at every `timeout_ms`."""

from __future__ import annotations

from typing import Any

from .contender import Asked, AwaitedPeer, Door, Form, Peer, awaited_handler


class BatchedAio(AwaitedPeer):
    """The asyncio flavour; plain handlers go through `asyncio.to_thread`."""

    name = "batched-aio"
    package = "batched"
    module = "batched"

    def open(self, asked: Asked) -> Door:
        from batched import aio

        handler = awaited_handler(asked.handler) if asked.form == "loop" else asked.handler
        served: Any = aio.dynamically(batch_size=asked.max_batch_size, timeout_ms=asked.wait_ms)(
            handler
        )
        return Door(served, lambda: None)


class BatchedThread(Peer):
    """The thread flavour: one worker, blocking calls and `acall`."""

    name = "batched"
    package = "batched"
    module = "batched"

    def refuses(self, form: Form, wait_ms: float) -> str | None:
        return "its handler runs on a thread" if form == "loop" else None

    def open(self, asked: Asked) -> Door:
        import batched

        served: Any = batched.dynamically(
            batch_size=asked.max_batch_size, timeout_ms=asked.wait_ms
        )(asked.handler)
        # Its `shutdown` may leave callers waiting for ever; here all have their answers.
        return Door(served if asked.form == "blocking" else served.acall, served.shutdown)
