"""Decorated functions: the ways of calling them, as functions and as methods, and how they pickle."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Coroutine, Hashable
from typing import TYPE_CHECKING, Any, Generic

from ._control import Lifecycle
from ._core import Batch, Call, Engine
from ._instances import Instances
from ._many.map import Maps
from ._many.sync_pass import Lot
from ._options import CALL_OPTIONS, NO_CALL_OPTIONS, CallOptions, Options, cost_of, refuse_unknown
from ._plan import WRAPPED, Branch, Plan
from ._submit.features import apart, together
from ._submit.future import Future
from ._submit.warmup import awarm, warm
from ._types import P, R_co

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable

    from typing_extensions import Self, Unpack

    from ._core import Asks, Awaitable
    from ._handler.worker import Desk
    from ._many.map import MapOptions
    from ._submit.binding import Binding
    from ._types import A1

__all__ = ["AsyncBatchedFunction", "BatchedFunction", "Decorated", "decorate"]


class Decorated(Call, Lifecycle):
    """A decorated function, or a method bound to an instance."""

    _plan: Plan
    _branch: Branch
    _binding: Binding
    _bound: tuple[Any, ...]
    _instances: Instances
    _given: CallOptions
    _asks: Asks | None
    #: What a view with options of its own is one of.
    _base: Decorated | None = None
    #: An unbound method: calls bring the instance along.
    _is_method = False
    _known = tuple(Options.__dataclass_fields__)
    __name__: str
    __qualname__: str
    __wrapped__: Callable[..., Any]
    __signature__: inspect.Signature

    def __new__(
        cls,
        plan: Plan,
        branch: Branch | None = None,
        bound: tuple[Any, ...] = (),
        given: CallOptions = NO_CALL_OPTIONS,
    ) -> Self:
        binding = plan.bound if bound else plan.free
        asks = plan.asks(bool(bound), given)
        branch = branch or Branch(plan)
        made = super().__new__(
            cls,
            binding.item,
            binding.simple,
            plan.is_async,
            asks,
            bare=branch.handler.bare,
            instance=bound[0] if bound else None,
        )
        made._plan, made._binding, made._bound = plan, binding, bound
        made._given, made._asks = given, asks
        made._branch = branch
        made._station = made._branch.station
        if plan.executor == "loop" and binding.simple and not plan.streams:
            made._run_directly(made._branch.handler, bound)
        if not bound:
            made._instances = Instances()
            if plan.wants_class:
                made._become_method()
                made._is_method = True
        made.__dict__.update(plan.looks, __signature__=binding.signature)
        return made

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        """Submits one call; a `carpool.Future` of its result.

        Blocks only to wait for room, with overflow="wait".

        Raises:
            TypeError: the arguments do not fit.
            QueueFull, BatcherClosed, SetupError: it was refused.
            WouldDeadlock: it would wait for room where that can never come.
            RuntimeError: the handler runs on event loops (executor="loop") and none runs here.
        """
        if self._is_method:
            bound, rest = self._of_instance(args)
            return bound.submit(*rest, **kwargs)
        item = self._bind(*args, **kwargs)
        if self._plan.executor == "caller":
            self._station.start()
        engine = self._open()
        if engine.inline and self._plan.is_async and not _in_a_loop():
            return self._submit_on_a_loop(engine, item)
        return self._submit_to(engine, item)

    def _submit_to(self, engine: Engine, item: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if self._asks is None:
            future._ticket = engine.submit(self, item, future)
        else:
            future._ticket = engine.submit(self, item, future, asks=self._asks)
        if engine.inline and not self._plan.is_async:
            self._run_here()
        return future

    def warmup(self, *args: Any, **kwargs: Any) -> Any:
        """See `BatchedFunction.warmup`; to be awaited where the handler is `async def` or runs on event loops."""
        if self._is_method:
            bound, rest = self._of_instance(args)
            return bound.warmup(*rest, **kwargs)
        options, item = self._station.options, self._bind(*args, **kwargs)
        cost = options.cost
        one = (
            cost_of("cost", cost(*args, **kwargs))
            if callable(cost)
            else 1
            if cost is None
            else cost
        )
        engine = self._open()
        if self._plan.executor == "loop":
            return awarm(self, engine, options, item, one)
        if not self._plan.is_async:
            return warm(self, engine, options, item, one)
        import asyncio

        return asyncio.to_thread(warm, self, engine, options, item, one)

    def rows(self, features: Any) -> Any:
        """Calls with every row of a batch that the caller has in one piece; the answers in one piece again.

        Blocks. Each row is a request of its own, which shares batches with those of other callers. Of an
        `async def` handler it is a coroutine, like `arows`.

        Args:
            features: a dict of batches, each with a row per call; or an array, a list, a tuple or a dataclass of
                such, nested at will. The item of a call is a row in the same nesting.

        Returns:
            Answers that are arrays or tensors of equal shapes stacked, in dicts and tuples by key and place; else
            a list of the answers, in order.

        Raises:
            BatchLengthError: the batches have different lengths.
            TypeError: there is no length to go by, or the function takes more than one parameter.
            Exception: what a plain call of the first row that failed would have raised.
        """
        if self._plan.is_async:
            return self.arows(features)
        items = self._items_of(features)
        return together(self._open().call_many(self, items, asks=self._asks))

    async def arows(self, features: Any) -> Any:
        """`rows` for coroutines: waits without blocking the event loop."""
        import asyncio

        items = self._items_of(features)
        return together(await asyncio.gather(*[self.acall(item) for item in items]))

    def _items_of(self, features: Any) -> list[Any]:
        if not self._binding.one:
            raise TypeError(
                f"{self.name}: rows takes one batch of items; {self.name} takes several parameters"
            )
        items = apart(features)
        return items if self._binding.simple else list(map(self._binding.of_one, items))

    if TYPE_CHECKING:

        def options(
            self,
            *,
            priority: int = 0,
            timeout_ms: float | None = None,
            key: Callable[..., Hashable] | Hashable | None = None,
            cost: Callable[..., int] | int | None = None,
            length: Callable[..., int] | int | None = None,
        ) -> Self:
            """The same function with options of their own for the calls made through what this returns.

            What is not given stays as the function has it. The view has the same ways of calling and the same
            batcher; it holds no state.

            Args:
                priority: smaller is more urgent, from -100 to 100; others have 0.
                timeout_ms: see `batched`; from 0, and None for no limit.
                key: see `batched`; what cannot be called is the key itself, and None is none.
                cost: see `batched`; None counts 1.
                length: see `batched`; also an int, and None is 0.

            Raises:
                TypeError, ValueError: an option is unknown, of the wrong type or out of range.
            """
            ...

    else:

        def options(self, **given: Any) -> Self:
            refuse_unknown(f"{self.name}.options", given, CALL_OPTIONS)
            return self._with(self._given.with_more(given, self._station.options))

        def configure(self, **changes: Any) -> None:
            if self._is_method:
                raise TypeError(
                    f"{self.name}: each instance has a batcher of its own; "
                    f"configure the method of an instance"
                )
            super().configure(**changes)

    def _with(self, given: CallOptions) -> Self:
        view = type(self)(self._plan, self._branch, self._bound, given)
        view._base = self._base or self
        if not self._bound:
            view._instances = self._instances
            if self._is_method and not view._is_method:
                view._become_method()
                view._is_method = True
            if self._plan.is_async and not self._plan.streams:
                _mark_as_coroutine_function(view)
        return view

    def _called_with(self, args: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
        return self._of_instance(args) if self._is_method else (self, args)

    def _lot(self, star: bool) -> Lot:
        binding = self._binding
        bind: Callable[[Any], Any] | None = None
        if star:
            bind = binding.of_arguments
        elif not binding.simple:
            bind = binding.of_one
        return Lot(self.name, self._plan.options, self._open, self, self._asks, bind)

    def _submit_on_a_loop(self, engine: Engine, item: Any) -> Future[Any]:
        """In the inline mode: runs an `async def` handler here, on a loop for this call."""
        if self._plan.executor == "loop":
            # As ever: refused, for want of a loop of the caller's.
            return self._submit_to(engine, item)

        async def go() -> Future[Any]:
            future = self._submit_to(engine, item)
            await asyncio.gather(asyncio.wrap_future(future), return_exceptions=True)
            return future

        import asyncio

        return asyncio.run(go())

    # ------------------------------------------------------------------- what the core calls

    def _open(self) -> Engine:
        if self._plan.executor == "thread":
            return self._station.start()
        return self._station.engine()

    def _before_waiting(self) -> None:
        # Somebody has to run what no blocked caller can.
        self._station.start()

    def _run_here(self) -> None:
        # In the inline mode: whoever submits runs what is pending.
        engine = self._station.engine()
        while (batch := engine.next_batch(None, 0)) is not None:
            batch._owner._run_as_caller(batch)

    def _run_on_worker(self, batch: Batch[Any, Any], desk: Desk) -> None:
        engine = self._station.engine()
        self._branch.handler.run(batch, engine, self._binding, self._bound, desk)

    def _run_as_caller(self, batch: Batch[Any, Any]) -> None:
        handler = self._branch.handler
        handler.run(batch, self._station.engine(), self._binding, self._bound, handler.desk)

    def _run_on_loop(self, batch: Batch[Any, Any], event_loop: asyncio.AbstractEventLoop) -> None:
        engine = self._station.engine()
        self._branch.handler.run_on_loop(batch, engine, self._binding, self._bound, event_loop)

    # ------------------------------------------------------------------------------- methods

    def __set_name__(self, owner: type, name: str) -> None:
        if self._base is None:
            self._plan.attribute = name
        if self._plan.kind == "function":
            self._become_method()
            self._is_method = True

    def __get__(self, instance: Any, owner: type | None = None) -> Self:
        if self._bound or self._plan.kind == "staticmethod":
            return self
        if self._plan.kind == "classmethod":
            instance = owner if owner is not None else type(instance)
        if instance is None:
            return self
        if self._plan.wants_class and not isinstance(instance, type):
            raise TypeError(
                f"{self.name} is a class method and got {instance!r} for its class; from CPython 3.13 on "
                f"put `@batched` above `@classmethod` to reach its acall and submit"
            )
        return self._instances.bind(self, instance)

    def __reduce__(self) -> Any:
        if self._base is not None:
            return _with_options, (self._base, self._given.given())
        if self._bound:
            return getattr, (self._bound[0], self._plan.attribute)
        plan = self._plan
        path = self.__dict__.get("__qualname__", "")
        if _stands_at(plan.function.__module__, path) is self:
            if plan.function.__module__ != "__main__":
                return path
            # By reference for pickle, by value for whoever, like cloudpickle, takes `__main__` along:
            # only the pickler knows. So the handler goes, named as it can be reached.
            plan.function.__qualname__ = path + WRAPPED
        return _remake, (plan.function, plan.kind, self._station.options.given())

    def __reduce_ex__(self, protocol: Any, /) -> Any:
        made = self.__reduce__()
        # Before protocol 4 what is within a function is reached by pickling the function: a circle.
        named = isinstance(made, tuple) and made[0] is _remake and protocol < 4
        path = self.__dict__.get("__qualname__", "")
        return path if named and _stands_at(self.__module__, path) is self else made

    def __repr__(self) -> str:
        of = f" of {self._bound[0]!r}" if self._bound else ""
        given = f" with {self._given.shown()}" if self._given.given() else ""
        return f"<carpool.{type(self).__name__} {self.name}{of}{given}>"


class BatchedFunction(Decorated, Maps[Any, R_co], Generic[P, R_co]):
    """A function whose single calls run as batches; made by `batched`."""

    if TYPE_CHECKING:

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
            """Submits one call and blocks for its result.

            What the handler raised is raised as an exception of the caller's own, of the same type.

            Raises:
                TypeError: the arguments do not fit.
                QueueFull, BatcherClosed, SetupError: it was refused.
                BatchLengthError: the handler did not return one row per request.
                HandlerError: the handler raised what no caller can be given a copy of.
                BatchAbandoned: the batch was lost.
                WouldDeadlock: it would wait for itself.
                RuntimeError: the handler runs on event loops (executor="loop") and none runs here.
            """
            ...

        def acall(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R_co]:
            """Submits one call; an awaitable of its result, from any event loop.

            The request is submitted here, not at the first await; cancelling cancels it. Awaiting raises
            what a plain call would.

            Raises:
                TypeError: the arguments do not fit.
                QueueFull, BatcherClosed, SetupError: it was refused.
                WouldDeadlock: it would wait for itself.
                RuntimeError: no event loop runs here.
            """
            ...

        def warmup(self, *args: P.args, **kwargs: P.kwargs) -> None:
            """Runs the handler once at each size of `batch_sizes`, with batches of this one call repeated.

            Smallest first; the results are dropped. Without `batch_sizes` the sizes are the powers of two and
            `max_batch_size`. Nobody else's request is in these batches, but what is pending leaves at once, as by
            `flush()`. They are in the statistics like any other.

            Raises:
                TypeError: the arguments do not fit.
                BatcherClosed, SetupError: it was refused.
                WouldDeadlock: it would wait for itself.
                Exception: what the handler raised; the sizes after that have not run.
            """
            ...

        def submit(self, *args: P.args, **kwargs: P.kwargs) -> Future[R_co]:
            """Submits one call; a `carpool.Future` of its result.

            Blocks only to wait for room, with overflow="wait".

            Raises:
                TypeError: the arguments do not fit.
                QueueFull, BatcherClosed, SetupError: it was refused.
                WouldDeadlock: it would wait for room where that can never come.
                RuntimeError: the handler runs on event loops (executor="loop") and none runs here.
            """
            ...

        def map(
            self: Callable[[A1], Any],  # pyright: ignore[reportGeneralTypeIssues]
            items: Iterable[A1],
            /,
            **how: Unpack[MapOptions],
        ) -> Generator[R_co, None, None]: ...

        def amap(
            self: Callable[[A1], Any],  # pyright: ignore[reportGeneralTypeIssues]
            items: Iterable[A1] | AsyncIterable[A1],
            /,
            **how: Unpack[MapOptions],
        ) -> AsyncGenerator[R_co, None]: ...


class AsyncBatchedFunction(Decorated, Maps[Any, R_co], Generic[P, R_co]):
    """A coroutine function whose single calls run as batches; made by `batched`."""

    if TYPE_CHECKING:

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R_co]:
            """As `acall`."""
            ...

        def acall(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R_co]:
            """As `acall` of a `BatchedFunction`."""
            ...

        def warmup(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, None]:
            """As `warmup` of a `BatchedFunction`, to be awaited."""
            ...

        def submit(self, *args: P.args, **kwargs: P.kwargs) -> Future[R_co]:
            """As `submit` of a `BatchedFunction`."""
            ...

        def map(
            self: Callable[[A1], Any],  # pyright: ignore[reportGeneralTypeIssues]
            items: Iterable[A1],
            /,
            **how: Unpack[MapOptions],
        ) -> Generator[R_co, None, None]: ...

        def amap(
            self: Callable[[A1], Any],  # pyright: ignore[reportGeneralTypeIssues]
            items: Iterable[A1] | AsyncIterable[A1],
            /,
            **how: Unpack[MapOptions],
        ) -> AsyncGenerator[R_co, None]: ...


def _in_a_loop() -> bool:
    """Whether an event loop runs in this thread."""
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _stands_at(module: str, path: str) -> Any:
    """What stands at a qualified name, as pickle finds it; None where nothing does."""
    found: Any = sys.modules.get(module)
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


def _with_options(base: Decorated, given: dict[str, Any]) -> Decorated:
    return base.options(**given)


def _remake(function: Any, kind: str, options: dict[str, Any]) -> Any:
    """Unpickles a decorated function: the very one of its module where it stands, else a new one."""
    path = function.__qualname__.removesuffix(WRAPPED)
    found = _stands_at(function.__module__, path)
    if isinstance(found, Decorated) and found._plan.function is function:
        return found
    wrap: Any = {"staticmethod": staticmethod, "classmethod": classmethod}.get(kind, lambda f: f)
    return decorate(wrap(function), Options(**options))


#: The classes of streaming functions, by whether their handlers are asynchronous; put here where they are made.
STREAMED: dict[bool, type[Decorated]] = {}


def decorate(function: Any, options: Options) -> Any:
    """A function made of this handler with these options."""
    plan = Plan(function, options)
    if plan.streams:
        return STREAMED[plan.is_async](plan)
    kind: type[Decorated] = AsyncBatchedFunction if plan.is_async else BatchedFunction
    made = kind(plan)
    if plan.is_async:
        _mark_as_coroutine_function(made)
    return made


def _mark_as_coroutine_function(function: Any) -> None:
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(function)
    else:
        import asyncio.coroutines

        function._is_coroutine = vars(asyncio.coroutines)["_is_coroutine"]
