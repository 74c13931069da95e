"""The options of a batcher, and of single calls: their defaults, and what each may be."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from ._types import Collate

if TYPE_CHECKING:
    from ._watch.timing import Trace

__all__ = ["CallOptions", "Options"]

#: Longest `wait_ms` (ten days) and largest counts: far beyond use, well inside 64 bits.
LONGEST_WAIT_MS = 864_000_000.0
LARGEST_COUNT = 2**48
#: Priorities further from 0 are refused: each level in use has a queue of its own.
FURTHEST_LEVEL = 100

OVERFLOWS = ("raise", "wait", "shed")
EXECUTORS = ("thread", "loop", "caller")
ON_ERROR = ("raise", "isolate")


#: What `configure` changes; numbers all of them.
LIVE = (
    "max_batch_size",
    "wait_ms",
    "max_queue",
    "max_concurrent_batches",
    "max_batch_cost",
    "look_ahead",
    "length_window",
    "timeout_ms",
    "age_ms",
    "retries",
    "retry_ms",
    "buffer_steps",
    "stall_ms",
    "target_ms",
    "sample_rate",
    "slow_ms",
)
#: Why others stay as they are.
FOR_GOOD = {
    "executor": "its threads or loops are bound to it",
    "overflow": "its callers count on it",
    "gather": "it goes with the executor",
    "setup": "it may have run",
    "context": "its handler is bound to it",
    "name": "its statistics, threads and log lines go by it",
    "batch_sizes": "its handler is made for them",
    "refuse_late": "it measures from the first batch on",
    "cost": "pending requests have been measured by it",
    "padded_cost": "pending requests are counted by it",
    "length": "pending requests have been measured by it",
    "key": "pending requests are grouped by it",
    "shared": "its calls are bound by it",
    "keep_contexts": "its calls are bound by it",
    "keep_timings": "pending requests count on it",
    "on_request": "pending requests count on it",
    "collate": "its handler is bound to it",
    "device": "its workers are bound to it",
    "depth": "its memory is laid out for it",
    "graphs": "its handler is bound to it",
    "on_error": "its handler is bound to it",
    "retry_on": "its handler is bound to it",
}


@dataclass(frozen=True)
class Options:
    """Checked options. What a `Batcher` does not take stays at its default.

    Raises:
        TypeError: an option is of the wrong type.
        ValueError: an option is out of range.
    """

    max_batch_size: int = 32
    wait_ms: float = 0
    max_queue: int = 10_000
    overflow: str = "raise"
    max_concurrent_batches: int = 1
    executor: str | None = None
    gather: bool = True
    setup: Callable[[], object] | None = None
    context: Callable[[], Any] | None = None
    name: str | None = None
    max_batch_cost: int | None = None
    cost: Callable[..., int] | int | None = None
    padded_cost: bool = False
    look_ahead: int = 0
    length: Callable[..., int] | None = None
    length_window: int = 8
    key: Callable[..., Hashable] | None = None
    shared: Sequence[str] = ()
    collate: Collate | None = None
    device: str | Sequence[str] | None = None
    depth: int = 2
    graphs: bool = False
    timeout_ms: float | None = None
    age_ms: float = 1000
    on_error: str = "raise"
    retries: int = 0
    retry_on: type[Exception] | tuple[type[Exception], ...] | None = None
    retry_ms: float = 100
    keep_contexts: bool = False
    keep_timings: bool = False
    batch_sizes: Sequence[int] | None = None
    target_ms: float | None = None
    refuse_late: bool = False
    on_request: Callable[[Trace], object] | None = None
    sample_rate: float = 1.0
    slow_ms: float | None = None
    buffer_steps: int = 16
    stall_ms: float | None = 10_000

    def __post_init__(self) -> None:
        _count("max_batch_size", self.max_batch_size)
        _count("max_queue", self.max_queue)
        _count("max_concurrent_batches", self.max_concurrent_batches)
        _milliseconds("wait_ms", self.wait_ms)
        _choice("overflow", self.overflow, OVERFLOWS)
        if self.executor is not None:
            _choice("executor", self.executor, EXECUTORS)
        switch("gather", self.gather)
        switch("keep_contexts", self.keep_contexts)
        switch("keep_timings", self.keep_timings)
        switch("refuse_late", self.refuse_late)
        _callable("setup", self.setup)
        _callable("context", self.context)
        if self.name is not None and not isinstance(self.name, str):
            raise TypeError(f"name must be a str or None, not {_shown(self.name)}")
        if self.max_batch_cost is not None:
            _count("max_batch_cost", self.max_batch_cost)
        _cost(self.cost, self.max_batch_cost)
        if isinstance(self.cost, int) and self.cost > (self.max_batch_cost or 0):
            raise ValueError(
                f"cost={self.cost} is more than max_batch_cost={self.max_batch_cost}: "
                f"every call would be refused"
            )
        switch("padded_cost", self.padded_cost)
        _count("look_ahead", self.look_ahead, least=0)
        for name in ("padded_cost", "look_ahead"):
            if getattr(self, name) and self.max_batch_cost is None:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} is about a budget, and there is none: give the "
                    f"batcher a max_batch_cost, too"
                )
        if self.length is not None and not callable(self.length):
            raise TypeError(
                f"length must be callable with the arguments of a call, or None, not "
                f"{_shown(self.length)}"
            )
        _count("length_window", self.length_window)
        if self.key is not None and not callable(self.key):
            raise TypeError(
                f"key must be callable with the arguments of a call, or None, not {_shown(self.key)}"
            )
        if self.collate is not None and not isinstance(self.collate, Collate):
            raise TypeError(
                f"collate must have collate(items) and split(output, n, batch), or be None, "
                f"not {_shown(self.collate)}"
            )
        if self.device is not None:
            if not isinstance(self.device, str):
                object.__setattr__(self, "device", _names("device", self.device))
            if not self.device or self.collate is None:
                raise ValueError(
                    f"device={self.device!r} copies batches: name a device, and give a collate, too"
                )
            if self.max_concurrent_batches != 1:
                raise ValueError(
                    "with device=, depth says how many batches are on their way to each device; "
                    "leave max_concurrent_batches out"
                )
        _count("depth", self.depth)
        switch("graphs", self.graphs)
        if self.graphs and (self.device is None or self.batch_sizes is None):
            raise ValueError(
                "graphs are of batches of a few sizes: give device and batch_sizes, too"
            )
        object.__setattr__(self, "shared", _names("shared", self.shared))
        if self.timeout_ms is not None:
            _milliseconds("timeout_ms", self.timeout_ms)
            if self.timeout_ms <= self.wait_ms:
                raise ValueError(
                    f"timeout_ms must be more than wait_ms ({self.wait_ms!r}), or None, not "
                    f"{self.timeout_ms!r}: a lone request is held for wait_ms"
                )
        _milliseconds("age_ms", self.age_ms)
        _count("buffer_steps", self.buffer_steps)
        if self.stall_ms is not None:
            _milliseconds("stall_ms", self.stall_ms)
        _choice("on_error", self.on_error, ON_ERROR)
        _from_0("retries", self.retries)
        object.__setattr__(self, "retry_on", _errors("retry_on", self.retry_on))
        if self.retries and self.retry_on is None:
            raise ValueError(
                f"retries={self.retries} needs retry_on, the errors that are worth another try: "
                f"retry_on=(ConnectionError, TimeoutError), say"
            )
        _milliseconds("retry_ms", self.retry_ms)
        if self.batch_sizes is not None:
            sizes = _sizes("batch_sizes", self.batch_sizes, self.max_batch_size)
            object.__setattr__(self, "batch_sizes", sizes)
            least = min(sizes)
            if self.padded_cost and least * _fixed_cost(self.cost) > (self.max_batch_cost or 0):
                raise ValueError(
                    f"a batch of {least} (the smallest of batch_sizes) costs more than "
                    f"max_batch_cost={self.max_batch_cost}: every call would be refused"
                )
        if self.target_ms is not None:
            _milliseconds("target_ms", self.target_ms)
            if self.target_ms == 0:
                raise ValueError("target_ms must be more than 0 milliseconds, or None, not 0")
            if self.wait_ms:
                raise ValueError(
                    f"target_ms={self.target_ms!r} chooses by itself how long requests are held: "
                    f"leave out wait_ms={self.wait_ms!r}"
                )
        if self.on_request is not None and not callable(self.on_request):
            raise TypeError(
                f"on_request must be callable with a carpool.Trace, or None, not "
                f"{_shown(self.on_request)}"
            )
        _share("sample_rate", self.sample_rate)
        if self.sample_rate != 1 and self.on_request is None:
            raise ValueError(
                f"sample_rate={self.sample_rate!r} is a share of what on_request hears of: "
                f"give an on_request, too"
            )
        if self.slow_ms is not None:
            _milliseconds("slow_ms", self.slow_ms)
            if self.slow_ms == 0:
                raise ValueError("slow_ms must be more than 0 milliseconds, or None, not 0")

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices, each by its name."""
        if self.device is None:
            return ()
        return (self.device,) if isinstance(self.device, str) else tuple(self.device)

    @property
    def wait_ns(self) -> int:
        """`wait_ms` in nanoseconds."""
        return round(self.wait_ms * 1e6)

    def changed(self, name: str, changes: dict[str, Any], known: tuple[str, ...]) -> Options:
        """These with `changes`, for the running batcher `name` with the options `known`.

        Raises:
            TypeError: one is unknown, settled for good, or of the wrong type.
            ValueError: one is out of range, or contradicts another.
        """
        for one in changes:
            if one not in known:
                raise TypeError(f"{name} has no option {one!r}: {closest(one, known)}")
            if one not in LIVE:
                why = FOR_GOOD.get(one, "the batcher is built on it")
                raise TypeError(
                    f"{name}: {one} cannot be changed once the batcher is made: {why}; "
                    f"what can is {', '.join(other for other in LIVE if other in known)}"
                )
        if changes.get("max_batch_cost") is not None and self.max_batch_cost is None:
            raise ValueError(
                f"{name}: max_batch_cost cannot be switched on later: without one the costs of pending "
                f"requests are not counted; give a large one where the batcher is made"
            )
        if "length_window" in changes and self.length is None:
            raise ValueError(
                f"{name}: length_window is about the lengths of requests, which nobody measures: give "
                f"length where the batcher is made"
            )
        return replace(self, **changes)

    def given(self) -> dict[str, Any]:
        """The options that differ from their defaults, by name."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }


class _NotGiven:
    def __repr__(self) -> str:
        return "..."


#: Not given, where None means "switched off".
NOT_GIVEN: Any = _NotGiven()


@dataclass(frozen=True)
class CallOptions:
    """Options of single calls; what is not given is as the batcher has it.

    Raises:
        TypeError: an option is of the wrong type.
        ValueError: an option is out of range.
    """

    priority: int = NOT_GIVEN
    timeout_ms: float | None = NOT_GIVEN
    key: Callable[..., Hashable] | Hashable | None = NOT_GIVEN
    cost: Callable[..., int] | int | None = NOT_GIVEN
    length: Callable[..., int] | int | None = NOT_GIVEN

    def __post_init__(self) -> None:
        if self.priority is not NOT_GIVEN:
            _level("priority", self.priority)
        if self.timeout_ms is not NOT_GIVEN and self.timeout_ms is not None:
            _milliseconds("timeout_ms", self.timeout_ms)
        if not callable(self.key):
            try:
                hash(self.key)
            except TypeError as error:
                raise TypeError(
                    f"key must be hashable, or callable with the arguments of a call, "
                    f"not {_shown(self.key)}: {error}"
                ) from error

    def given(self) -> dict[str, Any]:
        """The options that are given, by name."""
        return {name: value for name, value in vars(self).items() if value is not NOT_GIVEN}

    def shown(self) -> str:
        """As they were written."""
        return ", ".join(f"{name}={value!r}" for name, value in self.given().items())

    def with_more(self, more: dict[str, Any], options: Options) -> CallOptions:
        """These and `more`, of which the later ones count, for a batcher with `options`."""
        changed = replace(self, **more)
        if changed.cost is not NOT_GIVEN:
            _cost(changed.cost, options.max_batch_cost)
        if changed.length is not NOT_GIVEN:
            _length(changed.length, options.length)
        return changed


CALL_OPTIONS = tuple(CallOptions.__dataclass_fields__)
NO_CALL_OPTIONS = CallOptions()


def refuse_unknown(what: str, unknown: dict[str, Any], known: tuple[str, ...]) -> None:
    """TypeError that names the first unknown option and the closest known one."""
    for name in [one for one in unknown if one not in known]:
        if name in CALL_OPTIONS:
            hint = f"it is one of single calls, given by .options({name}=...)"
        elif name in Options.__dataclass_fields__:
            hint = (
                "it is one of handlers, for `batched`; here your own loop runs the batches"
                if what == "Batcher"
                else "it is one of the whole batcher, given where that is made"
            )
        else:
            hint = closest(name, known)
        raise TypeError(f"{what} has no option {name!r}: {hint}")


def closest(name: str, known: Sequence[str]) -> str:
    """What may have been meant by a name that is not known."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"


def timeout_ns(name: str, seconds: float | None) -> int | None:
    """A time limit in nanoseconds; None for no limit.

    Raises:
        TypeError: it is no number.
        ValueError: it is negative or no finite number.
    """
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"{name} must be a number of seconds or None, not {_shown(seconds)}")
    if math.isinf(seconds) and seconds > 0:
        return None
    if math.isnan(seconds) or seconds < 0:
        raise ValueError(f"{name} must be 0 or more seconds, not {seconds!r}")
    return min(round(seconds * 1e9), 2**62)


def max_size(value: int | None) -> int | None:
    """The `max_size` of one pull: None or a positive int.

    Raises:
        TypeError: it is no int.
        ValueError: it is not positive.
    """
    if value is not None:
        _count("max_size", value)
    return value


def _count(name: str, value: object, least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {_shown(value)}")
    if not least <= value <= LARGEST_COUNT:
        raise ValueError(
            f"{name} must be at least {least} (and at most {LARGEST_COUNT}), not {value}"
        )


def _fixed_cost(cost: object) -> int:
    """What every call costs; 0 where that is measured."""
    if cost is None:
        return 1
    return cost if isinstance(cost, int) else 0


def _from_0(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {_shown(value)}")
    if not 0 <= value <= LARGEST_COUNT:
        raise ValueError(f"{name} must be 0 or more (and at most {LARGEST_COUNT}), not {value}")


def _errors(name: str, value: object) -> tuple[type[Exception], ...] | None:
    if value is None:
        return None
    kinds: tuple[Any, ...] = value if isinstance(value, tuple) else (value,)
    if not kinds:
        raise ValueError(f"{name} must name a class of exceptions, or be None, not be empty")
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise TypeError(
                f"{name} must be a subclass of Exception, a tuple of them, or None, not {_shown(value)}"
            )
    return kinds


def _milliseconds(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of milliseconds, not {_shown(value)}")
    if not 0 <= value <= LONGEST_WAIT_MS:
        raise ValueError(
            f"{name} must be from 0 to {LONGEST_WAIT_MS:.0f} milliseconds, not {value!r}"
        )


def _share(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number from 0 to 1, not {_shown(value)}")
    if not 0 < value <= 1:
        raise ValueError(f"{name} must be more than 0 and at most 1, not {value!r}")


def _level(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {_shown(value)}")
    if not -FURTHEST_LEVEL <= value <= FURTHEST_LEVEL:
        raise ValueError(f"{name} must be from -{FURTHEST_LEVEL} to {FURTHEST_LEVEL}, not {value}")


def _cost(value: object, budget: int | None) -> None:
    if value is None:
        return
    if not callable(value):
        cost_of("cost", value)
    if budget is None:
        raise ValueError(
            f"cost={value!r} counts against nothing: give the batcher a max_batch_cost, too"
        )


def _length(value: object, of_all: object) -> None:
    if value is None:
        return
    if not callable(value):
        cost_of("length", value)
    if of_all is None:
        raise ValueError(
            f"length={value!r} is compared with nothing: give the batcher a length, too"
        )


def cost_of(name: str, value: object) -> int:
    """A cost, or a length: an int from 0.

    Raises:
        TypeError: it is no int.
        ValueError: it is negative.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {_shown(value)}")
    if value < 0:
        raise ValueError(f"{name} must be 0 or more, not {value}")
    return value


def _names(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a tuple of names of parameters, not {_shown(value)}")
    for one in value:
        if not isinstance(one, str):
            raise TypeError(f"{name} must be a tuple of names of parameters, not {_shown(value)}")
        if value.count(one) > 1:
            raise ValueError(f"{name} names {one!r} twice: {value!r}")
    return tuple(value)


def _sizes(name: str, value: object, most: int) -> tuple[int, ...]:
    """Increasing, each once."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a list of ints, not {_shown(value)}")
    for one in value:
        _count(f"each of {name}", one)
    if not value:
        raise ValueError(f"{name} must name at least one size, not {value!r}")
    largest = max(value)
    if largest > most:
        raise ValueError(
            f"{name}={value!r} has {largest}, but max_batch_size={most}: no batch may be that large; "
            f"raise max_batch_size to {largest}, or leave the size out"
        )
    return tuple(sorted(set(value)))


def _choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    listed = ", ".join(repr(one) for one in allowed)
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {listed}, not {_shown(value)}")
    if value not in allowed:
        raise ValueError(f"{name} must be one of {listed}, not {value!r}")


def switch(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {_shown(value)}")


def _callable(name: str, value: object) -> None:
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be callable without arguments, or None, not {_shown(value)}")


def _shown(value: object) -> str:
    return f"{value!r} ({type(value).__name__})"
