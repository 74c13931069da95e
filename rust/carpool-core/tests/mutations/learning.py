"""Mutations of what is learned and noted (run times, memory, who lets others pass, what watchers hear), each with the
tests that must catch it."""

from __future__ import annotations

from mutation import AGAIN, OBJECTIVE, TAKING, UNITS, WATCH, WINDOWS, Mutation, mutation

CURVE = "scheduler/curve.rs"
CAP = "scheduler/cap.rs"
CHANGE = "scheduler/change.rs"
PASSING = "scheduler/passing.rs"
WATCHED = "watch.rs"


def unit(name: str, *parts: str) -> Mutation:
    return mutation(name, UNITS, *parts)


def watched(name: str, *parts: str) -> Mutation:
    return mutation(name, WATCH, *parts)


LEARNING = [
    # ---------------------------------------------------------------------- run times
    unit("curve-never-follows-a-change", CURVE, "if !slower && !faster {", "if true {"),
    unit(
        "curve-follows-one-odd-run",
        CURVE,
        "const IN_A_ROW: usize = 3;",
        "const IN_A_ROW: usize = 1;",
    ),
    unit("curve-follows-slower-only", CURVE, "ratio < 1.0 / FAR", "ratio < 0.0"),
    unit(
        "curve-moves-what-is-new",
        CURVE,
        "filter(|sample| sample.at <= before)",
        "filter(|_| true)",
    ),
    unit("curve-keeps-a-cold-start", CURVE, "} else if bucket.cold {", "} else if false {"),
    unit("curve-knows-for-ever", CURVE, "self.batches - last.at > STALE", "false"),
    unit(
        "curve-has-no-level", CURVE, "self.level = if ratios.len() < 3 {", "self.level = if true {"
    ),
    unit("curve-sees-no-cost", CURVE, "self.by_cost |= cost != size as u64;", "let _ = cost;"),
    unit("curve-has-no-spread", CURVE, "high.max(1.0)", "1.0_f64.min(high)"),
    unit(
        "line-below-zero",
        "scheduler/line.rs",
        "Some(at) => used[at] = false,",
        "Some(_) => rounds += 1,",
    ),
    # ------------------------------------------------------------------------- memory
    unit(
        "cap-forgets-what-lasted",
        CAP,
        "Some(bound) if size > bound.good && bound.good > 0",
        "Some(bound) if false && bound.good > 0",
    ),
    unit("cap-tries-as-often", CAP, "(2 * self.patience).min(MOST_PATIENCE)", "self.patience"),
    unit("cap-never-tries", CAP, "bound.seen += u32::from(full);", "let _ = full;"),
    unit(
        "cap-counts-small-ones",
        CAP,
        "bound.seen += u32::from(full);",
        "let _ = full; bound.seen += 1;",
    ),
    unit(
        "cap-by-an-older-batch",
        CAP,
        "Some(bound) if size > bound.most => bound,",
        "Some(bound) if false => bound,",
    ),
    mutation(
        "cap-in-requests-with-a-budget", AGAIN, CHANGE, "shared.has_budget() && cost > 1", "false"
    ),
    mutation("cap-never-posted", AGAIN, CHANGE, "self.cost_cap.of(cost);", "cost;"),
    mutation(
        "cap-refuses",
        AGAIN,
        CHANGE,
        "            max_batch_cost: cost,\n",
        "            max_batch_cost: self.limits.max_batch_cost,\n",
    ),
    mutation(
        "cap-of-cost-never-tries",
        AGAIN,
        CHANGE,
        "changes |= self.cost_cap.leaves(full, most, cost);",
        "let _ = full;",
    ),
    # ------------------------------------------------------------- who lets others pass
    unit(
        "passing-costs-nothing",
        PASSING,
        "self.credit += SHARE * n as f64 - aside.left as f64;",
        "self.credit += SHARE * n as f64;",
    ),
    unit(
        "passing-earns-nothing",
        PASSING,
        "self.credit += SHARE * n as f64 - aside.left as f64;",
        "self.credit -= aside.left as f64;",
    ),
    unit(
        "passing-pauses-as-long", PASSING, "*all = (*all * 2).min(PAUSES[1]);", "*all = PAUSES[0];"
    ),
    unit(
        "passing-of-too-many", PASSING, "self.credit < 0.0 || aside.too_many", "self.credit < 0.0"
    ),
    mutation(
        "passing-for-ever", TAKING, "scheduler/taking.rs", "aside.aged..aside.late", "0..aside.late"
    ),
    mutation(
        "passing-with-a-deadline",
        TAKING,
        "scheduler/taking.rs",
        "passed.contains(&terms.arrival) && terms.deadline == NEVER",
        "passed.contains(&terms.arrival)",
    ),
    mutation(
        "passing-of-more-than-earned",
        TAKING,
        "scheduler/taking.rs",
        "aside.too_many = passing > aside.most;",
        "aside.too_many = false;",
    ),
    mutation(
        "passing-among-priorities",
        TAKING,
        "scheduler/group.rs",
        "filled.next().is_none().then_some(only)",
        "Some(only)",
    ),
    mutation(
        "nobody-lets-others-pass",
        OBJECTIVE,
        PASSING,
        "(self.pause.0 == 0).then(|| Aside {",
        "(self.pause.0 == 1).then(|| Aside {",
    ),
    # ------------------------------------------------------------------------ windows
    mutation(
        "together-by-halves",
        WINDOWS,
        "scheduler/windows.rs",
        "        if together {\n",
        "        if false && together {\n",
    ),
    # ----------------------------------------------------------------------- watching
    unit(
        "said-each-time",
        WATCHED,
        "now.saturating_sub(said) < MINUTE",
        "now.saturating_sub(said) < 0",
    ),
    unit("said-of-the-last", WATCHED, "self.worst = self.worst.max(value);", "self.worst = value;"),
    unit("said-and-counted-again", WATCHED, "(self.count, self.worst) = (0, 0);", "let _ = said;"),
    unit(
        "sampled-in-order",
        WATCHED,
        "rate == u64::MAX || mixed < rate",
        "rate == u64::MAX || number < rate >> 44",
    ),
    watched("timed-unasked", WATCHED, "self.is_timed.load(Relaxed)", "true"),
    watched(
        "never-timed", WATCHED, "self.is_timed.store(true, Relaxed);", "let _ = &self.is_timed;"
    ),
    watched("slow-is-not-counted", WATCHED, "saying.slow += 1;", "saying.slow += 0;"),
    watched(
        "sampled-by-batch",
        WATCHED,
        "self.number.fetch_add(1, Relaxed)",
        "self.number.load(Relaxed)",
    ),
]
