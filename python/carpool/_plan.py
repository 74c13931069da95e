"""What a decorated function is made of: a handler with its options, and the batchers that run it."""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ._handler.collated import collated
from ._handler.worker import Handler
from ._options import NO_CALL_OPTIONS, CallOptions, Options
from ._station import Station
from ._submit.binding import Binding
from ._submit.terms import asks_of

if TYPE_CHECKING:
    from ._core import Asks
    from ._types import Executor

__all__ = ["WRAPPED", "Branch", "Plan"]

#: How a handler is reached from where its decorated function stands.
WRAPPED = ".__wrapped__"


class Plan:
    """A handler and its options, as decorated; what all instances of a class share.

    Raises:
        TypeError: the handler is none that can be batched.
    """

    def __init__(self, function: Any, options: Options) -> None:
        self.kind: str = "function"
        if isinstance(function, (staticmethod, classmethod)):
            self.kind = type(function).__name__
            function = function.__func__
        if not callable(function) or inspect.isclass(function):
            raise TypeError(f"batched decorates a function or method, not {function!r}")
        self.function: Callable[..., Any] = function
        self.options = options
        own_name: str = getattr(function, "__name__", type(function).__name__)
        self.label: str = options.name or own_name
        #: How instances reach it.
        self.attribute: str = getattr(function, "__name__", "")
        call = function if inspect.isroutine(function) else function.__call__
        unwrapped = inspect.unwrap(call)
        #: It yields a list per step.
        self.streams: bool = inspect.isgeneratorfunction(unwrapped) or inspect.isasyncgenfunction(
            unwrapped
        )
        self.is_async: bool = (
            inspect.iscoroutinefunction(call)
            or inspect.iscoroutinefunction(unwrapped)
            or inspect.isasyncgenfunction(unwrapped)
        )
        if self.is_async:
            # Here and not at the first call, which a fork may meet half done. It brings asyncio.
            from ._handler import step  # noqa: F401
        if self.streams:
            from ._streams import running  # noqa: F401
        self.executor: str = options.executor or ("loop" if self.is_async else "thread")
        if self.is_async and self.executor == "caller":
            raise TypeError(
                f"{self.label}: executor='caller' runs the handler in a calling thread; "
                f"an `async def` handler needs 'loop' or 'thread'"
            )
        if self.streams:
            self._check_stream()
        if options.device is not None:
            self._check_device()
        #: A class method to be, by the looks of it: from CPython 3.13 on, `classmethod` above `batched` binds
        #: the class without asking, so calls arrive with the class in front.
        self.wants_class: bool = self.kind == "function" and _takes_class(function)
        self.looks: dict[str, Any] = self._looks()
        self._method: Binding | None = None
        self.free: Binding = self._binding(bound=self.kind == "classmethod")
        #: By whether bound: what calls ask for that have no options of their own.
        self._asks: dict[bool, Asks | None] = {}

    def _check_device(self) -> None:
        if self.is_async or self.executor != "thread":
            raise TypeError(
                f"{self.label}: device={self.options.device!r} has a worker thread of its own for each device: "
                f"the handler is a plain `def`, with executor='thread'"
            )
        # Here and not at the first batch, which a fork may meet half done.
        from ._handler import device  # noqa: F401

    def _check_stream(self) -> None:
        if self.executor == "caller":
            raise TypeError(
                f"{self.label}: executor='caller' runs the handler in a calling thread; "
                f"a streaming handler needs 'loop' or 'thread'"
            )
        if self.options.collate is not None:
            raise TypeError(
                f"{self.label}: collate is for handlers that return a batch; "
                f"a streaming handler yields a list per step"
            )
        if self.options.on_error != "raise" or self.options.retry_on is not None:
            raise TypeError(
                f"{self.label}: on_error='isolate' and retries run a failed batch again; "
                f"a streaming handler may have given steps away by then"
            )

    def _binding(self, *, bound: bool) -> Binding:
        kind: type[Binding] = Binding
        if self.options.device is not None:
            # Here and not at the first call, which a fork may meet half done.
            from ._submit.arriving import ArrivingBinding as kind
        return kind(self.function, self.label, bound=bound, shared=self.options.shared)

    def _looks(self) -> dict[str, Any]:
        """What a decorated function shows of the one it wraps."""
        names: tuple[str, ...] = functools.WRAPPER_ASSIGNMENTS
        looks = {one: getattr(self.function, one) for one in names if hasattr(self.function, one)}
        looks.update(vars(self.function) if inspect.isfunction(self.function) else {})
        looks["__qualname__"] = looks.get("__qualname__", self.label).removesuffix(WRAPPED)
        return {**looks, "__wrapped__": self.function}

    @property
    def bound(self) -> Binding:
        """How calls of a method bind, `self` being given."""
        # Not functools.cached_property: up to CPython 3.11 it takes a lock, which a fork may meet held.
        if self._method is None:
            self._method = self._binding(bound=True)
        return self._method

    def asks(self, bound: bool, given: CallOptions) -> Asks | None:
        """What calls ask for, `self` being given or not, that have these options of their own."""
        if given is not NO_CALL_OPTIONS:
            binding = self.bound if bound else self.free
            return asks_of(self.label, self.options, given, binding)
        if bound not in self._asks:
            binding = self.bound if bound else self.free
            self._asks[bound] = asks_of(self.label, self.options, given, binding)
        return self._asks[bound]

    def station(self) -> Station:
        """A new batcher of this kind."""
        slots = self.options.max_concurrent_batches
        if self.options.device is not None:
            # A place on the way to a device is a slot; one worker runs what is on one device.
            devices = len(self.options.devices)
            slots = devices * self.options.depth
            return Station(self.options, self.label, self.executor, slots, threads=devices)
        inline: Executor | None = "loop" if self.is_async else "caller"
        if self.streams and self.is_async and self.executor != "loop":
            # Threads read it, and have no loop that could run it.
            inline = None
        return Station(self.options, self.label, self.executor, slots, inline=inline)

    def handler(self, station: Station) -> Handler:
        """A new handler of this batcher: what of it lives in a process, with nothing started."""
        function, collate = self.function, self.options.collate
        if self.options.device is not None:
            from ._handler.device import DeviceHandler

            return DeviceHandler(function, station, is_async=False)
        if collate is not None:
            sized = self.options.batch_sizes is not None
            function = collated(function, collate, is_async=self.is_async, sized=sized)
        kind: type[Handler] = Handler
        if self.streams:
            from ._streams.running import StreamingHandler as kind
        return kind(function, station, is_async=self.is_async)


def _takes_class(function: Any) -> bool:
    scope, _, _ = getattr(function, "__qualname__", "").rpartition(".")
    code = getattr(function, "__code__", None)
    in_class = bool(scope) and not scope.endswith("<locals>")
    return in_class and code is not None and code.co_varnames[: code.co_argcount][:1] == ("cls",)


class Branch:
    """One batcher of a plan: that of a function, or of one instance of a class.

    Knows no instance, so that an idle one can be collected; calls bring theirs along.
    """

    def __init__(self, plan: Plan) -> None:
        self.station: Station = plan.station()
        self.handler: Handler = plan.handler(self.station)
        closing = weakref.finalize(self, Station.release, self.station)
        closing.atexit = False
