"""`@batched`: functions, coroutines and methods whose single calls run as batches."""

from __future__ import annotations

import functools
import inspect
import sys
import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from . import _lifecycle
from ._batcher import Lifecycle
from ._core import Batch, Call, Engine
from ._future import Future
from ._options import CALL_OPTIONS, NO_CALL_OPTIONS, CallOptions, Options, refuse_unknown
from ._plan import WRAPPED, Branch, Plan
from ._types import P, R_co

if TYPE_CHECKING:
    import asyncio

    from typing_extensions import Self

    from ._binding import Binding
    from ._core import Asks, Awaitable
    from ._signatures import Decorator
    from ._types import Entered, Executor, Overflow
    from ._worker import Desk

__all__ = ["AsyncBatchedFunction", "BatchedFunction", "batched"]


class _Decorated(Call, Lifecycle):
    """A decorated function, or a method bound to an instance."""

    _plan: Plan
    _branch: Branch
    _binding: Binding
    _bound: tuple[Any, ...]
    _instances: _Instances
    _given: CallOptions
    _asks: Asks | None
    #: What a view with options of its own is one of.
    _base: _Decorated | None = None
    #: An unbound method: calls bring the instance along.
    _is_method = False
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
        if plan.executor == "loop" and binding.simple:
            made._run_directly(made._branch.handler, bound)
        if not bound:
            made._instances = _Instances()
            if plan.wants_class:
                made._become_method()
                made._is_method = True
        made.__dict__.update(plan.looks, __signature__=binding.signature)
        return made

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
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
            return bound.submit(*rest, **kwargs)  # type: ignore[no-any-return]
        item = self._bind(*args, **kwargs)
        if self._plan.executor == "caller":
            self._station.start()
        future: Future[Any] = Future()
        if self._asks is None:
            future._ticket = self._open().submit(self, item, future)
        else:
            future._ticket = self._open().submit(self, item, future, asks=self._asks)
        return future

    if TYPE_CHECKING:

        def options(
            self,
            *,
            priority: int = 0,
            timeout_ms: float | None = None,
            key: Callable[..., Hashable] | Hashable | None = None,
            cost: Callable[..., int] | int | None = None,
        ) -> Self:
            """The same function with options of their own for the calls made through what this returns.

            What is not given stays as the function has it. The view has the same ways of calling and the same
            batcher; it holds no state.

            Args:
                priority: smaller is more urgent, from -100 to 100; others have 0.
                timeout_ms: see `batched`; from 0, and None for no limit.
                key: see `batched`; what cannot be called is the key itself, and None is none.
                cost: see `batched`; None counts 1.

            Raises:
                TypeError, ValueError: an option is unknown, of the wrong type or out of range.
            """
            ...

    else:

        def options(self, **given: Any) -> Self:
            refuse_unknown(f"{self.name}.options", given, CALL_OPTIONS)
            return self._with(self._given.with_more(given, self._plan.options))

    def _with(self, given: CallOptions) -> Self:
        view = type(self)(self._plan, self._branch, self._bound, given)
        view._base = self._base or self
        if not self._bound:
            view._instances = self._instances
            if self._is_method and not view._is_method:
                view._become_method()
                view._is_method = True
            if self._plan.is_async:
                _mark_as_coroutine_function(view)
        return view

    # ------------------------------------------------------------------- what the core calls

    def _open(self) -> Engine:
        if self._plan.executor == "thread":
            return self._station.start()
        return self._station.engine()

    def _before_waiting(self) -> None:
        # Somebody has to run what no blocked caller can.
        self._station.start()

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
        return _remake, (plan.function, plan.kind, plan.options.given())

    def __repr__(self) -> str:
        of = f" of {self._bound[0]!r}" if self._bound else ""
        given = f" with {self._given.shown()}" if self._given.given() else ""
        return f"<carpool.{type(self).__name__} {self.name}{of}{given}>"


class BatchedFunction(_Decorated, Generic[P, R_co]):
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


class AsyncBatchedFunction(_Decorated, Generic[P, R_co]):
    """A coroutine function whose single calls run as batches; made by `batched`."""

    if TYPE_CHECKING:

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R_co]:
            """As `acall`."""
            ...

        def acall(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R_co]:
            """As `acall` of a `BatchedFunction`."""
            ...

        def submit(self, *args: P.args, **kwargs: P.kwargs) -> Future[R_co]:
            """As `submit` of a `BatchedFunction`."""
            ...


D = TypeVar("D", bound=_Decorated)


class _Instances:
    """The batchers of a method's instances; each goes with its instance."""

    def __init__(self) -> None:
        self._branches: dict[int, tuple[weakref.ref[Any], Branch]] = {}

    def bind(self, method: D, instance: Any) -> D:
        """The method bound to `instance`, with the batcher that is the instance's own."""
        number = id(instance)
        known = self._branches.get(number)
        if known is None or known[0]() is not instance:
            with _lifecycle.lock:
                known = self._branches.get(number)
                if known is None or known[0]() is not instance:
                    known = self._add(method, instance, number)
        bound = type(method)(method._plan, known[1], (instance,))
        return bound if method._base is None else bound._with(method._given)

    def _add(
        self, method: _Decorated, instance: Any, number: int
    ) -> tuple[weakref.ref[Any], Branch]:
        branches = self._branches

        def forget(gone: weakref.ref[Any]) -> None:
            # The number may belong to a new instance by now.
            if branches.get(number, (None,))[0] is gone:
                del branches[number]

        try:
            reference = weakref.ref(instance, forget)
        except TypeError:
            kind = type(instance).__qualname__
            raise TypeError(
                f"{method.name}: a batched method needs weak references to its instances; "
                f"add '__weakref__' to the __slots__ of {kind}"
            ) from None
        _ = method._plan.bound  # refused here, before anything is kept, if it takes only `self`
        branches[number] = reference, Branch(method._plan)
        return branches[number]


def _stands_at(module: str, path: str) -> Any:
    """What stands at a qualified name, as pickle finds it; None where nothing does."""
    found: Any = sys.modules.get(module)
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


def _with_options(base: _Decorated, given: dict[str, Any]) -> _Decorated:
    return base.options(**given)


def _remake(function: Any, kind: str, options: dict[str, Any]) -> Any:
    """Unpickles a decorated function: the very one of its module where it stands, else a new one."""
    path = function.__qualname__.removesuffix(WRAPPED)
    found = _stands_at(function.__module__, path)
    if isinstance(found, _Decorated) and found._plan.function is function:
        return found
    wrap: Any = {"staticmethod": staticmethod, "classmethod": classmethod}.get(kind, lambda f: f)
    return _decorate(wrap(function), Options(**options))


def _decorate(function: Any, options: Options) -> Any:
    plan = Plan(function, options)
    kind: type[_Decorated] = AsyncBatchedFunction if plan.is_async else BatchedFunction
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


def _typed(function: Callable[..., Any]) -> Decorator:
    """For type checkers `batched` is a `Decorator`; at run time it is itself."""
    return cast("Decorator", function)


_KNOWN = tuple(Options.__dataclass_fields__)


@_typed
def batched(
    func: Callable[..., Any] | None = None,
    /,
    *,
    max_batch_size: int = 32,
    wait_ms: float = 0,
    max_queue: int = 10_000,
    overflow: Overflow = "raise",
    max_concurrent_batches: int = 1,
    executor: Executor | None = None,
    gather: bool = True,
    setup: Callable[[], object] | None = None,
    context: Callable[[], Entered] | None = None,
    name: str | None = None,
    max_batch_cost: int | None = None,
    cost: Callable[..., int] | int | None = None,
    key: Callable[..., Hashable] | None = None,
    shared: Sequence[str] = (),
    timeout_ms: float | None = None,
    age_ms: float = 1000,
    **unknown: Any,
) -> Any:
    """Makes single calls of a function of lists run as batches.

    The handler takes a list per parameter and returns as many rows: `def f(xs: list[A]) -> list[B]` is
    called as `f(x) -> B`, `await f.acall(x)` or `f.submit(x)`; with `async def`, `await f(x)`. Works bare
    or with options, on functions, `async def`, methods (a batcher per instance), static and class methods.

    Args:
        max_batch_size: most requests in one batch.
        wait_ms: longest time the oldest request is held for company while a slot is free, in
            milliseconds, from its arrival. A full batch leaves at once.
        max_queue: most pending requests.
        overflow: what a request meets at a full queue: "raise" QueueFull, or "wait" for room.
        max_concurrent_batches: how many batches may run at once.
        executor: who runs the handler: "thread" (a persistent worker thread; the default for `def`), "loop"
            (the callers' event loop; the default for `async def`) or "caller" (the thread whose call closes
            the batch).
        gather: with executor="caller" and wait_ms=0, a caller about to run a batch waits for those who were
            there last time, at most half as long as the last run took.
        setup: called before the first batch, once in each worker thread, or once in all where there is
            none; if it raises, every pending and later caller gets SetupError.
        context: called once per batch; the handler runs inside the context manager it returns. That of
            an `async def` handler may be asynchronous.
        name: in statistics, threads and log lines; default the function's.
        max_batch_cost: most cost in one batch; of calls that cost 1 each, or
        cost: what one call costs: a function that takes its arguments and returns an int from 0, or an int for
            every call. A call above `max_batch_cost` raises RequestTooLarge.
        key: a function that takes the arguments of one call; calls share a batch only where what it returns is
            equal. It must be hashable; None is no key.
        shared: names of parameters that reach the handler as one plain value; calls share a batch only where
            their values are equal. They must be hashable.
        timeout_ms: a call that is not in a batch so many milliseconds after it was made fails with
            DeadlineExceeded and never reaches the handler. Time in the queue and for room in it counts.
        age_ms: what one level of `priority` (see `BatchedFunction.options`) is worth, in milliseconds of waiting.

    Raises:
        TypeError, ValueError: an option is unknown, of the wrong type or out of range, or the function
            is none that can be batched.

    ```python
    @batched(max_batch_size=8, wait_ms=2)
    def double(numbers: list[int]) -> list[int]:
        return [2 * number for number in numbers]

    assert double(21) == 42
    ```
    """
    refuse_unknown("batched", unknown, _KNOWN)
    options = Options(
        max_batch_size=max_batch_size,
        wait_ms=wait_ms,
        max_queue=max_queue,
        overflow=overflow,
        max_concurrent_batches=max_concurrent_batches,
        executor=executor,
        gather=gather,
        setup=setup,
        context=context,
        name=name,
        max_batch_cost=max_batch_cost,
        cost=cost,
        key=key,
        shared=shared,
        timeout_ms=timeout_ms,
        age_ms=age_ms,
    )
    if func is None:
        return functools.partial(_decorate, options=options)
    return _decorate(func, options)
