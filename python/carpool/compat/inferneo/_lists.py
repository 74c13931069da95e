"""Lists, streams and files of prompts: read as far as they are needed, sent in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from carpool.compat._front import UNBOUNDED, batcher

from ._checks import ON_ERROR, at_least_one, known, milliseconds
from ._server import Server, kind_of

__all__ = ["chunked_batch_process", "robust_batch_process", "stream_batch_process"]

#: What becomes of prompts that failed.
ERRORS = ("none", "return", "raise")


def _texts(
    prompts: Iterable[Any],
    server: Server,
    *,
    batch_size: int,
    errors: str,
    on_error: str,
    window: int | None = None,
    retries: int = 0,
    backoff_ms: float = 0,
) -> Iterator[Any]:
    known("errors", errors, ERRORS)
    known("on_error", on_error, ON_ERROR)
    options: dict[str, Any] = {}
    # A batch is tried again as it was; of conversations apart, those alone that failed.
    again = {"retries": retries, "backoff_ms": backoff_ms}
    if retries and server.chats == "together":
        options = {"retries": retries, "retry_on": Exception, "retry_ms": backoff_ms}
        again = {}
    inner = batcher(
        server.texts,
        max_batch_size=at_least_one("batch_size", batch_size),
        max_queue=UNBOUNDED,
        executor="thread",
        on_error=on_error,
        key=kind_of,
        name=f"prompts to {server.model_id}",
        **options,
    )
    return _run(inner, prompts, errors, window, again)


def _run(
    inner: Any,
    prompts: Iterable[Any],
    errors: str,
    window: int | None,
    again: dict[str, Any],
) -> Iterator[Any]:
    results = inner.map(
        prompts,
        errors="raise" if errors == "raise" else "return",
        window=window,
        **again,
    )
    try:
        for result in results:
            failed = errors == "none" and isinstance(result, Exception)
            yield None if failed else result
    finally:
        results.close()
        # Whoever leaves early does not wait for what the server is doing.
        inner.close(drain=False, timeout=0)


def stream_batch_process(
    prompts: Iterable[Any],
    client: Any,
    model_id: str,
    batch_size: int = 16,
    *,
    errors: str = "none",
    chats: str = "together",
    on_error: str = "raise",
    **params: Any,
) -> Iterator[Any]:
    """The texts of prompts, or of conversations, as they come, in their order.

    Args:
        prompts: any iterable; it is read a few batches ahead.
        client, model_id, chats, on_error, **params: see `DynamicBatcher`.
        batch_size: most prompts in one batch.
        errors: of prompts that failed: "none" gives None, "return" the error, "raise" raises the first.

    Raises:
        TypeError, ValueError: a setting is of the wrong type or out of range.
        Exception: what the client raised, with errors="raise".
    """
    server = Server(client, model_id, params, chats)
    return _texts(prompts, server, batch_size=batch_size, errors=errors, on_error=on_error)


def chunked_batch_process(
    file_path: str | Path,
    client: Any,
    model_id: str,
    chunk_size: int = 1000,
    batch_size: int = 32,
    *,
    errors: str = "none",
    on_error: str = "raise",
    **params: Any,
) -> list[Any]:
    """The texts of the lines of a file, in their order.

    Args:
        file_path: a text file in UTF-8; each line, without white space around it, is a prompt.
        client, model_id, on_error, **params: see `DynamicBatcher`.
        chunk_size: most lines read ahead.
        batch_size: most prompts in one batch.
        errors: see `stream_batch_process`.

    Raises:
        OSError: the file cannot be read.
        TypeError, ValueError: a setting is of the wrong type or out of range.
        Exception: what the client raised, with errors="raise".
    """
    server = Server(client, model_id, params, "together")
    window = at_least_one("chunk_size", chunk_size)
    with open(file_path, encoding="utf-8") as lines:
        prompts = (line.strip() for line in lines)
        return list(
            _texts(
                prompts,
                server,
                batch_size=batch_size,
                errors=errors,
                on_error=on_error,
                window=window,
            )
        )


def robust_batch_process(
    prompts: Iterable[Any],
    client: Any,
    model_id: str,
    batch_size: int = 16,
    max_retries: int = 3,
    *,
    errors: str = "none",
    backoff_s: float = 1.0,
    chats: str = "together",
    on_error: str = "isolate",
    **params: Any,
) -> list[Any]:
    """The texts of prompts, or of conversations, in their order; a batch that fails is tried again.

    A batch that fails each time is sent in halves then, and halves of those, until the prompts that make it fail stand
    alone; with `on_error="raise"` all its prompts have failed.

    Args:
        prompts: any iterable.
        client, model_id, chats, **params: see `DynamicBatcher`.
        batch_size: most prompts in one batch.
        max_retries: how often a batch is tried in all; with `chats="apart"`, a conversation.
        errors: of prompts that failed each time; see `stream_batch_process`.
        backoff_s: seconds before the second try; they double each time, up to a minute. With `chats="apart"` up to
            half a minute, and up to half of them is taken off by chance.

    Raises:
        TypeError, ValueError: a setting is of the wrong type or out of range.
        Exception: what the client raised, with errors="raise".
    """
    tries = at_least_one("max_retries", max_retries)
    backoff_ms = milliseconds("backoff_s", backoff_s)
    server = Server(client, model_id, params, chats)
    return list(
        _texts(
            prompts,
            server,
            batch_size=batch_size,
            errors=errors,
            on_error=on_error,
            retries=tries - 1,
            backoff_ms=backoff_ms,
        )
    )
