"""What a contender is to the workloads: a name, a package that may be missing, and a way to be opened."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Handler = Callable[[list[Any]], Sequence[Any]]
AwaitedHandler = Callable[[list[Any]], Awaitable[Sequence[Any]]]

Form = Literal["loop", "thread", "blocking"]
"""Awaited with the handler on the callers' loop; awaited with the handler on a thread; blocking calls."""


@dataclass(frozen=True)
class Asked:
    """What a workload wants batched, and how."""

    form: Form
    handler: Handler
    max_batch_size: int
    wait_ms: float
    loop: asyncio.AbstractEventLoop | None = None
    """The callers' loop; None where they block."""

    @property
    def on(self) -> asyncio.AbstractEventLoop:
        """The callers' loop, where there must be one."""
        assert self.loop is not None, "this form is awaited: it has a loop"
        return self.loop


@dataclass(frozen=True)
class Door:
    """A contender that serves: `call(item)` returns the answer, or something to be awaited for it."""

    call: Callable[[Any], Any]
    close: Callable[[], object]


class Contender:
    """One way of batching single calls."""

    name: str
    package: str | None = None
    """What pip calls it; None for what is in this repository."""
    module: str | None = None
    """What must be importable."""
    big = False
    """Too big for everyone's environment: its own dependency group."""
    floor = False
    """Written here, to be measured against."""
    hint = ""
    """How it gets installed."""

    def missing(self) -> str | None:
        """Why it cannot take part here, or None."""
        if self.module is None:
            return None
        try:
            found = importlib.util.find_spec(self.module)
        except ModuleNotFoundError:
            found = None
        return f"{self.package} is not installed{self.hint}" if found is None else None

    def refuses(self, form: Form, wait_ms: float) -> str | None:
        """Why it has no part in such a setting, or None. The reason stands in the tables."""
        raise NotImplementedError

    def open(self, asked: Asked) -> Door:
        """Ready to be called, in the process made for it. Awaited forms: called on the running loop."""
        raise NotImplementedError


class Peer(Contender):
    """Somebody else's library."""

    hint = ": pip install --group peers"


class AwaitedPeer(Peer):
    """One that lives on one event loop: no blocking calls."""

    def refuses(self, form: Form, wait_ms: float) -> str | None:
        return "callers on one event loop only" if form == "blocking" else None


def awaited_handler(handler: Handler) -> AwaitedHandler:
    """The handler as the `async def` that several peers insist on; it runs on the loop."""

    async def served(items: list[Any]) -> Sequence[Any]:
        return handler(items)

    return served


def off_the_loop(asked: Asked) -> tuple[AwaitedHandler, Callable[[], object]]:
    """The same run on a thread, one at a time, as a device is: what users of such a peer write. And its end."""
    from concurrent.futures import ThreadPoolExecutor

    loop, one_thread = asked.on, ThreadPoolExecutor(1, "handler")

    async def served(items: list[Any]) -> Sequence[Any]:
        return await loop.run_in_executor(one_thread, asked.handler, items)

    return served, lambda: one_thread.shutdown(wait=False)


def in_its_form(asked: Asked) -> tuple[AwaitedHandler, Callable[[], object]]:
    """An `async def` handler for either awaited form, and how what it made is ended."""
    if asked.form == "thread":
        return off_the_loop(asked)
    return awaited_handler(asked.handler), lambda: None
