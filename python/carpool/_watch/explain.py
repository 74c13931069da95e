"""From figures to sentences: why batches are as they are, and which option would change it.

A pure function of a `Stats` and the options it came about under. Each rule below looks at a few figures and says
one sentence or nothing; the rules stand in the order in which a reader wants to hear them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from carpool._options import Options

from .stats import Histogram, Stats

__all__ = ["explain"]

#: From which share on a reason is worth a word.
WORTH = 0.15
#: From which share of the largest batch on batches count as well filled.
FILLED = 0.75
#: From which share of their time on slots count as busy.
BUSY = 0.8
#: From which share on refused, expired, failed or forsaken requests and padding are worth a word.
NOTED = 0.01
MUCH_PADDING = 0.2
#: How many times the usual run the oldest may have waited before that is strange, and how long at least, in ms.
STUCK = 20
STUCK_MS = 1000.0

WHY = {
    "full": "they were full",
    "wait": "`wait_ms` was over",
    "cost": "the next request would have been more than `max_batch_cost`",
    "idle": "a slot was free and nothing held them (`wait_ms=0`)",
    "gather": "the callers that were expected back had come, or their time was over (`gather`)",
    "flush": "`flush()` sent them",
    "close": "the batcher was being closed",
    "target": "`target_ms` allowed to hold them no longer, or nobody else was expected",
}


#: Reasons of batches that had room left for more.
NOT_FULL = ("wait", "idle", "gather", "target")


@dataclass(frozen=True)
class Facts:
    """What the rules look at."""

    stats: Stats
    options: Options
    #: Who runs the handler; None for a loop of one's own.
    executor: str | None

    def share_of(self, reason: str) -> float:
        """What share of the batches left for a reason."""
        return self.stats.reasons.get(reason, 0) / max(1, self.stats.batches)

    @property
    def lead(self) -> str:
        """Why most of them left."""
        return max(WHY, key=self.share_of)

    @property
    def most(self) -> int:
        """The largest batch that there may be."""
        return self.options.max_batch_size

    @property
    def fill(self) -> float:
        """How full batches are, from 0 to 1."""
        return self.stats.batch_sizes.mean / self.most

    @property
    def is_small(self) -> bool:
        """Batches could hold many more."""
        return self.fill < FILLED and self.stats.batch_sizes.mean + 1 < self.most

    @property
    def few_callers(self) -> bool:
        """There were never enough requests for a full batch."""
        return self.stats.peak < self.most

    @property
    def is_busy(self) -> bool:
        """The slots hardly rest."""
        return self.stats.slot_use is not None and self.stats.slot_use >= BUSY

    def of_all(self, count: int) -> float:
        """A number of requests as a share of all."""
        return count / max(1, self.stats.submitted)


Rule = Callable[[Facts], "str | None"]


def explain(stats: Stats, options: Options, executor: str | None = None) -> str:
    """Why the batches of these figures are as they are, and which option would change it: sentences, a line each."""
    facts = Facts(stats, options, executor)
    if not stats.submitted:
        return "There was no request yet."
    rules = RULES if stats.batches else BEFORE
    said = [sentence for rule in rules if (sentence := rule(facts)) is not None]
    return "\n".join(said)


# ---------------------------------------------------------------------------------- before a batch


def _nothing_yet(f: Facts) -> str:
    requests = _count(f.stats.submitted, "request")
    if f.stats.pending and f.executor is None:
        return (
            f"{requests}, and no batch yet: {f.stats.pending} pending. "
            f"Does a loop take batches (`for batch in batcher`, `next_batch()`)?"
        )
    if f.stats.pending and f.options.wait_ms:
        return (
            f"{requests}, and no batch yet: {f.stats.pending} pending, held for company for at most "
            f"`wait_ms={_number(f.options.wait_ms)}`."
        )
    return f"{requests}, and no batch yet."


# -------------------------------------------------------------------------------------- the batches


def _sizes(f: Facts) -> str:
    return (
        f"{_count(f.stats.batches, 'batch', 'batches')} of "
        f"{_number(f.stats.batch_sizes.mean)} of {f.most} requests on average; {_reasons(f)}."
    )


def _reasons(f: Facts) -> str:
    by_share = sorted(WHY, key=f.share_of, reverse=True)
    told = [one for one in by_share if f.share_of(one) >= WORTH] or by_share[:1]
    first, *rest = told
    text = f"{_percent(f.share_of(first))} left because {_why(f, first)}"
    for one in rest:
        text += f", {_percent(f.share_of(one))} because {_why(f, one)}"
    return text


def _why(f: Facts, reason: str) -> str:
    if reason == "idle" and f.options.target_ms is not None:
        return "a slot was free and nobody else was expected (`target_ms`)"
    return WHY[reason]


def _few_callers(f: Facts) -> str | None:
    if not (f.is_small and f.few_callers and f.stats.peak and f.lead in NOT_FULL):
        return None
    peak = f.stats.peak
    if peak == 1:
        return (
            "There was never more than 1 request inside: one caller that waits for each answer gets no company. "
            "Call from several threads or tasks, or use `submit` or `map`."
        )
    text = (
        f"Never more than {peak} requests were inside at once: is a thread pool of {peak} calling? "
        f"More callers, or `submit` and `map`, would fill batches"
    )
    if f.lead == "wait":
        text += (
            f"; with `max_batch_size={peak}` they would leave as soon as all {peak} are there, "
            f"without waiting"
        )
    return text + "."


def _slow_arrivals(f: Facts) -> str | None:
    if f.lead != "wait" or not f.is_small or f.few_callers:
        return None
    return (
        f"Requests come in too slowly to fill a batch in {_number(f.options.wait_ms)} ms: a larger `wait_ms` makes "
        f"fuller batches, a smaller one earlier answers."
    )


def _nobody_waited(f: Facts) -> str | None:
    if f.lead != "idle" or not f.is_small or f.few_callers or f.options.target_ms is not None:
        return None
    if f.is_busy:
        return (
            f"The slots were busy {_percent(f.stats.slot_use or 0)} of the time, with small batches: a `wait_ms` of up "
            f"to {_ms(f.stats.run_ms.p50)} ms, what one batch takes, would fill them."
        )
    return (
        "A slot was mostly free when a request came, so that little would be gained by waiting; where each call of "
        "the handler is dear all the same, a `wait_ms` saves some."
    )


def _keys(f: Facts) -> str | None:
    kinds = [name for name in ("key", "shared") if getattr(f.options, name)]
    if not kinds or not f.is_small or f.lead not in NOT_FULL:
        return None
    return (
        f"Requests share a batch only where their `{kinds[0]}` is equal: the fewer different ones, the fuller "
        f"the batches."
    )


def _full(f: Facts) -> str | None:
    if f.lead != "full":
        return None
    wait, run = f.stats.wait_ms.p50, f.stats.run_ms.p50
    if wait > max(2 * run, f.options.wait_ms):
        slots = "" if f.executor in (None, "loop") else " or `max_concurrent_batches`"
        return (
            f"Requests wait {_ms(wait)} ms for a batch that takes {_ms(run)} ms: they come faster than the handler "
            f"takes them. A larger `max_batch_size`{slots} helps if the handler bears it."
        )
    if f.is_small:
        return None
    return (
        "They are as full as they may be; a larger `max_batch_size` pays if the handler bears it."
    )


def _cost(f: Facts) -> str | None:
    if f.share_of("cost") < 0.5:
        return None
    fill = "" if f.options.look_ahead else ", or fill what is left with smaller ones (`look_ahead`)"
    return (
        f"`max_batch_cost={f.options.max_batch_cost}` is what limits them, not `max_batch_size`: "
        f"raise it if the handler bears more{fill}."
    )


def _gather(f: Facts) -> str | None:
    if f.lead != "gather" or f.few_callers:
        return None
    return (
        "Callers that run the handler wait for those who were there last time; `gather=False` starts at once, with "
        "smaller batches."
    )


def _flush(f: Facts) -> str | None:
    if f.lead != "flush" or not f.is_small:
        return None
    return "They would be fuller if `flush()` were called less often."


# --------------------------------------------------------------------------------------- their time


def _times(f: Facts) -> str | None:
    if not f.stats.run_ms.count:
        return None
    slots = ""
    if f.stats.slot_use is not None:
        which = "the slot was" if f.stats.slots == 1 else f"the {f.stats.slots} slots were"
        slots = f"; {which} busy {_percent(f.stats.slot_use)} of the time"
    return (
        f"A request waited {_spread(f.stats.wait_ms)} before its batch left, a batch took "
        f"{_spread(f.stats.run_ms)}{slots}."
    )


def _target(f: Facts) -> str | None:
    target, wait, run = f.options.target_ms, f.stats.wait_ms.p99, f.stats.run_ms.p99
    if target is None or not f.stats.run_ms.count:
        return None
    text = f"`target_ms={_number(target)}`: at the 99th percentile waiting and running add up to {_ms(wait + run)} ms"
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


def _waits_for_a_slot(f: Facts) -> str | None:
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


def _pays_for_waiting(f: Facts) -> str | None:
    wait_ms, run = f.options.wait_ms, f.stats.run_ms.p50
    if f.lead != "wait" or wait_ms <= 10 * run or not f.stats.run_ms.count:
        return None
    return (
        f"`wait_ms={_number(wait_ms)}` is most of the time that a call takes: the handler itself needs "
        f"{_ms(run)} ms."
    )


def _stuck(f: Facts) -> str | None:
    oldest, usual = f.stats.oldest_ms, f.stats.run_ms.p99 + f.options.wait_ms
    if oldest < max(STUCK_MS, STUCK * usual):
        return None
    return (
        f"The oldest pending request has waited {_ms(oldest)} ms by now, with {f.stats.in_flight} in flight: "
        f"does the handler hang? `timeout_ms` frees those who wait, `slow_ms` says so in the log."
    )


def _slow(f: Facts) -> str | None:
    if not f.stats.slow or f.options.slow_ms is None:
        return None
    return f"{_count(f.stats.slow, 'batch', 'batches')} took longer than `slow_ms={_number(f.options.slow_ms)}`."


# ------------------------------------------------------------------------------------ what went wrong


def _rejected(f: Facts) -> str | None:
    refused = f.stats.rejected
    if f.of_all(refused) < NOTED:
        return None
    advice = (
        "; `overflow='wait'` makes callers wait for room instead"
        if f.options.overflow == "raise"
        else ""
    )
    return (
        f"{_percent(f.of_all(refused))} of the calls were refused (the queue full at "
        f"`max_queue={f.options.max_queue}`, a closed batcher, or more than a whole `max_batch_cost`){advice}."
    )


def _shed(f: Facts) -> str | None:
    if f.of_all(f.stats.shed) < NOTED:
        return None
    return (
        f"{_percent(f.of_all(f.stats.shed))} gave way at a full queue (`overflow='shed'`): more comes in than the "
        f"handler takes."
    )


def _expired(f: Facts) -> str | None:
    if f.of_all(f.stats.expired) < NOTED:
        return None
    cause = (
        "they waited for a slot"
        if f.is_busy
        else "a time limit is hardly longer than the wait, or the slots were held for long"
    )
    return f"{_percent(f.of_all(f.stats.expired))} ran out of time (`timeout_ms`) before they were in a batch: {cause}."


def _failed(f: Facts) -> str | None:
    failed = f.stats.failed - f.stats.expired
    if f.of_all(failed) < NOTED:
        return None
    text = f"{_percent(f.of_all(failed))} failed."
    if getattr(f.options, "on_error", None) == "raise" and f.stats.batch_sizes.mean > 1:
        text += (
            " An exception of the handler fails all of its batch; with `on_error='isolate'` it fails only those "
            "that cause it."
        )
    return text


def _cancelled(f: Facts) -> str | None:
    if f.of_all(f.stats.cancelled) < 0.1:
        return None
    return (
        f"{_percent(f.of_all(f.stats.cancelled))} were given up by their callers; a handler can skip those that are "
        f"in its batch (`current_batch().requests`)."
    )


def _padding(f: Facts) -> str | None:
    padding = f.stats.padding
    if padding is None or padding < MUCH_PADDING:
        return None
    if f.options.batch_sizes:
        return (
            f"{_percent(padding)} of what the handler was given was padding: sizes that lie closer together "
            f"(`batch_sizes`) waste less."
        )
    if f.options.length is not None:
        return (
            f"{_percent(padding)} of what the handler was given was padding, although those of similar `length` share "
            f"batches: a larger `length_window`, or more requests at once, gives more to choose from."
        )
    return (
        f"{_percent(padding)} of what the handler was given was padding: with `length`, requests of similar length "
        f"share batches."
    )


def _graphs(f: Facts) -> str | None:
    eager = f.stats.eager
    if not eager or eager / (eager + f.stats.replayed) < NOTED:
        return None
    return (
        f"{_percent(eager / (eager + f.stats.replayed))} of the batches ran without a CUDA graph (`graphs`): the handler "
        f"waits for the device, or batches come in too many forms; `batch_sizes` and `Pad(buckets=...)` make few."
    )


BEFORE: tuple[Rule, ...] = (_nothing_yet, _stuck, _rejected, _shed, _expired, _cancelled)
RULES: tuple[Rule, ...] = (
    *(_sizes, _few_callers, _slow_arrivals, _nobody_waited, _keys, _full, _cost, _gather, _flush),
    *(_times, _target, _waits_for_a_slot, _pays_for_waiting, _stuck, _slow),
    *(_rejected, _shed, _expired, _failed, _cancelled, _padding, _graphs),
)


# ------------------------------------------------------------------------------------------- words


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _percent(share: float) -> str:
    percent = share * 100
    if 0 < percent < 1:
        return "less than 1 %"
    # Not all of it, where a little is missing.
    return f"{min(percent, 99) if share < 1 else 100:.0f} %"


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


_ms = _number


def _spread(times: Histogram) -> str:
    return f"{_ms(times.p50)} ms at the median and {_ms(times.p99)} ms at the 99th percentile"
