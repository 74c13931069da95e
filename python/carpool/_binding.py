"""A handler takes lists, a call takes items: which parameter gets what, found in the caller's thread."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["Binding"]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Binding:
    """How calls bind to the parameters of one handler.

    Raises:
        TypeError: the handler has no parameter, or takes `*args` or `**kwargs`.
    """

    def __init__(self, function: Callable[..., Any], name: str, *, bound: bool) -> None:
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())
        if bound and parameters and parameters[0].kind in _POSITIONAL:
            parameters = parameters[1:]
        for parameter in parameters:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise TypeError(
                    f"{name}: a batched function cannot take {parameter}; "
                    f"name each parameter, every one becomes a list"
                )
        if not parameters:
            raise TypeError(
                f"{name}: a batched function needs a parameter, the list of items; it has none"
            )
        self.name = name
        self.parameters = parameters
        self.signature: inspect.Signature = inspect.Signature(
            [one.replace(annotation=_of_one(one.annotation)) for one in parameters],
            return_annotation=_of_one(signature.return_annotation),
        )
        self.one: bool = len(parameters) == 1
        #: One positional argument is the item itself: nothing to bind.
        self.simple: bool = self.one and parameters[0].kind in _POSITIONAL
        self._positional = sum(one.kind in _POSITIONAL for one in parameters)

    def item(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The item of a call: the value of the only parameter, or a tuple of all values.

        Raises TypeError where a plain call of the handler would.
        """
        if not kwargs and len(args) == len(self.parameters) == self._positional:
            return args[0] if self.one else args
        try:
            arguments = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}() {error}") from None
        arguments.apply_defaults()
        values = tuple(arguments.arguments[one.name] for one in self.parameters)
        return values[0] if self.one else values

    def lists(self, items: list[Any]) -> tuple[list[list[Any]], dict[str, list[Any]]]:
        """The handler's arguments for a batch of items: positional ones, and those by keyword."""
        if self.simple:
            return [items], {}
        columns = [items] if self.one else [list(column) for column in zip(*items, strict=True)]
        names = [one.name for one in self.parameters[self._positional :]]
        by_name = dict(zip(names, columns[self._positional :], strict=True))
        return columns[: self._positional], by_name


def _of_one(annotation: Any) -> Any:
    """What a caller sees of an annotation: of `list[A]`, A."""
    if typing.get_origin(annotation) is list:
        return typing.get_args(annotation)[0]
    if isinstance(annotation, str) and annotation.startswith("list[") and annotation[-1] == "]":
        return annotation[5:-1]
    return annotation
