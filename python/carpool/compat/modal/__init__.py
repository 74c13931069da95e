"""The front door of Modal: its decorators and objects, in this process.

`import modal` becomes `from carpool.compat import modal`. What each name does here, and where it differs on purpose,
stands in the guide "Moving from Modal".
"""

from . import exception
from ._app import App, LocalEntrypoint
from ._call import FunctionCall
from ._cloud import (
    CloudBucketMount,
    Cron,
    Image,
    Mount,
    NetworkFileSystem,
    Period,
    Proxy,
    Retries,
    SchedulerPlacement,
    Secret,
    Volume,
    enable_output,
    gpu,
)
from ._cls import Cls, Obj, parameter
from ._function import Function
from ._partial import batched, concurrent, enter, exit, fastapi_endpoint, method
from .exception import Error, InvalidError

__all__ = [
    "App",
    "CloudBucketMount",
    "Cls",
    "Cron",
    "Error",
    "Function",
    "FunctionCall",
    "Image",
    "InvalidError",
    "LocalEntrypoint",
    "Mount",
    "NetworkFileSystem",
    "Obj",
    "Period",
    "Proxy",
    "Retries",
    "SchedulerPlacement",
    "Secret",
    "Volume",
    "batched",
    "concurrent",
    "enable_output",
    "enter",
    "exception",
    "exit",
    "fastapi_endpoint",
    "gpu",
    "is_local",
    "method",
    "parameter",
]


def is_local() -> bool:
    """True: everything runs in this process."""
    return True
