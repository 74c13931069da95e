"""Lists, streams and files of prompts: read as far as they are needed, sent in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from carpool.compat._front import UNBOUNDED, batcher

from ._server import Server, is_conversation, text_of

__all__ = ["chunked_batch_process", "robust_batch_process", "stream_batch_process"]

#: What becomes of prompts that failed.
ERRORS = ("none", "return", "raise")


def _texts(
    prompts: Iterable[Any],
    server: Server,
    *,
    batch_size: int,
    errors: str,
    window: int | None = None,
    retries: int = 0,
    backoff_s: float = 1.0,
) -> Iterator[Any]:
    if errors not in ERRORS:
        raise ValueError(f"errors must be one of 'none', 'return', 'raise', not {errors!r}")

    async def send(items: list[Any]) -> list[Any]:
        choices = await server.choices(items)
        return [one if isinstance(one, Exception) else text_of(one) for one in choices]

    inner = batcher(
        send,
        max_batch_size=batch_size,
        max_queue=UNBOUNDED,
        executor="thread",
        key=is_conversation,
        name=f"prompts to {server.model_id}",
    )
    return _run(inner, prompts, errors, window, retries, backoff_s)


def _run(
    inner: Any,
    prompts: Iterable[Any],
    errors: str,
    window: int | None,
    retries: int,
    backoff_s: float,
) -> Iterator[Any]:
    results = inner.map(
        prompts,
        errors="raise" if errors == "raise" else "return",
        window=window,
        retries=retries,
        backoff_ms=backoff_s * 1000,
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
    **params: Any,
) -> Iterator[Any]:
    """The texts of prompts, or of conversations, as they come, in their order.

    Args:
        prompts: any iterable; it is read a few batches ahead.
        client, model_id, chats, **params: see `DynamicBatcher`.
        batch_size: most prompts in one batch.
        errors: of prompts that failed: "none" gives None, "return" the error, "raise" raises the first.

    Raises:
        TypeError, ValueError: a setting is of the wrong type or out of range.
        Exception: what the client raised, with errors="raise".
    """
    server = Server(client, model_id, params, chats)
    return _texts(prompts, server, batch_size=batch_size, errors=errors)


def chunked_batch_process(
    file_path: str | Path,
    client: Any,
    model_id: str,
    chunk_size: int = 1000,
    batch_size: int = 32,
    *,
    errors: str = "none",
    **params: Any,
) -> list[Any]:
    """The texts of the lines of a file, in their order.

    Args:
        file_path: a text file in UTF-8; each line, without white space around it, is a prompt.
        client, model_id, **params: see `DynamicBatcher`.
        chunk_size: most lines read ahead.
        batch_size: most prompts in one batch.
        errors: see `stream_batch_process`.

    Raises:
        OSError: the file cannot be read.
        TypeError, ValueError: a setting is of the wrong type or out of range.
        Exception: what the client raised, with errors="raise".
    """
    server = Server(client, model_id, params, "together")
    with open(file_path, encoding="utf-8") as lines:
        prompts = (line.strip() for line in lines)
        return list(
            _texts(prompts, server, batch_size=batch_size, errors=errors, window=chunk_size)
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
    **params: Any,
) -> list[Any]:
    """The texts of prompts, or of conversations, in their order; what failed is tried again.

    Args:
        prompts: any iterable.
        client, model_id, chats, **params: see `DynamicBatcher`.
        batch_size: most prompts in one batch.
        max_retries: how often a prompt is tried in all.
        errors: of prompts that failed each time; see `stream_batch_process`.
        backoff_s: seconds before the second try; they double each time up to half a minute, and up to half of them is
            taken off by chance.

    Raises:
        TypeError, ValueError: a setting is of the wrong type or out of range.
        Exception: what the client raised, with errors="raise".
    """
    if isinstance(max_retries, bool) or not isinstance(max_retries, int) or max_retries < 1:
        raise ValueError(f"max_retries must be an int from 1, not {max_retries!r}")
    server = Server(client, model_id, params, chats)
    return list(
        _texts(
            prompts,
            server,
            batch_size=batch_size,
            errors=errors,
            retries=max_retries - 1,
            backoff_s=backoff_s,
        )
    )
