"""Calls of a handler on a device: items that are there already come with marks behind what made them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from carpool.cuda import arrived, plain

from .binding import Binding

__all__ = ["ArrivingBinding"]


class ArrivingBinding(Binding):
    """Binds in the caller's thread, where the streams are current that its tensors were made on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Every item is looked at.
        self.simple = False

    def item(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        return arrived(super().item(args, kwargs))

    def arguments(self, item: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return super().arguments(plain(item))

    def shared_of(self, item: Any) -> Any:
        return super().shared_of(plain(item))

    def lists(self, items: list[Any]) -> tuple[list[list[Any]], dict[str, list[Any]]]:
        return super().lists([plain(item) for item in items])
