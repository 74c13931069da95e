"""`AdaptiveBatcher`: a batch size that follows the throughput."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from carpool.compat._front import UNBOUNDED, ProcessLock, batcher

from ._checks import ON_ERROR, at_least_one, known
from ._server import Server, kind_of

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
        on_error: "isolate" sends a batch that fails again in halves, and halves of those, until the requests that make
            it fail stand alone; "raise" fails all its requests.
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
        on_error: str = "isolate",
        clock: Callable[[], float] = time.perf_counter,
        **params: Any,
    ) -> None:
        self._batch_size = at_least_one("initial_batch_size", initial_batch_size)
        known("on_error", on_error, ON_ERROR)
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
            on_error=on_error,
            key=_Asked.kind,
            name=f"AdaptiveBatcher of {model_id}",
        )

    def _send(self, items: list[_Asked]) -> list[Any]:
        # The halves of a batch that failed say nothing new about its size.
        again = any(one.was_sent for one in items)
        for one in items:
            one.was_sent = True
        began = self._clock()
        try:
            choices = self._server.choices([one.prompt for one in items])
        except Exception:
            if not again:
                with self._lock:
                    self._resize(self._batch_size // 2)
            raise
        if not again:
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
    def client(self) -> Any:
        """Who is asked."""
        return self._server.client

    @client.setter
    def client(self, client: Any) -> None:
        self._server.client = client

    @property
    def model_id(self) -> str:
        """The model that is asked for."""
        return self._server.model_id

    @model_id.setter
    def model_id(self, model_id: str) -> None:
        self._server.model_id = model_id

    @property
    def batch_size(self) -> int:
        """Most requests of the batches to come."""
        return self._batch_size

    @batch_size.setter
    def batch_size(self, size: int) -> None:
        with self._lock:
            self._resize(at_least_one("batch_size", size))

    def process_batch(
        self, prompts: Iterable[Any], errors: str = "raise", *, priority: int = 0
    ) -> list[Any]:
        """The choices of all prompts, in their order. Threads may share the batcher.

        Args:
            prompts: any number of prompts or conversations.
            errors: "raise" raises the first; "return" puts the error in the place of a choice; "skip" leaves it out.
            priority: among the calls of several threads; smaller is more urgent, from -100 to 100.

        Raises:
            ValueError: `errors` is none of these, or the priority is out of range.
            TypeError: an item is neither a prompt nor a conversation.
            carpool.BatcherClosed: it is closed.
            Exception: what the client raised.
        """
        inner = self._inner.options(priority=priority) if priority else self._inner
        return list(inner.map(map(_Asked, prompts), errors=errors))

    def close(self) -> None:
        """Answers what was accepted, and takes no more."""
        self._inner.close()

    def __enter__(self) -> AdaptiveBatcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Asked:
    """A prompt, or a conversation, on its way."""

    __slots__ = ("prompt", "was_sent")

    def __init__(self, prompt: Any) -> None:
        self.prompt = prompt
        self.was_sent = False

    def kind(self) -> str:
        """What it is to the server."""
        return kind_of(self.prompt)
