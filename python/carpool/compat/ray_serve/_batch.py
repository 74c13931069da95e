"""`batch`: the decorator, and the function it makes, over a carpool batcher on the callers' event loops."""

from __future__ import annotations

import functools
import inspect
import math
import sys
import types
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

import carpool
from carpool.compat._front import (
    UNBOUNDED,
    Front,
    PerInstance,
    batcher,
    is_coroutine_function,
    named_as,
)

from ._errors import check_batches, check_rows, check_size_fn, seconds_of, size_of
from ._request import Binder, Request, arguments_of, parts_within, show_to_ray
from ._stream import steps_of, told_by

if TYPE_CHECKING:
    from carpool._types import Rows

    from ._types import Decorator, Function, Method

__all__ = ["BatchedCallable", "batch"]

S_contra = TypeVar("S_contra", contravariant=True)
T = TypeVar("T")
R = TypeVar("R")

#: The longest wait of a batcher, in seconds (ten days); longer ones stand for "for ever".
LONGEST_S = 864_000.0


class _Limits:
    """Which of the function's settings a batcher runs with."""

    def __init__(self) -> None:
        self.version = 0


class BatchedCallable(Front):
    """A function made by `batch`. Methods have a batcher for each instance.

    Settings are those of the function: a change reaches the batchers of all instances, each at the beginning of
    its next batch.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        max_batch_size: int,
        batch_wait_timeout_s: float,
        max_concurrent_batches: int,
        batch_size_fn: Callable[[list[Any]], int] | None,
    ) -> None:
        self._wear(
            function,
            {
                "max_batch_size": max_batch_size,
                "batch_wait_timeout_s": batch_wait_timeout_s,
                "max_concurrent_batches": max_concurrent_batches,
                "batch_size_fn": batch_size_fn,
            },
        )
        self.streams = _is_async_generator(function)
        self._size_fn = batch_size_fn
        self._version = 0
        self._owns = PerInstance(_Limits)
        self._own = _Limits()
        self._free = self._batcher(method=False)
        self._method = self._batcher(method=True)
        self._binders: dict[bool, Binder] = {}
        self._of_instances = self._function_for_methods()
        if not self.streams:
            _mark_as_coroutine_function(self)

    # ----------------------------------------------------------------------------------- calls

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """A coroutine of the result, or an async generator of the steps.

        Raises:
            TypeError: the arguments do not fit.
            RayServeException: the handler's list was of another length than its input.
            RuntimeError: the size of the item is greater than `max_batch_size`.
            Exception: what the handler raised, as an exception of the caller's own.
        """
        if args and self._is_method_of(args[0]):
            return self._of_instances(*args, **kwargs)
        if self.streams:
            return self._steps(None, args, kwargs)
        return self._result(None, args, kwargs)

    def _is_method_of(self, first: Any) -> bool:
        """Whether a call with this argument is `Model.method(model, x)`, or that of a class method."""
        name = self.__dict__.get("__name__", "")
        if isinstance(first, type):
            # Up to CPython 3.12 class methods bind what they hold themselves.
            found = inspect.getattr_static(first, name, None)
            return isinstance(found, classmethod) and found.__func__ is self
        # A static method may be given an instance as its item.
        return (
            getattr(type(first), name, None) is self
            and inspect.getattr_static(type(first), name) is self
        )

    if TYPE_CHECKING:

        def __get__(self, instance: Any, owner: Any = None) -> Any: ...

    else:

        def __get__(self, instance: Any, owner: Any = None) -> Any:
            return self if instance is None else types.MethodType(self._of_instances, instance)

    def _function_for_methods(self) -> Any:
        """A plain function of the instance and the arguments, as those who look at methods expect."""
        made: Any
        if self.streams:

            def steps(instance: Any, /, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
                return self._steps(instance, args, kwargs)

            made = steps
        else:

            async def result(instance: Any, /, *args: Any, **kwargs: Any) -> Any:
                return await self._result(instance, args, kwargs)

            made = result
        return self.dress(made)

    def dress(self, function: Any) -> Any:
        """A plain function with the looks and the setters of this one."""
        functools.update_wrapper(function, self._function)
        for name in SETTERS:
            setattr(function, name, getattr(self, name))
        return function

    async def _result(self, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return await self._submit(*self._request(instance, args, kwargs))

    def _steps(
        self, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        # The request is on its way before the first step is asked for.
        return told_by(self._submit(*self._request(instance, args, kwargs)))

    def _request(
        self, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, Request]:
        method = instance is not None
        binder = self._binders.get(method)
        if binder is None:
            binder = self._binders[method] = Binder(self._function, method=method)
        request = binder.request(args, kwargs)
        inner = self._method.__get__(instance) if method else self._free
        if self._own_of(instance).version != self._version and not inner.stats.pending:
            self._bring_up(instance)
        return inner, request

    def _submit(self, inner: Any, request: Request) -> Any:
        try:
            return inner.acall(request)
        except carpool.RequestTooLarge as error:
            raise RuntimeError(
                "Size of item is greater than max_batch_size. Please increase the max_batch_size or check the "
                "implementation of the batch_size_fn."
            ) from error

    # ---------------------------------------------------------------------------------- handler

    def _batcher(self, *, method: bool) -> Any:
        # Nothing is started by making it: of the two, functions use one and methods the other.
        handler: Any
        options: dict[str, Any] = self._limits()
        if self.streams:
            # A caller may leave its steps for as long as it likes.
            options.update(buffer_steps=UNBOUNDED, stall_ms=None)
        if self.streams and method:

            async def steps_of_instance(
                instance: Any, requests: list[Request]
            ) -> AsyncIterator[list[Any]]:
                async for step in self._handle_steps(instance, (instance,), requests):
                    yield step

            handler = steps_of_instance
        elif self.streams:

            async def steps_of_function(requests: list[Request]) -> AsyncIterator[list[Any]]:
                async for step in self._handle_steps(None, (), requests):
                    yield step

            handler = steps_of_function
        elif method:

            async def of_instance(instance: Any, requests: list[Request]) -> Any:
                return await self._handle(instance, (instance,), requests)

            handler = of_instance
        else:

            async def of_function(requests: list[Request]) -> Any:
                return await self._handle(None, (), requests)

            handler = of_function
        size_fn = self._size_fn
        if size_fn is not None:
            one = size_fn
            options["cost"] = lambda request: math.ceil(one([request.first]))
        return batcher(
            named_as(handler, self._function),
            executor="loop",
            key=lambda request: request.kind,
            max_queue=UNBOUNDED,
            max_concurrent_batches=self._settings["max_concurrent_batches"],
            **options,
        )

    def _handle_steps(
        self, instance: Any, bound: tuple[Any, ...], requests: list[Request]
    ) -> AsyncIterator[list[Any]]:
        self._begin(instance, requests)
        positional, by_name = arguments_of(requests)
        return steps_of(self._function(*bound, *positional, **by_name), len(requests))

    async def _handle(
        self, instance: Any, bound: tuple[Any, ...], requests: list[Request]
    ) -> Sequence[Any]:
        self._begin(instance, requests)
        if self._size_fn is None:
            return await self._run(bound, requests)
        # Sizes are added up to form a batch; where the whole is more than that, it runs in parts.
        parts = parts_within(requests, self._size_fn, self._settings["max_batch_size"])
        if len(parts) == 1:
            return await self._run(bound, requests)
        results: list[Any] = []
        for part in parts:
            try:
                results.extend(await self._run(bound, part))
            except Exception as error:
                results.extend([error] * len(part))
        return results

    async def _run(self, bound: tuple[Any, ...], requests: list[Request]) -> Sequence[Any]:
        positional, by_name = arguments_of(requests)
        results: Sequence[Any] = await self._function(*bound, *positional, **by_name)
        check_rows(results, len(requests))
        return results

    def _begin(self, instance: Any, requests: list[Request]) -> None:
        if self._own_of(instance).version != self._version:
            self._bring_up(instance)
        show_to_ray(requests)

    # --------------------------------------------------------------------------------- settings

    def _own_of(self, instance: Any) -> _Limits:
        return self._own if instance is None else self._owns.of(instance)

    def _limits(self) -> dict[str, Any]:
        size: int = self._settings["max_batch_size"]
        wait_ms = min(self._settings["batch_wait_timeout_s"], LONGEST_S) * 1000
        if self._size_fn is None:
            return {"max_batch_size": size, "wait_ms": wait_ms}
        return {"max_batch_size": UNBOUNDED, "max_batch_cost": size, "wait_ms": wait_ms}

    def _bring_up(self, instance: Any) -> None:
        """Has a batcher run with the settings of now."""
        version = self._version
        inner = self._free if instance is None else self._method.__get__(instance)
        inner.configure(**self._limits())
        self._own_of(instance).version = version

    def set_max_batch_size(self, new_max_batch_size: int) -> None:
        """The most requests (or size, with `batch_size_fn`) of batches that begin from now on.

        Raises:
            TypeError, ValueError: it is no whole number from 1.
        """
        self._settings["max_batch_size"] = size_of(new_max_batch_size)
        self._version += 1

    def set_batch_wait_timeout_s(self, new_batch_wait_timeout_s: float) -> None:
        """The longest wait for company, in seconds, of batches that begin from now on.

        Raises:
            TypeError, ValueError: it is no number from 0.
        """
        self._settings["batch_wait_timeout_s"] = seconds_of(new_batch_wait_timeout_s)
        self._version += 1

    def _get_max_batch_size(self) -> int:
        size: int = self._settings["max_batch_size"]
        return size

    def _get_batch_wait_timeout_s(self) -> float:
        seconds: float = self._settings["batch_wait_timeout_s"]
        return seconds


SETTERS = (
    "set_max_batch_size",
    "set_batch_wait_timeout_s",
    "_get_max_batch_size",
    "_get_batch_wait_timeout_s",
)


def _is_async_generator(function: Any) -> bool:
    return inspect.isasyncgenfunction(function) or inspect.isasyncgenfunction(
        inspect.unwrap(function)
    )


def _mark_as_coroutine_function(function: Any) -> None:
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(function)
    else:
        import asyncio.coroutines

        function._is_coroutine = vars(asyncio.coroutines)["_is_coroutine"]


@overload
def batch(_func: Callable[[list[T]], Coroutine[Any, Any, Rows[R]]], /) -> Function[T, R]: ...
@overload
def batch(
    _func: Callable[[S_contra, list[T]], Coroutine[Any, Any, Rows[R]]], /
) -> Method[S_contra, Function[T, R]]: ...
@overload
def batch(_func: Callable[..., Awaitable[Any] | AsyncIterator[Any]], /) -> Any: ...
@overload
def batch(
    _func: None = None,
    /,
    max_batch_size: int = 10,
    batch_wait_timeout_s: float = 0.01,
    max_concurrent_batches: int = 1,
    batch_size_fn: Callable[[list[Any]], int] | None = None,
) -> Decorator: ...
def batch(
    _func: Any = None,
    /,
    max_batch_size: int = 10,
    batch_wait_timeout_s: float = 0.01,
    max_concurrent_batches: int = 1,
    batch_size_fn: Callable[[list[Any]], int] | None = None,
) -> Any:
    """Makes single calls of an `async def` function of lists, or of an async generator, run as batches.

    Args:
        max_batch_size: most requests in one batch, or most size with `batch_size_fn`.
        batch_wait_timeout_s: longest time the oldest request is held for company while a batch may run, in seconds.
        max_concurrent_batches: how many batches may run at once.
        batch_size_fn: takes a list of items (values of the first parameter) and returns its size.

    Raises:
        TypeError, ValueError: a setting is of the wrong type or out of range, or the function is not `async def`.
    """
    size = size_of(max_batch_size)
    seconds = seconds_of(batch_wait_timeout_s)
    check_batches(max_concurrent_batches)
    check_size_fn(batch_size_fn)

    def decorate(function: Any) -> Any:
        if not callable(function):
            raise TypeError("@serve.batch can only be used to decorate functions or methods.")
        if not is_coroutine_function(function) and not _is_async_generator(function):
            raise TypeError("Functions decorated with @serve.batch must be 'async def'")
        return BatchedCallable(
            function,
            max_batch_size=size,
            batch_wait_timeout_s=seconds,
            max_concurrent_batches=max_concurrent_batches,
            batch_size_fn=batch_size_fn,
        )

    return decorate if _func is None else decorate(_func)
