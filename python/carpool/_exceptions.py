"""Everything that can go wrong, in one tree, and the private copy of an error for each caller."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

__all__ = [
    "AlreadyAnswered",
    "BatchAbandoned",
    "BatchLengthError",
    "BatcherClosed",
    "BatcherDead",
    "CarpoolError",
    "CollateError",
    "DeadlineExceeded",
    "HandlerError",
    "QueueFull",
    "RequestShed",
    "RequestTooLarge",
    "SetupError",
    "StreamStalled",
    "TooLate",
    "WouldDeadlock",
]


class CarpoolError(Exception):
    """The root of carpool's own errors."""


class QueueFull(CarpoolError):
    """`max_queue` requests are pending and `overflow` is "raise" (or "shed": see `RequestShed`)."""


class RequestShed(QueueFull):
    """`max_queue` requests are pending, `overflow` is "shed", and of all of them this one gave way."""


class DeadlineExceeded(CarpoolError, TimeoutError):
    """The request's time was over before it left in a batch; the handler never saw it."""


class TooLate(DeadlineExceeded):
    """With `refuse_late`: by its measured run times the handler cannot answer in time any more; it never saw it."""


class BatcherClosed(CarpoolError):
    """The batcher takes no more requests, or was closed before this one left."""


class BatcherDead(BatcherClosed):
    """An error of the handler has lost this process its device, so nothing can run any more; `__cause__` is it."""


class BatchAbandoned(CarpoolError):
    """The batch was dropped, or whoever held it ended, before this request was answered."""


class BatchLengthError(CarpoolError):
    """The handler's result does not have one row per request."""


class AlreadyAnswered(CarpoolError):
    """A request of the batch has its answer already; each is answered exactly once."""


class RequestTooLarge(CarpoolError):
    """The request alone costs more than `max_batch_cost`."""


class CollateError(CarpoolError):
    """The request's item does not fit the items it would share a batch with.

    A collator raises it for several items at once, with an error for each of them by its place in `misfits`.
    Without misfits it is about the batch as a whole.
    """

    def __init__(self, *args: object, misfits: Mapping[int, CollateError] | None = None) -> None:
        super().__init__(*args)
        #: By place in the batch, the items that do not fit.
        self.misfits: Mapping[int, CollateError] = misfits or {}


class HandlerError(CarpoolError):
    """The handler raised what no caller can be given a copy of; `__cause__` is the original."""


class SetupError(CarpoolError):
    """`setup` raised, so the handler cannot run; `__cause__` is the original."""


class StreamStalled(CarpoolError):
    """The reader of a stream left its buffer full for `stall_ms`; the other streams go on."""


class WouldDeadlock(CarpoolError, RuntimeError):
    """Waiting here could never end: what would have to run is what waits."""


def private_copy(original: BaseException) -> BaseException:
    """An error of the caller's own: of the original's type where that can be reproduced.

    One exception object raised in many callers would collect all their tracebacks and share its
    ``__context__``. So each gets a copy without a traceback, with the original as ``__cause__``.
    ``StopIteration``, what is not an ``Exception`` (raised in an event loop it would tear the loop
    down) and what does not survive copying become ``HandlerError``.
    """
    # By type: `isinstance` asks the object, too.
    if isinstance(original, Exception) and not issubclass(
        type(original), (StopIteration, StopAsyncIteration)
    ):
        try:
            twin = _twin(original)
        except Exception:  # whatever the class does on being looked at
            twin = None
        if twin is not None:
            _TRACEBACK.__set__(twin, None)
            _CONTEXT.__set__(twin, None)
            # These are the batcher's own; what its callers look for is what setup or the handler raised.
            cause = original.__cause__ if type(original) in (SetupError, BatcherDead) else original
            _CAUSE.__set__(twin, cause)
            return twin
    error = HandlerError(f"the handler raised {type(original).__name__}: {_text(original)}")
    error.__cause__ = original
    return error


#: Of the exception itself, whatever its class makes of these names.
_vars: Any = vars(BaseException)
_TRACEBACK, _CONTEXT, _CAUSE = (_vars[f"__{name}__"] for name in ("traceback", "context", "cause"))

#: Sets an attribute also where the class refuses that, as frozen dataclasses do.
_set = object.__setattr__


def _twin(original: Exception) -> Exception | None:
    kind = type(original)
    try:
        twin = copy.copy(original)
    except Exception:  # a constructor or __reduce__ of the user's: anything may come
        # Most often a constructor that takes other arguments than it hands on: pass it by.
        try:
            twin = kind.__new__(kind, *original.args)
            _set(twin, "args", original.args)
            twin.__dict__.update(original.__dict__)
        except Exception:
            return None
    if twin is original or type(twin) is not kind or twin.args != original.args:
        return None
    # What exceptions pickle and copy by, their __dict__, leaves out slots.
    for kind in type(original).__mro__:
        for name in _slots(kind):
            if hasattr(original, name):
                try:
                    _set(twin, name, getattr(original, name))
                except Exception:
                    return None
    return twin if _text(twin) == _text(original) else None


def _slots(kind: type) -> tuple[str, ...]:
    slots = kind.__dict__.get("__slots__", ())
    names = (slots,) if isinstance(slots, str) else tuple(slots)
    private = f"_{kind.__name__.lstrip('_')}"
    return tuple(
        private + name if name.startswith("__") and not name.endswith("__") else name
        for name in names
        if name not in ("__dict__", "__weakref__")
    )


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "(its text cannot be shown)"
