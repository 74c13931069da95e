"""The front door of the library `batched` (mixedbread.ai), version 0.1.5.

`import batched` becomes `from carpool.compat import batched`. What each name does here, and where it differs on
purpose, stands in the guide "Moving from batched".
"""

from . import aio, inference, types
from ._processor import BatchedMethod, BatchProcessor, dynamically

__all__ = ["BatchProcessor", "BatchedMethod", "aio", "dynamically", "inference", "types"]
