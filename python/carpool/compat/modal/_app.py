"""`App`: functions and classes of a program, its entrypoints, its endpoints on the web, and their end."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from carpool.compat._front import is_coroutine_function

from ._checks import check_name, check_no_method, known_options, no_positional
from ._cloud import tell_ignored
from ._cls import Cls
from ._function import Function
from ._partial import Partial, partial_of
from .exception import InvalidError

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["App", "LocalEntrypoint"]


class App:
    """Functions and classes that run in this process.

    Args:
        name: its name.
        **described: images and the like; accepted and ignored.

    Raises:
        InvalidError: the name is no string.
        TypeError: an option is not known.
    """

    def __init__(self, name: str | None = None, **described: Any) -> None:
        check_name(name)
        tell_ignored(f"app {name or 'without a name'}", known_options("App", described))
        self.name = name
        self.registered_functions: dict[str, Function] = {}
        self.registered_classes: dict[str, Cls] = {}
        self.registered_entrypoints: dict[str, LocalEntrypoint] = {}

    def function(
        self, _function: None = None, /, *, name: str | None = None, **described: Any
    ) -> Callable[[Any], Function]:
        """Makes a `Function` of a function, with what decorators below it ask for.

        Raises:
            InvalidError: the parentheses are missing, it is a method, or the function cannot be batched.
            TypeError: it is a class, or an option is not known.
        """
        no_positional(_function, "app.function")
        ignored = known_options("app.function", described)

        def decorate(target: Any) -> Function:
            if inspect.isclass(target):
                raise TypeError(
                    "The `@app.function` decorator cannot be used on a class. Please use `@app.cls` instead."
                )
            partial = partial_of(target, "app.function")
            check_no_method(
                partial.function,
                "Swap with `@modal.method` or one of the Web Function decorators."
                if partial is target
                else "Please use `@app.cls` with `@modal.method` instead.",
            )
            made = Function(
                partial.function,
                batching=partial.batching,
                max_inputs=partial.max_inputs or 1,
                web=partial.web,
            )
            label = name or made._name
            tell_ignored(label, ignored)
            self.registered_functions[label] = made
            return made

        return decorate

    def cls(self, _class: None = None, /, **described: Any) -> Callable[[Any], Cls]:
        """Makes a `Cls` of a class.

        Raises:
            InvalidError: the parentheses are missing, or its methods do not go together.
            TypeError: it is no class, or an option is not known.
        """
        no_positional(_class, "app.cls")
        ignored = known_options("app.cls", described)

        def decorate(target: Any) -> Cls:
            if isinstance(target, Partial) or not inspect.isclass(target):
                raise TypeError("The @app.cls decorator must be used on a class.")
            made = Cls(target)
            tell_ignored(made.__name__, ignored)
            self.registered_classes[made.__name__] = made
            return made

        return decorate

    def local_entrypoint(
        self, _function: None = None, /, *, name: str | None = None
    ) -> Callable[[Any], LocalEntrypoint]:
        """Makes a function one that `python -m carpool.compat.modal run` runs.

        Raises:
            InvalidError: the parentheses are missing, or the name is taken or no string.
        """
        no_positional(_function, "app.local_entrypoint")
        check_name(name)

        def decorate(target: Callable[..., Any]) -> LocalEntrypoint:
            label = name or target.__qualname__
            if label in self.registered_entrypoints:
                raise InvalidError(
                    f"Duplicate local entrypoint name: {label}. Local entrypoint names must be unique."
                )
            made = self.registered_entrypoints[label] = LocalEntrypoint(target, self)
            return made

        return decorate

    def asgi(self) -> FastAPI:
        """A FastAPI app of its endpoints: a single one at `/`, several each at `/LABEL` with its own docs.

        Its end stops this app.

        Raises:
            InvalidError: there is no endpoint.
            ImportError: fastapi is not installed (`carpool[fastapi]`).
        """
        from ._web import asgi_of

        return asgi_of(self)

    def run(self, **described: Any) -> Run:
        """For `with` and `async with`: the app, which is stopped at the end."""
        return Run(self)

    def stop(self) -> None:
        """Answers what was accepted and runs what is marked by `exit`. A later call begins anew."""
        for function in self.registered_functions.values():
            function.stop()
        for cls in self.registered_classes.values():
            cls.stop()

    def __repr__(self) -> str:
        return f"<carpool.compat.modal.App {self.name!r}>"


class Run:
    """A run of an app."""

    def __init__(self, app: App) -> None:
        self._app = app

    def __enter__(self) -> App:
        return self._app

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._app.stop()

    async def __aenter__(self) -> App:
        return self._app

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self._app.stop)


class LocalEntrypoint:
    """A function to begin with. Called without an event loop, an `async def` one runs to its end."""

    def __init__(self, function: Callable[..., Any], app: App) -> None:
        self.raw_f = function
        self.app = app
        self.__name__, self.__doc__ = function.__name__, function.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        made = self.raw_f(*args, **kwargs)
        if not is_coroutine_function(self.raw_f):
            return made
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(made)
        return made
