"""Rules on time: how long requests wait, how long batches take, and what that has to do with the options."""

from __future__ import annotations

from .facts import STUCK, STUCK_MS, Facts
from .words import count, ms, number, percent, spread


def times(f: Facts) -> str | None:
    if not f.stats.run_ms.count:
        return None
    slots = ""
    if f.stats.slot_use is not None:
        which = "the slot was" if f.stats.slots == 1 else f"the {f.stats.slots} slots were"
        slots = f"; {which} busy {percent(f.stats.slot_use)} of the time"
    return (
        f"A request waited {spread(f.stats.wait_ms)} before its batch left, a batch took "
        f"{spread(f.stats.run_ms)}{slots}."
    )


def target(f: Facts) -> str | None:
    target, wait, run = f.options.target_ms, f.stats.wait_ms.p99, f.stats.run_ms.p99
    if target is None or not f.stats.run_ms.count:
        return None
    text = f"`target_ms={number(target)}`: at the 99th percentile waiting and running add up to {ms(wait + run)} ms"
    if wait + run <= target:
        return f"{text}, within the target."
    if run > target:
        return (
            f"{text}. The handler alone takes longer than the target: it needs a smaller `max_batch_size`, or more "
            f"time."
        )
    if f.is_busy:
        return f"{text}, with the slots busy: more comes in than the handler takes in time."
    return f"{text}, which is beyond it."


def waits_for_a_slot(f: Facts) -> str | None:
    wait, run = f.stats.wait_ms.p99, f.stats.run_ms.p50
    waits_long = wait > f.options.wait_ms + 2 * run
    if f.lead == "full" or not (f.is_busy and waits_long):
        return None
    way = (
        "a faster handler"
        if f.executor in (None, "loop")
        else "`max_concurrent_batches`, or a faster handler,"
    )
    return f"They wait for a free slot, not for company: {way} shortens that, `wait_ms` does not."


def pays_for_waiting(f: Facts) -> str | None:
    wait_ms, run = f.options.wait_ms, f.stats.run_ms.p50
    if f.lead != "wait" or wait_ms <= 10 * run or not f.stats.run_ms.count:
        return None
    return (
        f"`wait_ms={number(wait_ms)}` is most of the time that a call takes: the handler itself needs "
        f"{ms(run)} ms."
    )


def stuck(f: Facts) -> str | None:
    oldest, usual = f.stats.oldest_ms, f.stats.run_ms.p99 + f.options.wait_ms
    if oldest < max(STUCK_MS, STUCK * usual):
        return None
    return (
        f"The oldest pending request has waited {ms(oldest)} ms by now, with {f.stats.in_flight} in flight: "
        f"does the handler hang? `timeout_ms` frees those who wait, `slow_ms` says so in the log."
    )


def slow(f: Facts) -> str | None:
    if not f.stats.slow or f.options.slow_ms is None:
        return None
    return f"{count(f.stats.slow, 'batch', 'batches')} took longer than `slow_ms={number(f.options.slow_ms)}`."
