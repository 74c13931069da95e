"""The lanes of a CUDA device: three streams of ours, pinned memory, events that block."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ._lanes import Lane, torch_of

if TYPE_CHECKING:
    from ._ring import Place

__all__ = ["CudaLanes", "mark_here"]


class _Event:
    def __init__(self, event: Any, device: Any) -> None:
        self.event = event
        self.device = device

    def done(self) -> bool:
        return bool(self.event.query())

    def wait(self) -> None:
        # Made with blocking=True: the thread sleeps, and torch lets the interpreter go.
        self.event.synchronize()


def mark_here(device: Any) -> _Event:
    """A mark on the stream of a device that is current in this thread."""
    import torch

    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return _Event(event, device)


class CudaLanes:
    """One CUDA device; see `Lanes`."""

    def __init__(self, device: Any) -> None:
        import torch

        self._torch = torch
        index = torch.cuda.current_device() if device.index is None else device.index
        self.device = torch.device("cuda", index)
        self._streams: dict[Lane, Any] = {
            lane: torch.cuda.Stream(self.device) for lane in ("up", "run", "down")
        }

    @contextlib.contextmanager
    def receiving(self, marks: Sequence[Any], tensors: Sequence[Any]) -> Iterator[None]:
        cuda = self._torch.cuda
        with cuda.device(self.device), cuda.stream(self._streams["up"]):
            # "up" for those of our device; those of another are read on its own stream, and copied from there.
            for mark in marks:
                cuda.current_stream(mark.device).wait_event(mark.event)
            for tensor in tensors:
                if self.is_on_device(tensor):
                    tensor.record_stream(cuda.current_stream(tensor.device))
            yield

    def stage(self, array: Any, place: Place) -> Any:
        tensor = torch_of(array)
        if not isinstance(tensor, self._torch.Tensor):
            return tensor
        if tensor.is_cuda:
            # Collated in this thread, or made by a collator of somebody's own.
            self.follow("up", mark_here(tensor.device))
            if tensor.device == self.device:
                tensor.record_stream(self._streams["up"])
            return tensor
        staged = self._pinned(tensor, place)
        staged.copy_(tensor)
        return staged

    def _pinned(self, tensor: Any, place: Place) -> Any:
        """Pinned memory of the place, in the form of a tensor."""
        torch = self._torch
        size = tensor.element_size() * math.prod(tensor.shape)
        buffer = place.buffer(
            size, lambda: torch.empty(max(size, 4096), dtype=torch.uint8, pin_memory=True)
        )
        return buffer[:size].view(tensor.dtype).view(tensor.shape)

    def upload(self, staged: Any) -> Any:
        if not isinstance(staged, self._torch.Tensor):
            return staged
        with self._torch.cuda.stream(self._streams["up"]):
            return staged.to(self.device, non_blocking=True)

    def mark(self, lane: Lane) -> _Event:
        event = self._torch.cuda.Event(blocking=True)
        event.record(self._streams[lane])
        return _Event(event, self.device)

    def follow(self, lane: Lane, mark: Any) -> None:
        self._streams[lane].wait_event(mark.event)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with self._torch.cuda.device(self.device), self._torch.cuda.stream(self._streams["run"]):
            yield

    def capture(self, work: Callable[[], Any]) -> tuple[Callable[[], object], Any]:
        cuda = self._torch.cuda
        graph = cuda.CUDAGraph()
        # Other threads (the one that delivers, for one) may use the device meanwhile.
        with cuda.graph(graph, stream=self._streams["run"], capture_error_mode="thread_local"):
            output = work()
        return graph.replay, output

    def keep(self, tensor: Any, lane: Lane) -> None:
        if self.is_on_device(tensor):
            tensor.record_stream(self._streams[lane])

    def is_on_device(self, value: Any) -> bool:
        return isinstance(value, self._torch.Tensor) and value.is_cuda

    def download(self, tensor: Any, place: Place) -> Any:
        tensor = tensor.detach()
        host = self._pinned(tensor, place)
        with self._torch.cuda.stream(self._streams["down"]):
            host.copy_(tensor, non_blocking=True)
        return host
