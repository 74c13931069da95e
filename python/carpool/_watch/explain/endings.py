"""Rules on requests that did not end well, and on what handlers were given for nothing."""

from __future__ import annotations

from .facts import MUCH_PADDING, NOTED, Facts
from .words import percent


def rejected(f: Facts) -> str | None:
    refused = f.stats.rejected
    if f.of_all(refused) < NOTED:
        return None
    advice = (
        "; `overflow='wait'` makes callers wait for room instead"
        if f.options.overflow == "raise"
        else ""
    )
    return (
        f"{percent(f.of_all(refused))} of the calls were refused (the queue full at "
        f"`max_queue={f.options.max_queue}`, a closed batcher, or more than a whole `max_batch_cost`){advice}."
    )


def shed(f: Facts) -> str | None:
    if f.of_all(f.stats.shed) < NOTED:
        return None
    return (
        f"{percent(f.of_all(f.stats.shed))} gave way at a full queue (`overflow='shed'`): more comes in than the "
        f"handler takes."
    )


def expired(f: Facts) -> str | None:
    if f.of_all(f.stats.expired) < NOTED:
        return None
    cause = (
        "they waited for a slot"
        if f.is_busy
        else "a time limit is hardly longer than the wait, or the slots were held for long"
    )
    return f"{percent(f.of_all(f.stats.expired))} ran out of time (`timeout_ms`) before they were in a batch: {cause}."


def failed(f: Facts) -> str | None:
    failed = f.stats.failed - f.stats.expired
    if f.of_all(failed) < NOTED:
        return None
    text = f"{percent(f.of_all(failed))} failed."
    if getattr(f.options, "on_error", None) == "raise" and f.stats.batch_sizes.mean > 1:
        text += (
            " An exception of the handler fails all of its batch; with `on_error='isolate'` it fails only those "
            "that cause it."
        )
    return text


def cancelled(f: Facts) -> str | None:
    if f.of_all(f.stats.cancelled) < 0.1:
        return None
    return (
        f"{percent(f.of_all(f.stats.cancelled))} were given up by their callers; a handler can skip those that are "
        f"in its batch (`current_batch().requests`)."
    )


def padding(f: Facts) -> str | None:
    padding = f.stats.padding
    if padding is None or padding < MUCH_PADDING:
        return None
    if f.options.batch_sizes:
        return (
            f"{percent(padding)} of what the handler was given was padding: sizes that lie closer together "
            f"(`batch_sizes`) waste less."
        )
    if f.options.length is not None:
        return (
            f"{percent(padding)} of what the handler was given was padding, although those of similar `length` share "
            f"batches: a larger `length_window`, or more requests at once, gives more to choose from."
        )
    return (
        f"{percent(padding)} of what the handler was given was padding: with `length`, requests of similar length "
        f"share batches."
    )


def graphs(f: Facts) -> str | None:
    eager = f.stats.eager
    if not eager or eager / (eager + f.stats.replayed) < NOTED:
        return None
    return (
        f"{percent(eager / (eager + f.stats.replayed))} of the batches ran without a CUDA graph (`graphs`): the handler "
        f"waits for the device, or batches come in too many forms; `batch_sizes` and `Pad(buckets=...)` make few."
    )
