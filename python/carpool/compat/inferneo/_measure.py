"""Which batch size a server likes best: measured, and drawn."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._checks import at_least_one, known
from ._server import PARAMS, outcome_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["benchmark_batch_sizes", "plot_batch_performance"]

logger = logging.getLogger("carpool")


def benchmark_batch_sizes(
    client: Any,
    model_id: str,
    test_prompts: Iterable[str],
    batch_sizes: Iterable[int],
    *,
    errors: str = "raise",
    clock: Callable[[], float] = time.perf_counter,
    **params: Any,
) -> dict[int, dict[str, float]]:
    """How long the prompts take with each batch size, one batch after the other.

    Args:
        client: in the style of OpenAI's, synchronous or asynchronous.
        model_id: the model.
        test_prompts: what is sent, each time all of them.
        batch_sizes: the sizes to try.
        errors: "raise" raises the first; "skip" leaves the batch out of the figures, with a line in the log.
        clock: seconds.
        **params: of each request; else `max_tokens=100, temperature=0.7`.

    Returns:
        By batch size `avg_time_per_request` (seconds), `requests_per_second`, `total_time` (seconds) and
        `total_requests`. A size of which every batch failed is left out.

    Raises:
        TypeError, ValueError: a batch size is no int from 1, or `errors` is neither.
        Exception: what the client raised, with errors="raise".
    """
    known("errors", errors, ("raise", "skip"))
    sizes = [at_least_one("a batch size", size) for size in batch_sizes]
    test_prompts = list(test_prompts)
    results: dict[int, dict[str, float]] = {}
    for size in sizes:
        total_time, total_requests = 0.0, 0
        for start in range(0, len(test_prompts), size):
            batch = test_prompts[start : start + size]
            began = clock()
            try:
                asked = {**PARAMS, **params}
                outcome_of(client.completions.create(model=model_id, prompt=batch, **asked))
            except Exception as error:
                if errors == "raise":
                    raise
                logger.warning("a batch of size %d failed: %s", size, error)
                continue
            total_time += clock() - began
            total_requests += len(batch)
        if total_requests:
            results[size] = {
                "avg_time_per_request": total_time / total_requests,
                "requests_per_second": total_requests / total_time if total_time else float("inf"),
                "total_time": total_time,
                "total_requests": total_requests,
            }
    return results


def plot_batch_performance(
    results: Mapping[int, Mapping[str, float]], path: str | Path | None = None
) -> Figure:
    """Draws what `benchmark_batch_sizes` found: throughput and latency over the batch size.

    Args:
        results: by batch size, with `requests_per_second` and `avg_time_per_request`.
        path: where the picture is saved; without, it is shown.

    Returns:
        The figure.

    Raises:
        ImportError: matplotlib is not installed (`carpool[plot]`).
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "plots need matplotlib: install the extra, pip install 'carpool[plot]'"
        ) from error
    sizes = sorted(results)
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5))
    for axes, name, label, style in (
        (left, "requests_per_second", "Requests per Second", "bo-"),
        (right, "avg_time_per_request", "Average Time per Request (seconds)", "ro-"),
    ):
        axes.plot(sizes, [results[size][name] for size in sizes], style)
        axes.set_xlabel("Batch Size")
        axes.set_ylabel(label)
        axes.grid(True)
    left.set_title("Throughput vs Batch Size")
    right.set_title("Latency vs Batch Size")
    figure.tight_layout()
    if path is None:
        plt.show()
    else:
        figure.savefig(path)
    made: Figure = figure
    return made
