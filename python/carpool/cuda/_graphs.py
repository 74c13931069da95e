"""CUDA graphs: one per form of batch, captured when that is first seen, replayed afterwards.

With `batch_sizes` there are as many forms as sizes, as long as the items have one shape (or `Pad` has `buckets`); `warmup`
shows them all. What does not fit, runs as it is and is counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from ._lanes import Lanes
from ._nest import mapped

__all__ = ["Graphs", "Tally"]

#: The most graphs that are captured: each keeps its own memory.
MOST = 64
#: How often a form is run before it is captured, so that libraries have chosen their ways.
WARM = 3


class Tally:
    """How many batches ran how."""

    def __init__(self) -> None:
        #: By a graph that was replayed.
        self.replayed = 0
        #: As they are: no graph fits them.
        self.eager = 0


class Graphs:
    """The graphs of one handler on one device."""

    def __init__(self, lanes: Lanes, tally: Tally | None = None) -> None:
        self._lanes = lanes
        self._known: dict[Any, _Graph | None] = {}
        self.tally = tally or Tally()

    def run(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """What `function` returns for these arguments; called on the lane "run"."""
        tensors: list[Any] = []
        form = _form((args, kwargs), tensors)
        graph = self._graph(form, tensors, function, args, kwargs)
        if graph is None:
            self.tally.eager += 1
            return function(*args, **kwargs)
        self.tally.replayed += 1
        return graph.replay(tensors)

    def _graph(
        self,
        form: Hashable,
        tensors: list[Any],
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> _Graph | None:
        if not tensors or not all(map(self._lanes.is_on_device, tensors)):
            return None
        try:
            if form in self._known:
                return self._known[form]
        except TypeError:
            # An argument that cannot be compared with another batch's.
            return None
        if len(self._known) >= MOST:
            return None
        graph = self._known[form] = self._captured(function, args, kwargs)
        return graph

    def _captured(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> _Graph | None:
        """A graph of `function` on copies of these tensors; None where it cannot be captured.

        What `function` raises before it is captured is raised: that is about the batch, not its form.
        """
        inputs: list[Any] = []

        def copied(leaf: Any) -> Any:
            if not _is_tensor(leaf):
                return leaf
            inputs.append(leaf.clone())
            return inputs[-1]

        given, named = mapped((args, kwargs), copied)
        for _ in range(WARM):
            function(*given, **named)
        try:
            replay, output = self._lanes.capture(lambda: function(*given, **named))
        except RuntimeError:
            # Waits for the device, or decides by its numbers: nothing that can be replayed.
            return None
        return _Graph(replay, inputs, output)


class _Graph:
    """One captured graph, with the tensors it reads and writes."""

    def __init__(self, replay: Callable[[], object], inputs: list[Any], output: Any) -> None:
        self._replay = replay
        self._inputs = inputs
        self._output = output

    def replay(self, tensors: list[Any]) -> Any:
        """The output for other tensors of the same form, in memory of its own."""
        for static, tensor in zip(self._inputs, tensors, strict=True):
            static.copy_(tensor)
        self._replay()
        # The next replay writes where this one has written; the copy back may not be done by then.
        return mapped(self._output, lambda leaf: leaf.clone() if _is_tensor(leaf) else leaf)


def _form(value: Any, tensors: list[Any]) -> Hashable:
    """What two calls have in common that one graph can serve: everything but the numbers in their tensors.

    The tensors go to `tensors`, in the order in which `mapped` comes to them. What is no tensor is a constant to a
    graph, so it has to be equal, and of the same type.
    """
    if isinstance(value, Mapping):
        return dict, tuple([(key, _form(one, tensors)) for key, one in value.items()])
    if isinstance(value, (list, tuple)):
        return type(value), tuple([_form(one, tensors) for one in value])
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [one.name for one in dataclasses.fields(value) if one.init]
        return type(value), tuple([_form(getattr(value, name), tensors) for name in fields])
    leaf: Any = value
    if _is_tensor(leaf):
        tensors.append(leaf)
        return "tensor", tuple(leaf.shape), leaf.dtype
    # Zeros of both signs are equal, and NaNs are not.
    return type(leaf), leaf.hex() if type(leaf) is float else leaf


def _is_tensor(leaf: Any) -> bool:
    return hasattr(leaf, "data_ptr")
