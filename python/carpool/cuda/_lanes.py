"""What a ring asks of a device: memory on both sides, and three lanes with marks between them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from ._ring import Place

__all__ = ["CpuLanes", "Lane", "Lanes", "Mark", "lanes_of", "torch_of"]

Lane = Literal["up", "run", "down"]


class Mark(Protocol):
    """A point on a lane."""

    def done(self) -> bool:
        """Whether the lane has come past it."""
        ...

    def wait(self) -> None:
        """Blocks until it has, without the interpreter and without spinning."""
        ...


class Lanes(Protocol):
    """One device. What is put on a lane happens later, in the order of that lane alone."""

    def receiving(
        self, marks: Sequence[Mark], tensors: Sequence[Any]
    ) -> AbstractContextManager[object]:
        """Inside, in this thread, device and lane "up" are the current ones, and have come past the marks that callers
        set behind what made these tensors. Let go of, they are kept from other use until "up" has read them."""
        ...

    def stage(self, array: Any, place: Place) -> Any:
        """A batch's array copied, now, into memory of the place from which `upload` can read."""
        ...

    def upload(self, staged: Any) -> Any:
        """Puts the copy to the device on "up"; the tensor that will hold it."""
        ...

    def mark(self, lane: Lane) -> Mark:
        """A mark behind what has been put on a lane."""
        ...

    def follow(self, lane: Lane, mark: Mark) -> None:
        """What is put on `lane` from now on waits for the mark of another."""
        ...

    def running(self) -> AbstractContextManager[object]:
        """Inside, in this thread, device and lane "run" are the current ones."""
        ...

    def capture(self, work: Callable[[], Any]) -> tuple[Callable[[], object], Any]:
        """What `work` puts on "run", to be put there again: how, and what `work` returned, which that writes again.

        Raises:
            RuntimeError: it cannot be captured.
        """
        ...

    def keep(self, tensor: Any, lane: Lane) -> None:
        """When the tensor is let go of, its memory is given to no other before what is on the lane then is done."""
        ...

    def is_on_device(self, value: Any) -> bool:
        """Whether it is a tensor that has to be copied back."""
        ...

    def download(self, tensor: Any, place: Place) -> Any:
        """Puts the copy back on "down"; the array in memory of the place that will hold it."""
        ...


def torch_of(array: Any) -> Any:
    """An array as a tensor that shares its memory, a tensor as it is; anything else as it is."""
    import torch

    numpy: Any = sys.modules.get("numpy")
    if numpy is None or not isinstance(array, numpy.ndarray):
        return array
    return torch.from_numpy(array)


def lanes_of(device: str) -> Lanes:
    """The lanes of a device: "cpu", "cuda" or "cuda:1".

    Raises:
        ImportError: torch is not installed.
        RuntimeError: there is no such device; the text says what there is.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"device={device!r} runs on torch's tensors; pip install 'carpool[torch]'"
        ) from error
    kind = torch.device(device)
    if kind.type == "cpu":
        return CpuLanes()
    if kind.type != "cuda":
        raise RuntimeError(f"device={device!r}: only 'cpu' and 'cuda' devices are known")
    if not torch.cuda.is_available():
        raise RuntimeError(
            f"device={device!r}: torch {torch.__version__} finds no CUDA device here; "
            f"device='cpu' runs the same handler the same way"
        )
    if kind.index is not None and kind.index >= torch.cuda.device_count():
        raise RuntimeError(
            f"device={device!r}: there are {torch.cuda.device_count()} CUDA devices, from cuda:0 on"
        )
    from ._streams import CudaLanes

    return CudaLanes(kind)


class _Passed:
    """A mark that has been passed when it is made."""

    def done(self) -> bool:
        return True

    def wait(self) -> None:
        pass


class CpuLanes:
    """Main memory in place of a device: everything happens at once."""

    def receiving(
        self, marks: Sequence[Mark], tensors: Sequence[Any]
    ) -> AbstractContextManager[object]:
        return contextlib.nullcontext()

    def stage(self, array: Any, place: Place) -> Any:
        return torch_of(array)

    def upload(self, staged: Any) -> Any:
        return staged

    def mark(self, lane: Lane) -> Mark:
        return _Passed()

    def follow(self, lane: Lane, mark: Mark) -> None:
        pass

    def running(self) -> AbstractContextManager[object]:
        return contextlib.nullcontext()

    def capture(self, work: Callable[[], Any]) -> tuple[Callable[[], object], Any]:
        raise RuntimeError("main memory has no graphs")

    def keep(self, tensor: Any, lane: Lane) -> None:
        pass

    def is_on_device(self, value: Any) -> bool:
        return False

    def download(self, tensor: Any, place: Place) -> Any:
        return tensor
