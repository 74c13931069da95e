"""The front door of Ray Serve's batching, version 2.60.

`@serve.batch` becomes `@batch` from `carpool.compat.ray_serve`, inside a Ray Serve deployment or without Ray
installed. What it does here, and where it differs on purpose, stands in the guide "Moving from Ray Serve".
"""

from ._batch import batch
from ._errors import RayServeException

__all__ = ["RayServeException", "batch"]
