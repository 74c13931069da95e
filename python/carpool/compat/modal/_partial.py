"""The decorators below `App.function` and `App.cls`: they note what is to be made of a function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ._checks import Batching, batching, concurrency, no_positional
from .exception import InvalidError

__all__ = ["Partial", "batched", "concurrent", "enter", "exit", "fastapi_endpoint", "method"]

#: Stands for a setting without a default.
_REQUIRED: Any = object()

METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")


class Partial:
    """A function with what its decorators asked for, in whichever order they stand."""

    def __init__(self, function: Any) -> None:
        self.function: Any = function
        self.batching: Batching | None = None
        self.max_inputs: int | None = None
        self.web: dict[str, Any] | None = None
        self.is_method = False
        self.is_enter = False
        self.is_exit = False

    @property
    def is_callable(self) -> bool:
        """Whether it is to be called from outside, by a caller or over the web."""
        return self.is_method or self.batching is not None or self.web is not None

    def check(self) -> Partial:
        """
        Raises:
            InvalidError: its decorators do not go together.
        """
        if (self.is_enter or self.is_exit) and (self.is_callable or self.max_inputs is not None):
            raise InvalidError("Interface decorators cannot be combined with lifecycle decorators.")
        if self.web is not None and (self.is_method or self.batching is not None):
            raise InvalidError(
                "Callable decorators cannot be combined with web interface decorators."
            )
        return self

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        container = getattr(instance, "_modal_container", None)
        if container is None or not self.is_callable:
            return self.function.__get__(instance, owner)
        return container.function_of(self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the function itself."""
        return self.function(*args, **kwargs)


def partial_of(target: Any, decorator: str) -> Partial:
    """The notes on `target`, new ones if there are none.

    Args:
        target: what is decorated.
        decorator: by what, as `modal.batched`.

    Raises:
        InvalidError: it is no function.
    """
    if isinstance(target, Partial):
        return target
    below = getattr(target, "_modal_decorator", None)
    if below is not None and not inspect.isclass(target):
        raise InvalidError(
            f"Cannot stack `@{decorator}` on top of `@{below}`. Hint: swap the order of the decorators."
        )
    if inspect.isclass(target):
        raise InvalidError(
            f"Cannot apply `@{decorator}` to a class. Hint: consider applying to a method instead."
        )
    if not callable(target):
        raise InvalidError(f"The object wrapped by `@{decorator}` must be callable.")
    if not hasattr(target, "__name__"):
        raise InvalidError(f"`@{decorator}` decorates a function or method, not {target!r}.")
    return Partial(target)


def batched(
    _function: None = None, /, *, max_batch_size: int = _REQUIRED, wait_ms: int = 100
) -> Callable[[Any], Any]:
    """Runs calls of a function of lists as batches.

    Args:
        max_batch_size: most inputs in one batch, from 1 to 1000.
        wait_ms: longest time the first input is held for company, in milliseconds, from 0 to 600 000.

    Raises:
        InvalidError: a setting is out of range, or the parentheses are missing.
        TypeError: `max_batch_size` is missing.
    """
    no_positional(_function, "modal.batched")
    if max_batch_size is _REQUIRED:
        raise TypeError("batched() needs max_batch_size")
    settings = batching(max_batch_size, wait_ms)

    def decorate(target: Any) -> Partial:
        partial = partial_of(target, "modal.batched")
        if partial.batching is not None:
            raise InvalidError("Cannot set `batch_max_size` twice.")
        partial.batching = settings
        return partial.check()

    return decorate


def concurrent(
    _function: None = None, /, *, max_inputs: int | None = None, target_inputs: int | None = None
) -> Callable[[Any], Any]:
    """Lets several batches of a function (or calls, where it has none) run at once; on a class, of its methods.

    Args:
        max_inputs: so many.
        target_inputs: without effect; nothing starts further containers here.

    Raises:
        InvalidError: a number is no positive int, or the parentheses are missing.
        TypeError: `max_inputs` is missing.
    """
    no_positional(_function, "modal.concurrent")
    most = concurrency(max_inputs, target_inputs)

    def decorate(target: Any) -> Any:
        if inspect.isclass(target):
            target._modal_max_inputs = most  # type: ignore[attr-defined]
            return target
        partial = partial_of(target, "modal.concurrent")
        partial.max_inputs = most
        return partial.check()

    return decorate


def method(_function: None = None, /, *, is_generator: bool | None = None) -> Callable[[Any], Any]:
    """Makes a method of a class one that is called by `.remote` and its like. `is_generator` has no effect.

    Raises:
        InvalidError: the parentheses are missing.
    """
    no_positional(_function, "modal.method")

    def decorate(target: Any) -> Partial:
        partial = partial_of(target, "modal.method")
        partial.is_method = True
        return partial.check()

    return decorate


def enter(_function: None = None, /, *, snap: bool = False) -> Callable[[Any], Any]:
    """Has a method run once before the first call of its object. `snap` has no effect.

    Raises:
        InvalidError: the parentheses are missing.
    """
    no_positional(_function, "modal.enter")

    def decorate(target: Any) -> Partial:
        partial = partial_of(target, "modal.enter")
        partial.is_enter = True
        return partial.check()

    return decorate


def exit(_function: None = None, /) -> Callable[[Any], Any]:
    """Has a method run once after the last call of its object.

    Raises:
        InvalidError: the parentheses are missing.
    """
    no_positional(_function, "modal.exit")

    def decorate(target: Any) -> Partial:
        partial = partial_of(target, "modal.exit")
        partial.is_exit = True
        return partial.check()

    return decorate


def fastapi_endpoint(
    _function: None = None,
    /,
    *,
    method: str = "GET",
    label: str | None = None,
    docs: bool = False,
    custom_domains: Any = None,
    requires_proxy_auth: bool = False,
) -> Callable[[Any], Any]:
    """Makes a function answer HTTP requests; see `App.asgi`.

    Args:
        method: of the requests.
        label: its path, where an app has several endpoints; else the function's name.
        docs: whether it serves `/docs` and `/openapi.json`.
        custom_domains, requires_proxy_auth: without effect.

    Raises:
        InvalidError: the method is none of HTTP, or the parentheses are missing.
    """
    no_positional(_function, "modal.fastapi_endpoint")
    if method not in METHODS:
        raise InvalidError(f"method must be one of {', '.join(METHODS)}, not {method!r}.")

    def decorate(target: Any) -> Partial:
        partial = partial_of(target, "modal.fastapi_endpoint")
        partial.web = {"method": method, "label": label, "docs": docs}
        return partial.check()

    return decorate
