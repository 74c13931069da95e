"""The front door of Ray Serve's batching, version 2.60.

`from ray import serve` becomes `from carpool.compat import ray_serve as serve`, inside a Ray Serve deployment or without
Ray installed: `serve.batch` is carpool's, everything else is Ray's own. What it does here, and where it differs on
purpose, stands in the guide "Moving from Ray Serve".
"""

import sys
from typing import Any

from ._batch import batch
from ._deployment import taking_batched_functions
from ._errors import RayServeException

__all__ = ["RayServeException", "batch"]


def __getattr__(name: str) -> Any:
    """What is not here is Ray's, imported when it is first asked for."""
    if name.startswith("__") or (name.startswith("_") and "ray.serve" not in sys.modules):
        # Tools that look a module over ask for names of their own: not a reason to import Ray.
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from ray import serve
    except ImportError as error:
        raise AttributeError(
            f"ray_serve.{name} is Ray's own, and Ray cannot be imported: {error}"
        ) from error
    found = getattr(serve, name)
    return taking_batched_functions(found) if name == "deployment" else found
