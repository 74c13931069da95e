"""One call of a batched function, and the arguments of the function for several of them."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Hashable, Sequence
from typing import Any

__all__ = ["Binder", "Request", "arguments_of", "parts_within"]


class Request:
    """One call: its arguments, and what Ray Serve knows of it."""

    __slots__ = ("args", "context", "kind", "kwargs")

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any], kind: Hashable) -> None:
        self.args = args
        self.kwargs = kwargs
        self.context: Any = None
        #: Calls share a batch only where this is equal: which parameters they give, and which model they ask for.
        self.kind = kind
        serve = sys.modules.get("ray.serve.context")
        if serve is not None:
            self.context = serve._get_serve_request_context()
            model = getattr(self.context, "multiplexed_model_id", "")
            if model:
                self.kind = (kind, model)

    @property
    def first(self) -> Any:
        """The value that `batch_size_fn` is given: that of the first parameter."""
        return self.args[0] if self.args else next(iter(self.kwargs.values()), None)


class Binder:
    """Makes a request of the arguments of a call, as a plain call of the function would bind them."""

    def __init__(self, function: Callable[..., Any], *, method: bool) -> None:
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())
        self.signature: inspect.Signature = signature.replace(parameters=parameters[method:])
        self.name: str = getattr(function, "__name__", "batch")
        kinds = {one.kind for one in self.signature.parameters.values()}
        defaults = [one.default for one in self.signature.parameters.values()]
        plain = kinds <= {
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
        } and all(default is inspect.Parameter.empty for default in defaults)
        #: How many positional arguments are all there can be; -1: calls may differ in what they give.
        self._count = len(self.signature.parameters) if plain else -1

    def request(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Request:
        """The request of a call.

        Raises:
            TypeError: the arguments do not fit.
        """
        if len(args) == self._count and not kwargs:
            return Request(args, {}, None)
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}() {error}") from None
        if self._count >= 0:
            return Request(bound.args, bound.kwargs, None)
        # What is left out stays out: the handler then finds its own default there, and no list.
        return Request(bound.args, bound.kwargs, (len(bound.args), frozenset(bound.kwargs)))


def arguments_of(requests: Sequence[Request]) -> tuple[list[list[Any]], dict[str, list[Any]]]:
    """A list for each parameter; the requests give the same ones."""
    first = requests[0]
    positional = [list(column) for column in zip(*(one.args for one in requests), strict=True)]
    by_name = {name: [one.kwargs[name] for one in requests] for name in first.kwargs}
    return positional, by_name


def parts_within(
    requests: Sequence[Request], size_fn: Callable[[list[Any]], int], most: int
) -> list[list[Request]]:
    """The requests in order, as few parts as a size of at most `most` allows; what alone is larger stands alone."""
    parts: list[list[Request]] = []
    for request in requests:
        if parts and size_fn([one.first for one in [*parts[-1], request]]) <= most:
            parts[-1].append(request)
        else:
            parts.append([request])
    return parts


def show_to_ray(requests: Sequence[Request]) -> None:
    """Tells Ray Serve, if it is loaded, whose requests this code runs for."""
    serve = sys.modules.get("ray.serve.context")
    if serve is not None:
        serve._set_batch_request_context([one.context for one in requests])
