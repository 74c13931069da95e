"""Whole data sets through one batcher: `map`, `starmap`, and the same for coroutines."""

from __future__ import annotations

import operator
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any, Generic, Literal, TypedDict

from carpool._options import NOT_GIVEN, closest
from carpool._types import A, R_co

from .progress import Progress
from .sync_pass import How, Lot, over

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["MapOptions", "Maps"]


class MapOptions(TypedDict, total=False):
    """The options of `map`, and of its likes."""

    window: int | None
    ordered: bool
    errors: Literal["raise", "return", "skip"]
    return_exceptions: bool
    retries: int
    backoff_ms: float
    timeout_ms: float | None
    progress: bool | Callable[[Progress], object]


HOW = tuple(How.__dataclass_fields__)


class Maps(Generic[A, R_co]):
    """What can be called with one item can be mapped over many."""

    def _lot(self, star: bool) -> Lot:
        raise NotImplementedError

    def _called_with(self, args: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
        """Who is called with these arguments, and the rest of them: methods take their instance out."""
        return self, args

    def _mapped(self, args: tuple[Any, ...], how: dict[str, Any]) -> tuple[Maps[Any, Any], Any]:
        """Whom a map goes through, and over what; takes the options out that are those of single calls."""
        through, args = self._called_with(args)
        if len(args) != 1:
            raise TypeError(f"a map takes one iterable, not {len(args)} positional arguments")
        timeout_ms = how.pop("timeout_ms", NOT_GIVEN)
        for name in how:
            if name not in HOW:
                known = closest(name, (*HOW, "timeout_ms"))
                raise TypeError(f"a map has no option {name!r}: {known}")
        if timeout_ms is not NOT_GIVEN:
            through = through.options(timeout_ms=timeout_ms)
        return through, args[0]

    if TYPE_CHECKING:

        def map(
            self, items: Iterable[A], /, **how: Unpack[MapOptions]
        ) -> Generator[R_co, None, None]:
            """The answers to all items of an iterable of any length, in full batches.

            Lazy: nothing is read before the first answer is asked for, and never more than a window of items
            is between source and consumer. Leaving the loop early (or `close()`) cancels what is in flight. An
            error of the iterable is raised after the answers to what came before it.

            Args:
                items: one item each; other parameters have their defaults.
                window: most items read and not handed out yet; default some batches, by how many may run at once.
                ordered: True gives the answers in the order of the items, False as they come.
                errors: what becomes of an item that fails: "raise" (the default) raises at its place, "return"
                    gives its exception in its place, "skip" leaves it out.
                return_exceptions: True is errors="return".
                retries: how often an item that failed is tried again; default 0.
                backoff_ms: how long before the first of these, in milliseconds (100); doubles each time up to half a
                    minute, and up to half of it is taken off by chance.
                timeout_ms: see `batched`; counts anew for every try of an item.
                progress: True draws a bar (with tqdm or rich); a function is called with a `Progress`, at most
                    ten times a second and at the end.

            Raises:
                TypeError, ValueError: an option is unknown, of the wrong type or out of range.
                ImportError: progress=True, and neither tqdm nor rich is installed.
            """
            ...

        def starmap(
            self, items: Iterable[Iterable[Any]], /, **how: Unpack[MapOptions]
        ) -> Generator[R_co, None, None]:
            """`map` over the positional arguments of each call: `f(*one)` for each of `items`."""
            ...

        def amap(
            self, items: Iterable[A] | AsyncIterable[A], /, **how: Unpack[MapOptions]
        ) -> AsyncGenerator[R_co, None]:
            """`map` for coroutines, over iterables and asynchronous iterables.

            What an asynchronous iterable gives is submitted as it comes; a plain one is read on the event loop.
            """
            ...

        def astarmap(
            self,
            items: Iterable[Iterable[Any]] | AsyncIterable[Iterable[Any]],
            /,
            **how: Unpack[MapOptions],
        ) -> AsyncGenerator[R_co, None]:
            """`amap` over the positional arguments of each call."""
            ...

    else:

        def map(self, *args: Any, **how: Any) -> Generator[Any, None, None]:
            through, items = self._mapped(args, how)
            return over(through._lot(False), iter(items), How(**how), length_of(items))

        def starmap(self, *args: Any, **how: Any) -> Generator[Any, None, None]:
            through, items = self._mapped(args, how)
            return over(through._lot(True), iter(items), How(**how), length_of(items))

        def amap(self, *args: Any, **how: Any) -> AsyncGenerator[Any, None]:
            through, items = self._mapped(args, how)
            from .async_pass import aover

            return aover(through._lot(False), source_of(items), How(**how), length_of(items))

        def astarmap(self, *args: Any, **how: Any) -> AsyncGenerator[Any, None]:
            through, items = self._mapped(args, how)
            from .async_pass import aover

            return aover(through._lot(True), source_of(items), How(**how), length_of(items))


def length_of(items: Any) -> int | None:
    """How many there are, where that is known without reading them."""
    try:
        hint = operator.length_hint(items, -1)
    except Exception:  # of the user's: a wrong guess must not end what does without
        return None
    return hint if hint >= 0 else None


def source_of(items: Any) -> Any:
    """An asynchronous iterable as it is, an iterator of any other.

    Raises:
        TypeError: it is neither.
    """
    return items if isinstance(items, AsyncIterable) else iter(items)
