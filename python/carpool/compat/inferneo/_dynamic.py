"""`DynamicBatcher`: requests from anywhere, sent to the server in batches."""

from __future__ import annotations

import concurrent.futures
import time
from typing import Any

import carpool
from carpool.compat._front import UNBOUNDED, ProcessLock, batcher

from ._checks import ON_ERROR, at_least_one, known, milliseconds
from ._server import Server, kind_of

__all__ = ["DynamicBatcher"]


class DynamicBatcher:
    """Gathers prompts, or conversations, and sends them in batches, on a worker thread.

    Args:
        client: in the style of OpenAI's, synchronous or asynchronous.
        model_id: the model.
        max_batch_size: most requests in one batch.
        max_wait_time: longest time a request waits for company while nothing runs, in seconds.
        chats: how conversations are sent: "together" as one request, "apart" as a request each, at the same time.
        on_error: "raise" fails all requests of a batch that fails; "isolate" sends it again in halves, and halves of
            those, until the requests that make it fail stand alone.
        **params: of each request to the server; else `max_tokens=100, temperature=0.7`.

    `client`, `model_id`, `max_batch_size` and `max_wait_time` may be changed at any time.

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
        on_error: str = "raise",
        **params: Any,
    ) -> None:
        self._max_batch_size = at_least_one("max_batch_size", max_batch_size)
        wait_ms = milliseconds("max_wait_time", max_wait_time)
        self._max_wait_time = max_wait_time
        self._isolates = known("on_error", on_error, ON_ERROR) == "isolate"
        self.last_batch_time = time.time()
        self._server = Server(client, model_id, params, chats)
        self._requests: dict[int, dict[str, Any]] = {}
        self._number = 0
        self._lock = ProcessLock()
        self._inner = batcher(
            self._send,
            max_batch_size=max_batch_size,
            wait_ms=wait_ms,
            max_queue=UNBOUNDED,
            executor="thread",
            on_error=on_error,
            # A server takes prompts and conversations at different places.
            key=_kind_of,
            name=f"DynamicBatcher of {model_id}",
        )

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
    def max_batch_size(self) -> int:
        """Most requests in one batch."""
        return self._max_batch_size

    @max_batch_size.setter
    def max_batch_size(self, size: int) -> None:
        self._inner.configure(max_batch_size=at_least_one("max_batch_size", size))
        self._max_batch_size = size

    @property
    def max_wait_time(self) -> float:
        """Longest time a request waits for company, in seconds."""
        return self._max_wait_time

    @max_wait_time.setter
    def max_wait_time(self, seconds: float) -> None:
        self._inner.configure(wait_ms=milliseconds("max_wait_time", seconds))
        self._max_wait_time = seconds

    def _send(self, requests: list[dict[str, Any]]) -> list[Any]:
        texts: list[Any]
        try:
            texts = self._server.texts([request["prompt"] for request in requests])
        except Exception as error:
            if not self._isolates or len(requests) == 1:
                self._note(requests, [error] * len(requests))
            raise
        finally:
            self.last_batch_time = time.time()
        # Before the futures end: whoever waits for one finds its answer in the request.
        self._note(requests, texts)
        return texts

    def _note(self, requests: list[dict[str, Any]], texts: list[Any]) -> None:
        with self._lock:
            for request, text in zip(requests, texts, strict=True):
                if isinstance(text, Exception):
                    request["error"] = str(text)
                else:
                    request["response"] = text

    def add_request(self, prompt: Any, priority: int = 0) -> dict[str, Any]:
        """Adds a prompt, or a conversation (a list of messages).

        Args:
            prompt: what the server is sent; tokens, a list of ints, are a prompt too.
            priority: smaller is more urgent, from -100 to 100.

        Returns:
            A dict with `prompt`, `timestamp` (seconds since the epoch), and `future`, a `carpool.Future` of the
            text, which can be awaited too. It gets `response`, the text, or `error`, the text of the error, before
            the future ends.

        Raises:
            TypeError: it is neither a prompt nor a conversation.
            ValueError: the priority is out of range.
            carpool.BatcherClosed: it is closed.
        """
        inner = self._inner.options(priority=priority) if priority else self._inner
        request: dict[str, Any] = {"prompt": prompt, "timestamp": time.time(), "future": None}
        with self._lock:
            self._number += 1
            number = self._number
            self._requests[number] = request
        try:
            future = inner.submit(request)
        except BaseException:
            del self._requests[number]
            raise
        request["future"] = future

        def note(ended: carpool.Future[Any]) -> None:
            # What never reached the server, or was given up while it was there.
            with self._lock:
                if ended.cancelled():
                    request.pop("response", None)
                    request["error"] = "cancelled"
                elif (error := ended.exception()) is not None:
                    request.setdefault("error", str(error))
                self._requests.pop(number, None)

        future.add_done_callback(note)
        return request

    @property
    def pending_requests(self) -> list[dict[str, Any]]:
        """The requests that have no answer yet."""
        with self._lock:
            found = list(self._requests.values())
        return [one for one in found if one["future"] is None or not one["future"].done()]

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
        known("errors", errors, ("return", "raise"))
        futures = [one["future"] for one in self.pending_requests if one["future"] is not None]
        self._inner.flush()
        concurrent.futures.wait(futures)
        for future in futures:
            error = None if future.cancelled() else future.exception()
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


def _kind_of(request: dict[str, Any]) -> str:
    return kind_of(request["prompt"])
