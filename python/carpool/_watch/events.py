"""Notable events, told to the logger "carpool"."""

from __future__ import annotations

import logging
from typing import Any

logger = logging.getLogger("carpool")


def lost_error(name: str, error: BaseException) -> None:
    """A request failed and nobody received its error."""
    if not _is_whole(error):
        return
    logger.error("%s: a request failed and nobody received the error", name, exc_info=error)


def worker_died(name: str, error: BaseException) -> None:
    """Something ended a worker outside of the handler; its batch is abandoned, it starts anew."""
    logger.error("%s: the worker died and is replaced", name, exc_info=error)


def setup_failed(name: str, error: BaseException) -> None:
    """`setup` raised: every pending and later caller gets a SetupError."""
    logger.error("%s: setup failed, the batcher is closed", name, exc_info=error)


def late_error(name: str, error: BaseException) -> None:
    """A streaming handler raised after all of its streams had ended."""
    logger.error("%s: the handler raised after its last stream had ended", name, exc_info=error)


def hook_failed(name: str, error: BaseException) -> None:
    """`on_request` raised; nobody else notices."""
    logger.error("%s: on_request raised", name, exc_info=error)


def slow_handler(name: str, took_ms: float, slow_ms: float, count: int) -> None:
    """Batches took longer than `slow_ms`; said once a minute."""
    more = "" if count == 1 else f", the longest of {count} since this was said last"
    logger.warning(
        "%s: a batch took %.1f ms, which is more than slow_ms=%g%s", name, took_ms, slow_ms, more
    )


def device_lost(name: str, error: BaseException) -> None:
    """A handler's error has lost the process its device: every pending and later caller gets a BatcherDead."""
    logger.error(
        "%s: the device is lost to this process, the batcher is dead", name, exc_info=error
    )


def out_of_memory(name: str, size: int, most: int | None, cost: int | None) -> None:
    """The handler ran out of memory with so many requests; so many are the most for now, or so much cost."""
    limit = f"of at most {most}" if cost is None else f"that cost at most {cost}"
    logger.warning(
        "%s: out of memory with %d requests in a run; batches %s for now", name, size, limit
    )


def slow_close(name: str, seconds: float, pending: int, in_flight: int) -> None:
    """A close has waited long."""
    logger.warning(
        "%s: close has waited %.1f s; %d pending, %d in flight", name, seconds, pending, in_flight
    )


def _is_whole(error: BaseException) -> bool:
    """Whether it can be shown, with all that led to it.

    An error that went with a circle of garbage may have been cleared before. It has lost its arguments then,
    which CPython does not expect when asked for its text: it would follow a null pointer.
    """
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        arguments: Any = _ARGUMENTS.__get__(one)
        if arguments is None:
            return False
        todo += (one.__cause__, one.__context__, *(getattr(one, "exceptions", None) or ()))
    return True


#: Of the base, whatever a class has made of the name.
_ARGUMENTS: Any = vars(BaseException)["args"]
