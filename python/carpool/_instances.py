"""The batchers of a method's instances; each goes with its instance."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, TypeVar

from . import _lifecycle
from ._plan import Branch

if TYPE_CHECKING:
    from ._function import Decorated

    D = TypeVar("D", bound=Decorated)

__all__ = ["Instances"]


class Instances:
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
        self, method: Decorated, instance: Any, number: int
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
