"""Tensors that callers bring on a device: what made them may not be done there when a batch reads them.

Work on a device is put on a stream and done later. A caller's thread has a stream of its own that is current when it
submits, and whatever made its tensors was put there before: so a mark on it, at that moment, is what the batch
has to wait for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from ._lanes import Mark
from ._nest import leaves

__all__ = ["Arrived", "arrived", "plain"]


class Arrived:
    """An item, and the marks behind what made its tensors."""

    __slots__ = ("item", "marks")

    def __init__(self, item: Any, marks: Sequence[Mark]) -> None:
        self.item = item
        self.marks = marks


def arrived(item: Any) -> Any:
    """The item as it is; one that has tensors on a device with marks on the streams that are current here."""
    marks = _marks(item)
    return Arrived(item, marks) if marks else item


def plain(item: Any) -> Any:
    """The item alone."""
    return item.item if type(item) is Arrived else item


def _cuda_marks(item: Any) -> Sequence[Mark]:
    torch: Any = sys.modules.get("torch")
    # Where nothing has been put on a device yet, no tensor is on one.
    if torch is None or not torch.cuda.is_initialized():
        return ()
    kind = torch.Tensor
    devices = {leaf.device for leaf in leaves(item) if isinstance(leaf, kind) and leaf.is_cuda}
    if not devices:
        return ()
    from ._streams import mark_here

    return [mark_here(device) for device in devices]


#: The marks behind the tensors of an item; tests have devices of their own.
_marks: Callable[[Any], Sequence[Mark]] = _cuda_marks
