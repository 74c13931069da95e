"""CUDA graphs: one per form of batch, captured when that is first seen, replayed afterwards.

With `batch_sizes` there are as many forms as sizes, as long as the items have one shape (or `Pad` has `buckets`); `warmup`
shows them all. What does not fit, runs as it is and is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._lanes import Lanes
from ._nest import mapped

__all__ = ["Graphs"]

#: The most graphs that are captured: each keeps its own memory.
MOST = 64
#: How often a form is run before it is captured, so that libraries have chosen their ways.
WARM = 3


class Graphs:
    """The graphs of one handler on one device."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._known: dict[Any, _Graph | None] = {}
        #: Batches that ran as they are.
        self.eager = 0
        #: Batches that were replayed.
        self.replayed = 0

    def run(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """What `function` returns for these tensors; called on the lane "run"."""
        tensors: list[Any] = []
        mapped((args, kwargs), lambda leaf: tensors.append(leaf) if _is_tensor(leaf) else None)
        form = tuple([(tuple(one.shape), one.dtype) for one in tensors])
        if not tensors or not all(map(self._lanes.is_on_device, tensors)):
            self.eager += 1
            return function(*args, **kwargs)
        if form not in self._known and len(self._known) < MOST:
            self._known[form] = _Graph.captured(function, args, kwargs)
        graph = self._known.get(form)
        if graph is None:
            self.eager += 1
            return function(*args, **kwargs)
        self.replayed += 1
        return graph.replay(tensors)


class _Graph:
    """One captured graph, with the tensors it reads and writes."""

    def __init__(self, graph: Any, inputs: list[Any], output: Any) -> None:
        self._graph = graph
        self._inputs = inputs
        self._output = output

    @classmethod
    def captured(
        cls, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> _Graph | None:
        """A graph of `function` on copies of these tensors; None where it cannot be captured."""
        import torch

        inputs: list[Any] = []

        def copied(leaf: Any) -> Any:
            if not _is_tensor(leaf):
                return leaf
            inputs.append(leaf.clone())
            return inputs[-1]

        given, named = mapped((args, kwargs), copied)
        try:
            for _ in range(WARM):
                function(*given, **named)
            graph = torch.cuda.CUDAGraph()
            # Other threads (the one that delivers, for one) may use the device meanwhile.
            with torch.cuda.graph(
                graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"
            ):
                output = function(*given, **named)
        except RuntimeError:
            # Waits for the device, or decides by its numbers: nothing that can be replayed.
            return None
        return cls(graph, inputs, output)

    def replay(self, tensors: list[Any]) -> Any:
        """The output for other tensors of the same form, in memory of its own."""
        for static, tensor in zip(self._inputs, tensors, strict=True):
            static.copy_(tensor)
        self._graph.replay()
        # The next replay writes where this one has written; the copy back may not be done by then.
        return mapped(self._output, lambda leaf: leaf.clone() if _is_tensor(leaf) else leaf)


def _is_tensor(leaf: Any) -> bool:
    return hasattr(leaf, "data_ptr")
