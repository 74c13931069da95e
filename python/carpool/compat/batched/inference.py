"""`batched.inference`: batches of arrays and tensors, padded, on a worker thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar, cast, overload

from ._features import features_shape, kind_of, split_features, stack_rows
from ._handler import Shape
from ._processor import Processor, decorator_of
from .types import Feature

__all__ = ["ModelBatchProcessor", "dynamically"]

U = TypeVar("U")


class ModelProcessor(Processor):
    """What model processors share: features in, padded; an output row per row."""

    pad_tokens: Mapping[str, Any]
    padding_side: str
    spread_kwargs: bool

    def _be(self, function: Callable[..., Any], inner: Any, settings: dict[str, Any]) -> None:
        super()._be(function, inner, settings)
        self.pad_tokens = settings["pad_tokens"] or {}
        self.padding_side = settings["padding_side"]
        self.spread_kwargs = settings["spread_kwargs"]

    @classmethod
    def _shape(cls, settings: dict[str, Any]) -> Shape:
        return features_shape(settings)

    @classmethod
    def _options(cls, settings: dict[str, Any], handler: Callable[..., Any]) -> dict[str, Any]:
        options = super()._options(settings, handler)
        # Rows of another dtype or shape cannot be stacked: whoever sends them must fail alone, or share with his like.
        return {**options, "key": kind_of}


def rows_of_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of `f(features)` or `f(**features)`.

    Raises:
        TypeError: it is neither.
        ValueError: see `split_features`.
    """
    if len(args) > 1 or (args and kwargs):
        raise TypeError("features are given as one dict, or by name")
    return split_features(args[0] if args else kwargs)


class ModelBatchProcessor(ModelProcessor, Generic[U]):
    """Runs calls with dicts of arrays or tensors as padded batches on a worker thread.

    Args:
        _func: takes a dict of the features of a batch, each of shape (n, ...), and returns an array or tensor with n
            rows, a list of those (heads) or a dict of those. `async def` runs on the worker's own event loop.
        batch_size: most rows in one batch.
        timeout_ms: longest time a row waits for company while the worker is free, in milliseconds.
        small_batch_threshold: calls with more rows than this let smaller ones pass, up to a second.
        pad_tokens: by feature, what shorter rows are filled up with; else 0.
        padding_side: where: "right" or "left".
        spread_kwargs: the handler takes the features by keyword.
        pad_token: the same as `pad_tokens`.

    Raises:
        TypeError, ValueError: a setting is of the wrong type or out of range.
    """

    def __init__(
        self,
        _func: Callable[..., U],
        *,
        batch_size: int = 32,
        timeout_ms: float = 5.0,
        small_batch_threshold: int = 8,
        pad_tokens: Mapping[str, Any] | None = None,
        padding_side: str = "right",
        spread_kwargs: bool = False,
        pad_token: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            _func,
            batch_size=batch_size,
            timeout_ms=timeout_ms,
            small_batch_threshold=small_batch_threshold,
            pad_tokens=one_of_two(pad_tokens, pad_token),
            padding_side=padding_side,
            spread_kwargs=spread_kwargs,
        )

    @overload
    def __call__(self, features: Mapping[str, Feature], /) -> U: ...
    @overload
    def __call__(self, **features: Feature) -> U: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Blocks for the output of all rows of the call, stacked.

        Raises:
            TypeError, ValueError: the features are no dict of arrays with as many rows each.
            BatchOutputLengthError: the handler's output had another number of rows than its input.
            carpool.BatcherClosed: it was shut down.
            Exception: what the handler raised, as an exception of the caller's own.
        """
        rows = rows_of_call(args, kwargs)
        return stack_rows(list(self._by_size(len(rows)).map(rows)))

    @overload
    async def acall(self, features: Mapping[str, Feature], /) -> U: ...
    @overload
    async def acall(self, **features: Feature) -> U: ...
    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        """The same for coroutines, on any event loop."""
        rows = rows_of_call(args, kwargs)
        return stack_rows([row async for row in self._by_size(len(rows)).amap(rows)])

    def start(self) -> None:
        """Nothing: the worker starts with the first call."""

    def shutdown(self) -> None:
        """Takes no more calls, and waits until what was accepted is answered. Nothing before the first call."""
        if self._inner.stats.submitted:
            self._inner.close()


def one_of_two(
    pad_tokens: Mapping[str, Any] | None, pad_token: Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    """The one setting with two names.

    Raises:
        TypeError: both are given.
    """
    if pad_tokens is not None and pad_token is not None:
        raise TypeError("pad_tokens and pad_token are the same setting: give one of them")
    return pad_token if pad_tokens is None else pad_tokens


class Dynamically(Protocol):
    """What `dynamically(...)` returns; of a method, a processor for each instance."""

    def __call__(self, func: Callable[..., U], /) -> ModelBatchProcessor[U]: ...


@overload
def dynamically(
    func: Callable[..., U],
    /,
    *,
    batch_size: int = 32,
    timeout_ms: float = 5.0,
    small_batch_threshold: int = 8,
    pad_tokens: Mapping[str, Any] | None = None,
    padding_side: str = "right",
    spread_kwargs: bool = False,
    pad_token: Mapping[str, Any] | None = None,
) -> ModelBatchProcessor[U]: ...
@overload
def dynamically(
    func: None = None,
    /,
    *,
    batch_size: int = 32,
    timeout_ms: float = 5.0,
    small_batch_threshold: int = 8,
    pad_tokens: Mapping[str, Any] | None = None,
    padding_side: str = "right",
    spread_kwargs: bool = False,
    pad_token: Mapping[str, Any] | None = None,
) -> Dynamically: ...
def dynamically(
    func: Any = None,
    /,
    *,
    batch_size: int = 32,
    timeout_ms: float = 5.0,
    small_batch_threshold: int = 8,
    pad_tokens: Mapping[str, Any] | None = None,
    padding_side: str = "right",
    spread_kwargs: bool = False,
    pad_token: Mapping[str, Any] | None = None,
) -> Any:
    """Makes a `ModelBatchProcessor` of a function of features; of a method, one for each instance.

    Bare or with settings, which are those of `ModelBatchProcessor`.

    Raises:
        TypeError, ValueError: a setting is of the wrong type or out of range.
    """
    settings = {
        "batch_size": batch_size,
        "timeout_ms": timeout_ms,
        "small_batch_threshold": small_batch_threshold,
        "pad_tokens": one_of_two(pad_tokens, pad_token),
        "padding_side": padding_side,
        "spread_kwargs": spread_kwargs,
    }
    decorate = decorator_of(cast("type[Processor]", ModelBatchProcessor), settings)
    return decorate if func is None else decorate(func)
