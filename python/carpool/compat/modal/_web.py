"""Endpoints on the web: functions decorated with `fastapi_endpoint` as a FastAPI app."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from carpool.compat._front import is_coroutine_function

from .exception import InvalidError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from ._app import App
    from ._function import Function

__all__ = ["asgi_of"]


def asgi_of(app: App) -> FastAPI:
    """The FastAPI app of an app's endpoints.

    Raises:
        InvalidError: there is no endpoint.
        ImportError: fastapi is not installed.
    """
    try:
        from fastapi import FastAPI
    except ImportError as error:
        raise ImportError(
            "endpoints need FastAPI: install the extra, pip install 'carpool[fastapi]'"
        ) from error
    endpoints = {function.web["label"] or name: function for name, function in _endpoints(app)}
    if not endpoints:
        raise InvalidError(f"{app!r} has no function decorated with @modal.fastapi_endpoint().")

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(app.stop)

    if len(endpoints) == 1:
        return _app_of(next(iter(endpoints.values())), lifespan)
    made = FastAPI(openapi_url=None, lifespan=lifespan)
    for label, function in endpoints.items():
        made.mount(f"/{label}", _app_of(function, None))
    return made


def _endpoints(app: App) -> list[tuple[str, Any]]:
    found = list(app.registered_functions.items())
    for cls in app.registered_classes.values():
        if any(one.web is not None for one in cls.partials.values()):
            found.extend(cls()._container.functions.items())
    return [(name, function) for name, function in found if function.web is not None]


def _app_of(function: Function, lifespan: Any) -> FastAPI:
    from fastapi import FastAPI
    from fastapi.middleware.cors import CORSMiddleware

    web: dict[str, Any] = function.web or {}
    made = FastAPI(openapi_url="/openapi.json" if web["docs"] else None, lifespan=lifespan)
    made.add_middleware(
        CORSMiddleware,
        allow_origins=["*"],
        allow_credentials=True,
        allow_methods=["*"],
        allow_headers=["*"],
    )
    made.add_api_route("/", _route_of(function), methods=[web["method"]])
    return made


def _route_of(function: Function) -> Callable[..., Any]:
    """The user's function as FastAPI takes it: of a method, without its instance, which is made at the first request."""
    raw = function._function
    if function._container is None:
        return raw
    signature = inspect.signature(raw, eval_str=True)
    route: Any
    if is_coroutine_function(raw):

        async def aroute(**values: Any) -> Any:
            await asyncio.to_thread(function._container.enter)  # type: ignore[union-attr]
            return await function.local(**values)

        route = aroute
    else:

        def plain(**values: Any) -> Any:
            return function.local(**values)

        route = plain
    route.__name__ = function._name
    route.__doc__ = raw.__doc__
    parameters = list(signature.parameters.values())[1:]
    route.__signature__ = signature.replace(parameters=parameters)
    return route  # type: ignore[no-any-return]
