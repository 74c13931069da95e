"""How wide a padded axis becomes, and what of a row that is too long is kept; pure numbers."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["Side", "Widths"]

Side = Literal["right", "left"]


class Widths(NamedTuple):
    """The rule from the longest row to the width of a batch."""

    multiple_of: int = 1
    max_length: int | None = None
    buckets: tuple[int, ...] = ()
    truncate: Side | None = None

    def kept(self, length: int) -> int:
        """How much of a row is kept."""
        if self.truncate is None or self.max_length is None:
            return length
        return min(length, self.max_length)

    def misfit(self, length: int) -> str | None:
        """Why a row of this length cannot be in any batch; None if it can."""
        length = self.kept(length)
        if self.max_length is not None and length > self.max_length:
            return f"is longer than max_length={self.max_length}"
        if self.buckets and length > self.buckets[-1]:
            return f"is wider than the largest of buckets={self.buckets}"
        return None

    def width(self, longest: int) -> int:
        """The width for rows of which the longest, cut to what is kept, has this length."""
        for bucket in self.buckets:
            if bucket >= longest:
                return bucket
        width = -(-longest // self.multiple_of) * self.multiple_of
        return width if self.max_length is None else max(longest, min(width, self.max_length))
