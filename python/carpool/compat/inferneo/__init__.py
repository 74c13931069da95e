"""The front door of Inferneo's batching guide: its batchers and helpers, over any client in the style of OpenAI's.

What the guide has its readers copy is imported from here. What each name does, and where it differs on purpose, stands
in the guide "Moving from Inferneo".
"""

from ._adaptive import AdaptiveBatcher
from ._dynamic import DynamicBatcher
from ._lists import chunked_batch_process, robust_batch_process, stream_batch_process
from ._measure import benchmark_batch_sizes, plot_batch_performance
from ._server import InferneoClient, close_client

__all__ = [
    "AdaptiveBatcher",
    "DynamicBatcher",
    "InferneoClient",
    "benchmark_batch_sizes",
    "chunked_batch_process",
    "close_client",
    "plot_batch_performance",
    "robust_batch_process",
    "stream_batch_process",
]
