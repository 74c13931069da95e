"""From options to what each call asks for: its cost, its key, its length, its time and its priority.

`cost`, `key` and `length` are called with the arguments of one call, bound as in a plain call, in the caller and before
anything is submitted: what they raise is that caller's alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from carpool._core import Asks
from carpool._options import NOT_GIVEN, cost_of

if TYPE_CHECKING:
    from carpool._options import CallOptions, Options

    from .binding import Binding

__all__ = ["asks_of"]

#: The core counts in 64 bits; no budget is as large.
_MOST = 2**62


def asks_of(
    name: str, options: Options, given: CallOptions, binding: Binding | None = None
) -> Asks | None:
    """What calls ask for that have these options; None for plain calls. What the batcher's engine knows itself,
    and may be changed, is not in it: the time limit of all calls, and what a priority is worth.

    Without a `binding` the item itself is the only argument.
    """
    key = options.key if given.key is NOT_GIVEN else given.key
    cost = options.cost if given.cost is NOT_GIVEN else given.cost
    length = options.length if given.length is NOT_GIVEN else given.length
    own_timeout = given.timeout_ms is not NOT_GIVEN
    timeout_ms = given.timeout_ms if own_timeout else None
    level = 0 if given.priority is NOT_GIVEN else given.priority
    shares = binding is not None and bool(binding.shared)
    plain = key is None and cost is None and not own_timeout and not level and not shares
    plain = plain and length is None
    if plain and not options.keep_contexts:
        return None
    same = key is None and not shares and not callable(cost) and not callable(length)
    return Asks(
        own_timeout=own_timeout,
        timeout_ns=None if timeout_ms is None else round(timeout_ms * 1e6),
        cost=_fixed(cost, 1),
        length=_fixed(length, 0),
        measure=None if same else _measure(name, cost, key, length, binding),
        level=level,
        keeps_context=options.keep_contexts,
    )


def _fixed(number: Any, default: int) -> int:
    """What it is for every call; of a function what nobody reads."""
    return default if number is None or callable(number) else min(number, _MOST)


def _measure(
    name: str, cost: Any, key: Any, length: Any, binding: Binding | None
) -> Callable[[Any], tuple[int, Any, int]]:
    """`item -> (cost, key, length)`."""
    if binding is None or binding.simple:

        def call(function: Callable[..., Any], item: Any) -> Any:
            return function(item)

    else:
        arguments = binding.arguments

        def call(function: Callable[..., Any], item: Any) -> Any:
            args, kwargs = arguments(item)
            return function(*args, **kwargs)

    def number(what: str, number: Any, default: int) -> Callable[[Any], int]:
        if not callable(number):
            fixed = _fixed(number, default)
            return lambda item: fixed
        told = f"{name}: the result of {what}"
        return lambda item: min(cost_of(told, call(number, item)), _MOST)

    cost_in_range, length_in_range = number("cost", cost, 1), number("length", length, 0)

    def key_of(item: Any) -> Any:
        return call(key, item) if callable(key) else key

    if binding is None or not binding.shared:
        return lambda item: (cost_in_range(item), key_of(item), length_in_range(item))
    shared = binding.shared_of
    if key is None:
        return lambda item: (cost_in_range(item), shared(item), length_in_range(item))
    return lambda item: (
        cost_in_range(item),
        (key_of(item), shared(item)),
        length_in_range(item),
    )
