"""What decorated functions of all front doors have in common: their looks, their pickles, and many calls in one."""

from __future__ import annotations

import functools
import inspect
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import carpool

__all__ = [
    "UNBOUNDED",
    "Front",
    "PerInstance",
    "ProcessLock",
    "await_all",
    "batcher",
    "give_up",
    "is_coroutine_function",
    "named_as",
    "the_class",
]

#: `max_queue` where the library that is stood in for has no bound.
UNBOUNDED = 2**31

S = TypeVar("S")

_WRAPPED = ".__wrapped__"


class Front:
    """A decorated function: looks like the one it wraps, pickles by its place or by value.

    By value it travels as its function and its settings; state stays behind.
    """

    _function: Callable[..., Any]
    _settings: dict[str, Any]

    def _wear(self, function: Callable[..., Any], settings: dict[str, Any]) -> None:
        """Takes on the looks of `function`, and keeps what it takes to be made again."""
        self._function, self._settings = function, settings
        wrapper: Any = self
        functools.update_wrapper(wrapper, function)

    def __reduce__(self) -> Any:
        path = str(getattr(self, "__qualname__", ""))
        module = str(getattr(self, "__module__", ""))
        if _stands_at(module, path) is self:
            if module != "__main__":
                return path
            # Picklers differ in what they make of `__main__`; named like this, the function is found by those that
            # look it up, and the others take it along.
            self._function.__qualname__ = path + _WRAPPED
        return _remake, (type(self), self._function, self._settings)

    def __reduce_ex__(self, protocol: Any, /) -> Any:
        made = self.__reduce__()
        # Before protocol 4 what is within a function is reached by pickling the function: a circle.
        named = isinstance(made, tuple) and made[0] is _remake and protocol < 4
        path = str(getattr(self, "__qualname__", ""))
        module = str(getattr(self, "__module__", ""))
        return path if named and _stands_at(module, path) is self else made


def _stands_at(module: str, path: str) -> Any:
    """What stands at a qualified name; None where nothing does."""
    found: Any = sys.modules.get(module)
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


def _remake(kind: Callable[..., Front], function: Any, settings: dict[str, Any]) -> Front:
    path = str(getattr(function, "__qualname__", "")).removesuffix(_WRAPPED)
    found = _stands_at(str(getattr(function, "__module__", "")), path)
    if isinstance(found, Front) and found._function is function:
        return found
    return kind(function, **settings)


class ProcessLock:
    """A lock, re-entrant, that is free in a forked child: whoever held it in the parent may not exist there."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _locks.add(self)

    def renew(self) -> None:
        """Frees it, for the child of a fork."""
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


_locks: weakref.WeakSet[ProcessLock] = weakref.WeakSet()


def _in_child() -> None:
    for lock in list(_locks):
        lock.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


class PerInstance(Generic[S]):
    """What belongs to each instance of a class, made at first use, gone with it. It must not know the instance."""

    def __init__(self, make: Callable[[], S]) -> None:
        self._make = make
        self._lock = ProcessLock()
        self._known: dict[int, tuple[weakref.ref[Any], S]] = {}

    def of(self, instance: Any) -> S:
        """That of `instance`, which must take weak references."""
        number = id(instance)
        found = self._known.get(number)
        if found is None or found[0]() is not instance:
            with self._lock:
                found = self._known.get(number)
                if found is None or found[0]() is not instance:
                    found = weakref.ref(instance, self._forgetting(number)), self._make()
                    self._known[number] = found
        return found[1]

    def _forgetting(self, number: int) -> Callable[[Any], None]:
        known = self._known

        def forget(gone: Any) -> None:
            # The number may be a new instance's by now.
            if known.get(number, (None,))[0] is gone:
                del known[number]

        return forget


def named_as(handler: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """The handler, under the name of the user's function but with its own parameters."""
    for one in ("__module__", "__name__", "__qualname__", "__doc__"):
        if hasattr(function, one):
            setattr(handler, one, getattr(function, one))
    return handler


def is_coroutine_function(function: Any) -> bool:
    """Whether calling it makes a coroutine; also for partials and objects with an `async def __call__`."""
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function):
        function = getattr(function, "__call__", function)  # noqa: B004
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        inspect.unwrap(function)
    )


def batcher(handler: Callable[..., Any], **options: Any) -> Any:
    """`carpool.batched`, for handlers whose types are known to whoever calls this."""
    decorate: Any = carpool.batched
    return decorate(handler, **options)


async def await_all(ask: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Submits all items by `ask`, which returns an awaitable; the results in their order.

    The first error in that order is raised; what is still pending then, or when this is cancelled, is given up.
    """
    waiting: list[Any] = []
    try:
        waiting.extend(map(ask, items))
        return [await one for one in waiting]
    except BaseException:
        give_up(waiting)
        raise


def give_up(waiting: Iterable[Any]) -> None:
    """Cancels what has not ended; nobody is told of the errors of the rest."""
    for one in waiting:
        if not one.cancel():
            # The error that is raised stands for its own.
            one.add_done_callback(_receive)


def _receive(ended: Any) -> None:
    if not ended.cancelled():
        ended.exception()


def the_class(loaded: str, name: str) -> Any:
    """A class of another package if the program has that package loaded, else None."""
    return getattr(sys.modules.get(loaded), name, None)
