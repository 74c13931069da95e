"""Rules on the batches: how large they are, and why they left as they did."""

from __future__ import annotations

from .facts import NOT_FULL, WHY, WORTH, Facts
from .words import count, ms, number, percent


def nothing_yet(f: Facts) -> str:
    requests = count(f.stats.submitted, "request")
    if f.stats.pending and f.executor is None:
        return (
            f"{requests}, and no batch yet: {f.stats.pending} pending. "
            f"Does a loop take batches (`for batch in batcher`, `next_batch()`)?"
        )
    if f.stats.pending and f.options.wait_ms:
        return (
            f"{requests}, and no batch yet: {f.stats.pending} pending, held for company for at most "
            f"`wait_ms={number(f.options.wait_ms)}`."
        )
    return f"{requests}, and no batch yet."


def sizes(f: Facts) -> str:
    return (
        f"{count(f.stats.batches, 'batch', 'batches')} of "
        f"{number(f.stats.batch_sizes.mean)} of {f.most} requests on average; {_reasons(f)}."
    )


def _reasons(f: Facts) -> str:
    by_share = sorted(WHY, key=f.share_of, reverse=True)
    told = [one for one in by_share if f.share_of(one) >= WORTH] or by_share[:1]
    first, *rest = told
    text = f"{percent(f.share_of(first))} left because {_why(f, first)}"
    for one in rest:
        text += f", {percent(f.share_of(one))} because {_why(f, one)}"
    return text


def _why(f: Facts, reason: str) -> str:
    if reason == "idle" and f.options.target_ms is not None:
        return "a slot was free and nobody else was expected (`target_ms`)"
    return WHY[reason]


def few_callers(f: Facts) -> str | None:
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


def slow_arrivals(f: Facts) -> str | None:
    if f.lead != "wait" or not f.is_small or f.few_callers:
        return None
    return (
        f"Requests come in too slowly to fill a batch in {number(f.options.wait_ms)} ms: a larger `wait_ms` makes "
        f"fuller batches, a smaller one earlier answers."
    )


def nobody_waited(f: Facts) -> str | None:
    if f.lead != "idle" or not f.is_small or f.few_callers or f.options.target_ms is not None:
        return None
    if f.is_busy:
        return (
            f"The slots were busy {percent(f.stats.slot_use or 0)} of the time, with small batches: a `wait_ms` of up "
            f"to {ms(f.stats.run_ms.p50)} ms, what one batch takes, would fill them."
        )
    return (
        "A slot was mostly free when a request came, so that little would be gained by waiting; where each call of "
        "the handler is dear all the same, a `wait_ms` saves some."
    )


def keys(f: Facts) -> str | None:
    kinds = [name for name in ("key", "shared") if getattr(f.options, name)]
    if not kinds or not f.is_small or f.lead not in NOT_FULL:
        return None
    return (
        f"Requests share a batch only where their `{kinds[0]}` is equal: the fewer different ones, the fuller "
        f"the batches."
    )


def full(f: Facts) -> str | None:
    if f.lead != "full":
        return None
    wait, run = f.stats.wait_ms.p50, f.stats.run_ms.p50
    if wait > max(2 * run, f.options.wait_ms):
        slots = "" if f.executor in (None, "loop") else " or `max_concurrent_batches`"
        return (
            f"Requests wait {ms(wait)} ms for a batch that takes {ms(run)} ms: they come faster than the handler "
            f"takes them. A larger `max_batch_size`{slots} helps if the handler bears it."
        )
    if f.is_small:
        return None
    return (
        "They are as full as they may be; a larger `max_batch_size` pays if the handler bears it."
    )


def cost(f: Facts) -> str | None:
    if f.share_of("cost") < 0.5:
        return None
    fill = "" if f.options.look_ahead else ", or fill what is left with smaller ones (`look_ahead`)"
    return (
        f"`max_batch_cost={f.options.max_batch_cost}` is what limits them, not `max_batch_size`: "
        f"raise it if the handler bears more{fill}."
    )


def gather(f: Facts) -> str | None:
    if f.lead != "gather" or f.few_callers:
        return None
    return (
        "Callers that run the handler wait for those who were there last time; `gather=False` starts at once, with "
        "smaller batches."
    )


def flush(f: Facts) -> str | None:
    if f.lead != "flush" or not f.is_small:
        return None
    return "They would be fuller if `flush()` were called less often."
