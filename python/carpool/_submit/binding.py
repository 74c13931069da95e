"""A handler takes lists, a call takes items: which parameter gets what, found in the caller's thread."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from carpool._options import closest

__all__ = ["Binding"]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Binding:
    """How calls bind to the parameters of one handler.

    Raises:
        TypeError: the handler has no parameter that is a list, takes `*args` or `**kwargs`, tells no signature,
            or lacks a parameter of `shared`.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        *,
        bound: bool,
        shared: Sequence[str] = (),
    ) -> None:
        try:
            signature = inspect.signature(function)
        except ValueError as error:
            raise TypeError(
                f"{name}: a batched function needs a signature, and {function!r} tells none; "
                f"call it from a `def` of one list"
            ) from error
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
        names = [one.name for one in parameters]
        for one in shared:
            if one not in names:
                raise TypeError(f"{name}: shared names no parameter {one!r}: {closest(one, names)}")
        if set(names) <= set(shared):
            raise TypeError(
                f"{name}: shared={shared!r} names every parameter; one must be the list of items"
            )
        self.name = name
        self.parameters = parameters
        #: The places of the parameters that all requests of a batch share.
        self.shared: list[int] = [names.index(one) for one in shared]
        self.signature: inspect.Signature = inspect.Signature(
            [
                one if one.name in shared else one.replace(annotation=_of_one(one.annotation))
                for one in parameters
            ],
            return_annotation=_of_one(signature.return_annotation),
        )
        self.one: bool = len(parameters) == 1
        #: One positional argument is the item itself: nothing to bind.
        self.simple: bool = self.one and parameters[0].kind in _POSITIONAL
        self._positional = sum(one.kind in _POSITIONAL for one in parameters)
        self._by_name: list[str] = names[self._positional :]

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

    def of_one(self, argument: Any) -> Any:
        """The item of a call with one argument."""
        return self.item((argument,), {})

    def of_arguments(self, arguments: Any) -> Any:
        """The item of a call with these positional arguments: any iterable."""
        return self.item(tuple(arguments), {})

    def arguments(self, item: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of the call that an item was made of, defaults included."""
        values = (item,) if self.one else item
        by_name = dict(zip(self._by_name, values[self._positional :], strict=True))
        return values[: self._positional], by_name

    def shared_of(self, item: Any) -> Any:
        """The values of the shared parameters of a call.

        Raises:
            TypeError: one is not hashable.
        """
        values = tuple([item[at] for at in self.shared])
        try:
            hash(values)
        except TypeError as error:
            for at in self.shared:
                _refuse_unhashable(self.name, self.parameters[at].name, item[at], error)
            raise
        return values

    def lists(self, items: list[Any]) -> tuple[list[list[Any]], dict[str, list[Any]]]:
        """The handler's arguments for a batch of items: positional ones, and those by keyword.

        A list for each parameter; for a shared one its value, the same in all of them.
        """
        if self.simple:
            return [items], {}
        columns: list[Any] = (
            [items] if self.one else [list(column) for column in zip(*items, strict=True)]
        )
        for at in self.shared:
            columns[at] = columns[at][0]
        by_name = dict(zip(self._by_name, columns[self._positional :], strict=True))
        return columns[: self._positional], by_name


def _refuse_unhashable(name: str, parameter: str, value: Any, cause: TypeError) -> None:
    try:
        hash(value)
    except TypeError:
        shown = repr(value)[:100]
        raise TypeError(
            f"{name}: {parameter} is shared by the requests of a batch and must be hashable, "
            f"not {shown} ({type(value).__name__})"
        ) from cause


def _of_one(annotation: Any) -> Any:
    """What a caller sees of an annotation: of `list[A]`, A."""
    if typing.get_origin(annotation) is list:
        return typing.get_args(annotation)[0]
    if isinstance(annotation, str) and annotation.startswith("list[") and annotation[-1] == "]":
        return annotation[5:-1]
    return annotation
