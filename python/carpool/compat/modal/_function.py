"""`Function`: what `App.function` makes of a function, and what a method of an `Obj` is."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
)
from typing import TYPE_CHECKING, Any

from carpool.compat._front import (
    UNBOUNDED,
    Front,
    ProcessLock,
    batcher,
    is_coroutine_function,
    named_as,
)
from carpool.compat._home import Home

from ._both import Both
from ._call import FunctionCall
from ._checks import (
    Batching,
    batching,
    check_function,
    check_output,
    concurrency,
    item_of,
    known_options,
)
from ._cloud import tell_ignored
from ._many import Results, acalls_of, calls_of
from .exception import InvalidError

if TYPE_CHECKING:
    import carpool

    from ._cls import Container

__all__ = ["Function"]


class Function(Front):
    """A function, or a method of an object, whose calls run in this process: batched ones together, others one by one.

    Args:
        function: the user's function.
        batching: how its calls are batched; None for one by one.
        max_inputs: how many batches (or calls) may run at once.
        web: how it answers requests on the web, if it does.
        container: what a method belongs to.
    """

    #: What made it.
    _modal_decorator = "app.function"

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        batching: Batching | None = None,
        max_inputs: int = 1,
        web: dict[str, Any] | None = None,
        container: Container | None = None,
    ) -> None:
        self._wear(
            function,
            {
                "batching": batching,
                "max_inputs": max_inputs,
                "web": web,
                "container": container,
            },
        )
        if batching is not None:
            check_function(function)
        self._batching, self._container, self.web = batching, container, web
        self._name: str = function.__name__
        parameters = list(inspect.signature(function).parameters.values())
        if container is not None:
            del parameters[:1]
        self._parameters = [one.name for one in parameters]
        #: Those that take no position; they are the last.
        self._named = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]
        self._is_async = is_coroutine_function(function)
        self._streams = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(
            function
        )
        self._lock = ProcessLock()
        self._running: Any = None
        self._home = Home(f"modal {self._name}") if container is None else container.home
        self.remote = Both(self._remote, self._aremote)
        self.map = Both(self._map, self._amap)
        self.starmap = Both(self._starmap, self._astarmap)
        self.for_each = Both(self._for_each, self._afor_each)
        self.spawn = Both(self._spawn, self._aspawn)

    # ---------------------------------------------------------------------------------- running

    @property
    def _inner(self) -> Any:
        inner = self._running
        if inner is None:
            with self._lock:
                if self._running is None:
                    self._running = self._batcher()
                inner = self._running
        return inner

    def _batcher(self) -> Any:
        size, wait_ms = self._batching or (1, 0)
        container = self._container

        def run(items: list[Any]) -> list[Any]:
            results: list[Any] = [one if isinstance(one, Exception) else None for one in items]
            fit = [at for at, one in enumerate(results) if one is None]
            if fit:
                found = self._run([items[at] for at in fit])
                for at, result in zip(fit, found, strict=True):
                    results[at] = result
            return results

        return batcher(
            named_as(run, self._function),
            max_batch_size=size,
            wait_ms=wait_ms,
            max_queue=UNBOUNDED,
            max_concurrent_batches=self._settings["max_inputs"],
            executor="thread",
            setup=None if container is None else container.enter,
        )

    def _run(self, items: list[Any]) -> list[Any]:
        bound = () if self._container is None else (self._container.instance,)
        if self._batching is None:
            args, kwargs = items[0]
            return [self._call(*bound, *args, **kwargs)]
        columns = [list(column) for column in zip(*items, strict=True)]
        first = len(columns) - len(self._named)
        named = dict(zip(self._named, columns[first:], strict=True))
        output = self._call(*bound, *columns[:first], **named)
        return check_output(self._name, output, len(items))

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        made = self._function(*args, **kwargs)
        return self._home.run(made) if self._is_async else made

    def _item(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._streams:
            raise InvalidError(f"{self._name} is a generator: only .local(...) runs it here.")
        if self._batching is None:
            return args, kwargs
        return item_of(self._name, self._parameters, args, kwargs)

    def stop(self, timeout: float | None = None) -> None:
        """Answers what was accepted, for at most `timeout` seconds, and ends; a later call begins anew."""
        with self._lock:
            inner, self._running = self._running, None
        if inner is not None:
            inner.close(timeout=timeout)
        if self._container is None:
            self._home.stop()

    @property
    def stats(self) -> carpool.Stats:
        """Figures of the batcher underneath."""
        stats: carpool.Stats = self._inner.stats
        return stats

    # ------------------------------------------------------------------------------------ calls

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As `remote`."""
        return self._remote(*args, **kwargs)

    def _remote(self, *args: Any, **kwargs: Any) -> Any:
        """Runs one call and blocks for its result; a batched function is called with one input.

        Raises:
            InvalidError: the arguments do not fit a batched function, or its output is no list of its inputs' length.
            carpool.SetupError: what `enter` raised.
            Exception: what the function raised.
        """
        return self._inner(self._item(args, kwargs))

    async def _aremote(self, *args: Any, **kwargs: Any) -> Any:
        return await self._inner.acall(self._item(args, kwargs))

    def local(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the function itself, here and now: a batched one with lists, an `async def` one to be awaited."""
        if self._container is None:
            return self._function(*args, **kwargs)
        self._container.enter()
        return self._function(self._container.instance, *args, **kwargs)

    def _spawn(self, *args: Any, **kwargs: Any) -> FunctionCall:
        """Starts one call; a `FunctionCall` of its result."""
        return FunctionCall(self._inner.submit(self._item(args, kwargs)))

    async def _aspawn(self, *args: Any, **kwargs: Any) -> FunctionCall:
        return self._spawn(*args, **kwargs)

    # ------------------------------------------------------------------------------- many calls

    def _one_of_many(self, args: Iterable[Any], kwargs: dict[str, Any] | None) -> Any:
        """The item of a call; of a wrong one its error, which comes in the place of its result."""
        try:
            return self._item(tuple(args), kwargs or {})
        except Exception as error:
            return error

    def _map(
        self,
        *input_iterators: Iterable[Any],
        kwargs: dict[str, Any] | None = None,
        order_outputs: bool = True,
        return_exceptions: bool = False,
        wrap_returned_exceptions: bool | None = None,
    ) -> Results:
        """The results of a call for each input, from one iterable per positional argument, for `for` or `async for`.

        Args:
            kwargs: further arguments of every call.
            order_outputs: in the order of the inputs, else in that of their ends.
            return_exceptions: errors are results; else the first ends it.
            wrap_returned_exceptions: without effect.
        """
        return Results(
            self._many(calls_of(input_iterators), kwargs, order_outputs, return_exceptions),
            lambda: self._amap(
                *input_iterators,
                kwargs=kwargs,
                order_outputs=order_outputs,
                return_exceptions=return_exceptions,
            ),
        )

    def _starmap(
        self,
        input_iterator: Iterable[Any],
        *,
        kwargs: dict[str, Any] | None = None,
        order_outputs: bool = True,
        return_exceptions: bool = False,
        wrap_returned_exceptions: bool | None = None,
    ) -> Results:
        """As `map`, of one iterable of tuples of arguments."""
        return Results(
            self._many(input_iterator, kwargs, order_outputs, return_exceptions),
            lambda: self._astarmap(
                input_iterator,
                kwargs=kwargs,
                order_outputs=order_outputs,
                return_exceptions=return_exceptions,
            ),
        )

    def _for_each(
        self,
        *input_iterators: Iterable[Any],
        kwargs: dict[str, Any] | None = None,
        ignore_exceptions: bool = False,
    ) -> None:
        """As `map`, without results; errors are raised, or ignored."""
        for _ in self._many(calls_of(input_iterators), kwargs, False, ignore_exceptions):
            pass

    def _many(
        self, calls: Iterable[Any], kwargs: dict[str, Any] | None, ordered: bool, returned: bool
    ) -> Generator[Any, None, None]:
        items = (self._one_of_many(args, kwargs) for args in calls)
        results: Generator[Any, None, None] = self._inner.map(
            items, ordered=ordered, return_exceptions=returned
        )
        return results

    def _amap(
        self,
        *input_iterators: Iterable[Any] | AsyncIterable[Any],
        kwargs: dict[str, Any] | None = None,
        order_outputs: bool = True,
        return_exceptions: bool = False,
        wrap_returned_exceptions: bool | None = None,
    ) -> AsyncIterator[Any]:
        return self._amany(acalls_of(input_iterators), kwargs, order_outputs, return_exceptions)

    async def _astarmap(
        self,
        input_iterator: Iterable[Any] | AsyncIterable[Any],
        *,
        kwargs: dict[str, Any] | None = None,
        order_outputs: bool = True,
        return_exceptions: bool = False,
        wrap_returned_exceptions: bool | None = None,
    ) -> AsyncIterator[Any]:
        calls = (args[0] async for args in acalls_of((input_iterator,)))
        results = self._amany(calls, kwargs, order_outputs, return_exceptions)
        async with contextlib.aclosing(results):
            async for result in results:
                yield result

    async def _afor_each(
        self,
        *input_iterators: Iterable[Any] | AsyncIterable[Any],
        kwargs: dict[str, Any] | None = None,
        ignore_exceptions: bool = False,
    ) -> None:
        async for _ in self._amany(acalls_of(input_iterators), kwargs, False, ignore_exceptions):
            pass

    def _amany(
        self,
        calls: AsyncIterable[Any],
        kwargs: dict[str, Any] | None,
        ordered: bool,
        returned: bool,
    ) -> AsyncGenerator[Any, None]:
        items = (self._one_of_many(args, kwargs) async for args in calls)
        results: AsyncGenerator[Any, None] = self._inner.amap(
            items, ordered=ordered, return_exceptions=returned
        )
        return results

    # ----------------------------------------------------------------------------- other settings

    def _changed(self, **settings: Any) -> Function:
        made = type(self)(self._function, **{**self._settings, **settings})
        return made

    def with_batching(self, *, max_batch_size: int, wait_ms: int) -> Function:
        """The same function with batches of its own.

        Raises:
            InvalidError: as `batched`.
        """
        return self._changed(batching=batching(max_batch_size, wait_ms))

    def with_concurrency(self, *, max_inputs: int, target_inputs: int | None = None) -> Function:
        """The same function with so many batches (or calls) at once.

        Raises:
            InvalidError: as `concurrent`.
        """
        return self._changed(max_inputs=concurrency(max_inputs, target_inputs))

    def with_options(self, **options: Any) -> Function:
        """The same function; options describe containers and are ignored."""
        tell_ignored(self._name, known_options("with_options", options))
        return self._changed()

    def get_raw_f(self) -> Callable[..., Any]:
        """The user's function; of a method, bound."""
        if self._container is None:
            return self._function
        return functools.partial(self._function, self._container.instance)

    def __reduce__(self) -> Any:
        if self._container is None:
            return super().__reduce__()
        return getattr, (self._container.handle, self._container.name_of(self))

    def __repr__(self) -> str:
        return f"<carpool.compat.modal.Function {self._name}>"
