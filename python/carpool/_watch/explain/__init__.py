"""From figures to sentences: why batches are as they are, and which option would change it.

A pure function of a `Stats` and the options it came about under. Each rule looks at a few figures and says one
sentence or nothing; the rules stand in the order in which a reader wants to hear them.
"""

from __future__ import annotations

from collections.abc import Callable

from carpool._options import Options
from carpool._watch.stats import Stats

from . import batches, endings, times
from .facts import Facts

__all__ = ["explain"]

Rule = Callable[[Facts], "str | None"]

BEFORE: tuple[Rule, ...] = (
    batches.nothing_yet,
    times.stuck,
    *(endings.rejected, endings.shed, endings.expired, endings.cancelled),
)
RULES: tuple[Rule, ...] = (
    *(batches.sizes, batches.few_callers, batches.slow_arrivals, batches.nobody_waited),
    *(batches.keys, batches.full, batches.cost, batches.gather, batches.flush),
    *(times.times, times.target, times.waits_for_a_slot, times.pays_for_waiting),
    *(times.stuck, times.slow),
    *(endings.rejected, endings.shed, endings.expired, endings.failed, endings.cancelled),
    *(endings.padding, endings.graphs),
)


def explain(stats: Stats, options: Options, executor: str | None = None) -> str:
    """Why the batches of these figures are as they are, and which option would change it: sentences, a line each."""
    facts = Facts(stats, options, executor)
    if not (stats.submitted or stats.batches or stats.pending):
        return "There was no request yet."
    rules = RULES if stats.batches else BEFORE
    said = [sentence for rule in rules if (sentence := rule(facts)) is not None]
    return "\n".join(said)
