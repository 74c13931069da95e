"""`AdaptiveBatcher`: a batch size that follows the throughput."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from carpool.compat._front import UNBOUNDED, ProcessLock, batcher

from ._server import Server, is_conversation

__all__ = ["AdaptiveBatcher"]

#: How many batches are remembered.
REMEMBERED = 10


class AdaptiveBatcher:
    """Sends prompts, or conversations, in batches whose size doubles while the throughput rises and halves where it
    falls by more than a tenth, or where a batch fails.

    Args:
        client: in the style of OpenAI's, synchronous or asynchronous.
        model_id: the model.
        initial_batch_size: to begin with; it stays between `min_batch_size` (1) and `max_batch_size` (64).
        chats: see `DynamicBatcher`.
        clock: seconds, for the throughput.
        **params: see `DynamicBatcher`.

    Raises:
        TypeError, ValueError: a setting is of the wrong type or out of range.
    """

    def __init__(
        self,
        client: Any,
        model_id: str,
        initial_batch_size: int = 8,
        *,
        chats: str = "together",
        clock: Callable[[], float] = time.perf_counter,
        **params: Any,
    ) -> None:
        self.client, self.model_id = client, model_id
        self._batch_size = initial_batch_size
        self.min_batch_size, self.max_batch_size = 1, 64
        self.performance_history: list[dict[str, float]] = []
        self._clock = clock
        self._server = Server(client, model_id, params, chats)
        self._lock = ProcessLock()
        self._inner = batcher(
            self._send,
            max_batch_size=initial_batch_size,
            max_queue=UNBOUNDED,
            executor="thread",
            key=is_conversation,
            name=f"AdaptiveBatcher of {model_id}",
        )

    async def _send(self, items: list[Any]) -> list[Any]:
        began = self._clock()
        try:
            choices = await self._server.choices(items)
        except Exception:
            with self._lock:
                self._resize(self._batch_size // 2)
            raise
        self.update_batch_size(self._clock() - began, len(items))
        return choices

    def update_batch_size(self, batch_time: float, num_requests: int) -> None:
        """Takes in how a batch went.

        Args:
            batch_time: seconds.
            num_requests: how many requests it had; with 0 nothing happens.
        """
        if num_requests == 0:
            return
        with self._lock:
            throughput = num_requests / batch_time if batch_time > 0 else float("inf")
            history = self.performance_history
            history.append(
                {
                    "batch_size": self.batch_size,
                    "throughput": throughput,
                    "timestamp": time.time(),
                }
            )
            del history[:-REMEMBERED]
            if len(history) < 3:
                return
            before = history[-2]["throughput"]
            if throughput > before:
                self._resize(self._batch_size * 2)
            elif throughput < before * 0.9:
                self._resize(self._batch_size // 2)

    def _resize(self, size: int) -> None:
        self._batch_size = max(self.min_batch_size, min(size, self.max_batch_size))
        self._inner.configure(max_batch_size=self._batch_size)

    @property
    def batch_size(self) -> int:
        """Most requests of the batches to come."""
        return self._batch_size

    @batch_size.setter
    def batch_size(self, size: int) -> None:
        with self._lock:
            self._resize(size)

    def process_batch(self, prompts: Iterable[Any], errors: str = "raise") -> list[Any]:
        """The choices of all prompts, in their order. Threads may share the batcher.

        Args:
            prompts: any number of prompts or conversations.
            errors: "raise" raises the first; "return" puts the error in the place of a choice; "skip" leaves it out.

        Raises:
            Exception: what the client raised.
        """
        return list(self._inner.map(prompts, errors=errors))

    def close(self) -> None:
        """Answers what was accepted, and takes no more."""
        self._inner.close()

    def __enter__(self) -> AdaptiveBatcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
