"""What describes a container and its surroundings in the cloud: accepted in any form, without effect here."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator, Iterator
from typing import Any

__all__ = [
    "CloudBucketMount",
    "Cron",
    "Image",
    "Mount",
    "NetworkFileSystem",
    "Period",
    "Proxy",
    "Retries",
    "SchedulerPlacement",
    "Secret",
    "Volume",
    "enable_output",
    "gpu",
    "tell_ignored",
]

logger = logging.getLogger("carpool")


def tell_ignored(what: str, names: list[str]) -> None:
    """One log line of what is ignored."""
    if names:
        logger.info("%s runs in this process; ignored: %s", what, ", ".join(names))


class _Describing(type):
    """Its classes have every constructor: `Image.debian_slim()`, `Volume.from_name("x")`."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return cls


class Described(metaclass=_Describing):
    """A description: every method of it gives a description again, which can be called, awaited, entered, and read as
    an empty iterable."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self

    def __await__(self) -> Generator[Any, None, Any]:
        yield from ()
        return self

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None: ...

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    def __iter__(self) -> Iterator[Any]:
        return iter(())


class Image(Described):
    """The image of a container."""

    def imports(self) -> contextlib.AbstractContextManager[None]:
        """For imports that a container's image has; here they are made."""
        return contextlib.nullcontext()


class Volume(Described):
    """A volume."""


class Secret(Described):
    """A secret; set environment variables in its place."""


class Mount(Described):
    """Local files in a container."""


class NetworkFileSystem(Described):
    """A shared file system."""


class CloudBucketMount(Described):
    """A bucket in a container."""


class Proxy(Described):
    """A proxy."""


class Retries(Described):
    """How often a container tries again; here once is all."""


class Cron(Described):
    """When a function runs by itself; here it does not."""


class Period(Described):
    """How often a function runs by itself; here it does not."""


class SchedulerPlacement(Described):
    """Where a container runs."""


class gpu(Described):
    """Graphics processors by name: `gpu.A100(count=2)`."""


def enable_output(show_progress: bool = True) -> contextlib.AbstractContextManager[None]:
    """For `with`: what the platform would print is not printed here."""
    return contextlib.nullcontext()
