"""`DynamicBatcher`: requests from anywhere, sent to the server in batches."""

from __future__ import annotations

import time
from typing import Any

import carpool
from carpool.compat._front import UNBOUNDED, ProcessLock, batcher

from ._server import Server, is_conversation, text_of

__all__ = ["DynamicBatcher"]


class DynamicBatcher:
    """Gathers prompts, or conversations, and sends them in batches, on a worker thread.

    Args:
        client: in the style of OpenAI's, synchronous or asynchronous.
        model_id: the model.
        max_batch_size: most requests in one batch.
        max_wait_time: longest time a request waits for company while nothing runs, in seconds.
        chats: how conversations are sent: "together" as one request, "apart" as a request each, at the same time.
        **params: of each request to the server; else `max_tokens=100, temperature=0.7`.

    Raises:
        TypeError, ValueError: a setting is of the wrong type or out of range.
    """

    def __init__(
        self,
        client: Any,
        model_id: str,
        max_batch_size: int = 32,
        max_wait_time: float = 0.1,
        *,
        chats: str = "together",
        **params: Any,
    ) -> None:
        self.client, self.model_id = client, model_id
        self.max_batch_size, self.max_wait_time = max_batch_size, max_wait_time
        self.last_batch_time = time.time()
        self._server = Server(client, model_id, params, chats)
        self._requests: dict[int, dict[str, Any]] = {}
        self._number = 0
        self._lock = ProcessLock()
        self._inner = batcher(
            self._send,
            max_batch_size=max_batch_size,
            wait_ms=max_wait_time * 1000,
            max_queue=UNBOUNDED,
            executor="thread",
            # A server takes prompts and conversations at different places.
            key=is_conversation,
            name=f"DynamicBatcher of {model_id}",
        )

    async def _send(self, items: list[Any]) -> list[Any]:
        try:
            choices = await self._server.choices(items)
            return [one if isinstance(one, Exception) else text_of(one) for one in choices]
        finally:
            self.last_batch_time = time.time()

    def add_request(self, prompt: Any, priority: int = 0) -> dict[str, Any]:
        """Adds a prompt, or a conversation (a list of messages).

        Args:
            prompt: what the server is sent.
            priority: smaller is more urgent, from -100 to 100.

        Returns:
            A dict with `prompt`, `timestamp` (seconds since the epoch), and `future`, a `carpool.Future` of the
            text, which can be awaited too. It gets `response`, the text, or `error`, the text of the error.

        Raises:
            carpool.BatcherClosed: it is closed.
        """
        inner = self._inner.options(priority=priority) if priority else self._inner
        request: dict[str, Any] = {"prompt": prompt, "timestamp": time.time(), "future": None}
        with self._lock:
            self._number += 1
            number = self._number
            self._requests[number] = request
        try:
            future = inner.submit(prompt)
        except BaseException:
            del self._requests[number]
            raise
        request["future"] = future

        def note(ended: carpool.Future[Any]) -> None:
            if ended.cancelled():
                request["error"] = "cancelled"
            elif (error := ended.exception()) is not None:
                request["error"] = str(error)
            else:
                request["response"] = ended.result()
            self._requests.pop(number, None)

        future.add_done_callback(note)
        return request

    @property
    def pending_requests(self) -> list[dict[str, Any]]:
        """The requests that have no answer yet."""
        with self._lock:
            return list(self._requests.values())

    def should_process_batch(self) -> bool:
        """Whether a batch is due. It leaves by itself; this only tells."""
        waiting = self.pending_requests
        if len(waiting) >= self.max_batch_size:
            return True
        return bool(waiting) and time.time() - waiting[0]["timestamp"] >= self.max_wait_time

    def process_batch(self, errors: str = "return") -> None:
        """Sends what is pending at once, full or not, and waits until it is answered.

        Args:
            errors: "return" leaves them in the requests, "raise" raises the first.

        Raises:
            ValueError: `errors` is neither.
            Exception: what the client raised, with errors="raise".
        """
        if errors not in ("return", "raise"):
            raise ValueError(f"errors must be 'return' or 'raise', not {errors!r}")
        futures = [one["future"] for one in self.pending_requests if one["future"] is not None]
        self._inner.flush()
        found = [future.exception() for future in futures if not future.cancelled()]
        for error in found:
            if error is not None and errors == "raise":
                raise error

    @property
    def stats(self) -> carpool.Stats:
        """Figures of the batcher underneath."""
        stats: carpool.Stats = self._inner.stats
        return stats

    def close(self) -> None:
        """Answers what was accepted, and takes no more."""
        self._inner.close()

    def __enter__(self) -> DynamicBatcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
