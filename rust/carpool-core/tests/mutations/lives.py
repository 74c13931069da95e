"""Mutations that the seeded simulation, or the test of re-entry, must catch."""

from __future__ import annotations

from mutation import FULL, REENTRY, SIMULATION, Mutation, mutation


def life(name: str, *parts: str) -> Mutation:
    return mutation(name, SIMULATION, *parts)


POLICY = "scheduler/policy.rs"
PENDING = "scheduler/pending.rs"
GROUP = "scheduler/group.rs"
TAKING = "scheduler/taking.rs"
OVERFLOW = "scheduler/overflow.rs"
SCHEDULER = "scheduler/mod.rs"
DEADLINES = "scheduler/deadlines.rs"
CALLERS = "scheduler/callers.rs"

LIVES = [
    life("leaves-early", POLICY, "} else if now >= due {", "} else if now + 1 >= due {"),
    life("leaves-late", POLICY, "} else if now >= due {", "} else if now > due {"),
    life(
        "seals-while-busy",
        POLICY,
        "    if free_slots == 0 {\n",
        "    if false {\n",
        SCHEDULER,
        "        if self.free_slots == 0 {\n            // Whatever",
        "        if false {\n            // Whatever",
        "            self.free_slots -= 1;\n",
        "            self.free_slots = self.free_slots.wrapping_sub(1);\n",
    ),
    life("waits-though-full", POLICY, "if view.count >= size {", "if view.count > size {"),
    life("waits-though-draining", POLICY, "} else if view.draining {", "} else if false {"),
    life("waits-though-the-budget-is-used", POLICY, "view.cost >= limits", "view.cost > limits"),
    life(
        "one-too-many",
        TAKING,
        "while self.load.count < most {",
        "while self.load.count <= most {",
    ),
    life(
        "over-the-budget",
        "scheduler/budget.rs",
        "load.count == 0 || self.allows(&load.with(cost))",
        "load.count <= 1 || self.allows(&load.with(cost))",
    ),
    life("last-in-first-out", GROUP, "lane.queue.push_back(item);", "lane.queue.push_front(item);"),
    life("least-urgent-group-first", PENDING, "=> Some(a.min(b)),", "=> Some(a.max(b)),"),
    life(
        "least-urgent-lane-first",
        GROUP,
        "            .min()\n            .map(|(_, at)| at)",
        "            .max()\n            .map(|(_, at)| at)",
    ),
    life(
        "wait-from-the-newest-lane",
        GROUP,
        "heads.map(|head| head.terms().arrival).min()?",
        "heads.map(|head| head.terms().arrival).max()?",
    ),
    life(
        "ends-without-a-batch-untold",
        "route.rs",
        "        shared.watch.ended(arrival, end, || shared.now());\n",
        "        let _ = (arrival, end);\n",
    ),
    life(
        "cancelled-untold",
        "submit.rs",
        "watch.ended(arrival, End::Cancelled, || shared.now());\n",
        "watch.ended(arrival, End::Expired, || shared.now());\n",
    ),
    life(
        "unfollowed-untold",
        "batch.rs",
        "            self.shared.watch.unfollowed(followed);\n",
        "",
    ),
    life(
        "dead-heads-kept",
        PENDING,
        "if !self.prune(key, garbage) {\n                return Some(key);",
        "if { let _ = &garbage; true } {\n                return Some(key);",
    ),
    life(
        "dead-counted",
        SCHEDULER,
        "shared.dead.load(Relaxed) > 0;\n            let mut view",
        "false;\n            let mut view",
    ),
    life(
        "dead-hide-who-is-due",
        SCHEDULER,
        "if waits && self.pending.only",
        "if false && self.pending.only",
    ),
    life("overdue-runs", DEADLINES, "let due = self.first()? <= now;", "let due = false;"),
    life(
        "expires-late",
        DEADLINES,
        "let due = self.first()? <= now;",
        "let due = self.first()? < now;",
    ),
    life("expires-early", DEADLINES, "self.first()? <= now;", "self.first()? <= now + 1;"),
    life(
        "overdue-keeps-its-place",
        DEADLINES,
        "            shared.leave_queue(1, request.terms.cost);\n",
        "",
    ),
    life(
        "overdue-told-nobody",
        SCHEDULER,
        "many::tell_each(out.expired, B::expired);",
        "drop(out.expired);",
    ),
    life("overdue-is-dead-in-secret", DEADLINES, "        shared.dead.fetch_add(1, SeqCst);\n", ""),
    life(
        "overdue-in-the-lobby-waits-on",
        DEADLINES,
        "if !pending && !request.reply.expire_in_lobby() {",
        "if !pending {",
    ),
    life(
        "next-deadline-forgotten",
        DEADLINES,
        "            Self::keep_deadline(shared, next);",
        "            let _ = next;",
    ),
    life(
        "claimed-stays-among-the-deadlines",
        DEADLINES,
        "        self.0.remove(&place(request));",
        "        let _ = place(request);",
    ),
    life(
        "idle-batcher-keeps-deadlines-of-the-cancelled",
        SCHEDULER,
        "        self.deadlines.compact(&mut out.garbage);\n",
        "",
    ),
    life(
        "overdue-after-the-sweep",
        SCHEDULER,
        "            self.take_in(shared, now, out);\n"
        "            // What is overdue is dead by now: an idle batcher keeps no request.\n"
        "            self.sweep(shared, out);\n",
        "            self.sweep(shared, out);\n            self.take_in(shared, now, out);\n",
    ),
    life("flush-does-nothing", "batcher.rs", "state.flushed = Some(now);", "state.flushed = None;"),
    life(
        "most-urgent-gives-way",
        "scheduler/ranks.rs",
        "*rank > Rank::of(newcomer, u64::MAX)",
        "*rank < Rank::of(newcomer, u64::MAX)",
    ),
    life(
        "deadline-of-who-gave-way-is-kept",
        OVERFLOW,
        "        self.deadlines.forget(request);\n",
        "",
    ),
    mutation(
        "who-gave-way-hides-in-the-queue",
        FULL,
        OVERFLOW,
        "            shared.dead.fetch_add(1, SeqCst);\n",
        "",
    ),
    life(
        "padded-budget-waits-for-many",
        "scheduler/policy.rs",
        "if limits.padded { 1 } else { count }",
        "count",
    ),
    life(
        "looks-too-far-ahead",
        TAKING,
        "self.limits.look_ahead.saturating_add(1);",
        "self.limits.look_ahead.saturating_add(2);",
    ),
    life(
        "passed-over-for-ever",
        TAKING,
        "waited(place) >= Some(age)",
        "waited(place) >= Some(Nanos::MAX)",
    ),
    life(
        "sorts-beyond-the-window",
        TAKING,
        "group.run(lane, window - self.load.count)",
        "group.run(lane, usize::MAX)",
    ),
    life(
        "change-keeps-the-old-indices",
        "scheduler/change.rs",
        "        self.pending.keep_to(self.limits);\n",
        "",
    ),
    life(
        "change-forgets-the-slots-in-use",
        "scheduler/change.rs",
        "let in_use = (before - free).saturating_add(over);",
        "let _ = (before, free);\n    let in_use = over;",
    ),
    life(
        "slots-beyond-the-limit-come-back",
        "scheduler/change.rs",
        "if self.slots_over == 0 {",
        "if self.slots_over < usize::MAX {",
    ),
    life("slot-never-comes-back", "route.rs", "                state.give_slot_back();\n", ""),
    life(
        "a-wake-per-request",
        "border.rs",
        "            Self::wake(request, &mut wakes);\n        }\n        Self::fire(wakes);\n    }",
        "            Self::wake(request, &mut wakes);\n            Self::fire(std::mem::take(&mut wakes));\n"
        "        }\n    }",
    ),
    life(
        "forsaken-forgotten",
        "route.rs",
        "        counters.forsaken += gone;\n",
        "        let _ = gone;\n",
    ),
    life(
        "answers-for-the-neighbour",
        "batch.rs",
        "self.requests.drain(..).zip(answers) {",
        "self.requests.drain(..).zip(answers.into_iter().rev()) {",
    ),
    life("dropped-batch-hangs", "batch.rs", "        if self.left > 0 {\n", "        if false {\n"),
    life(
        "dropped-answers-lost",
        "batch.rs",
        "        if !self.delivery.is_empty() {\n",
        "        if false {\n",
    ),
    life(
        "cancel-frees-no-place",
        "submit.rs",
        "                shared.leave_queue(1, self.request.terms.cost);\n",
        "",
    ),
    life(
        "timer-of-the-lead-not-set",
        "scheduler/waiting.rs",
        "                timer: until,\n",
        "                timer: None,\n",
    ),
    life(
        "lead-without-a-timer-sleeps-on",
        "scheduler/waiting.rs",
        "timer.is_none_or(",
        "timer.is_some_and(",
    ),
    life(
        "idle-batcher-keeps-the-dead",
        SCHEDULER,
        "dead > 0 && (living == 0 || (dead > 64 && dead > living))",
        "dead > 64 && dead > living",
    ),
    life(
        "idle-batcher-keeps-the-keeper",
        CALLERS,
        "if keeper.is_some_and(|keeper| !keeper.request.reply.is_pending()) {",
        "if keeper.is_some_and(|_| false) {",
    ),
    life("wakes-for-nothing", SCHEDULER, "if self.slots.front_sleeps_beyond(until) {", "if true {"),
    life(
        "runner-takes-what-it-is-not-in",
        PENDING,
        "if !budget.fits(&load, cost) {\n                return false;",
        "if false {\n                return false;",
    ),
    life(
        "keeper-sleeps-though-due",
        CALLERS,
        "(Some(_), Decision::Leave(_)) => false,",
        "(Some(_), Decision::Leave(_)) => true,",
    ),
    life(
        "each-part-frees-the-slot",
        "batch.rs",
        "_ => self.lease.as_mut().map(Lease::share),",
        "_ => Some(Lease::new(self.sealed)),",
    ),
    life(
        "lease-stays-with-the-part-that-ended",
        "batch.rs",
        "(0, _) => self.lease.take(),",
        "(0, _) => None,",
    ),
    life("ended-part-holds-the-slot", "batch.rs", "            (_, 0) => None,\n", ""),
    life(
        "part-waited-as-long-as-the-whole",
        "batch.rs",
        "part.oldest = arrivals.min()",
        "part.oldest = arrivals.min().filter(|_| false)",
    ),
    life(
        "split-in-the-wrong-place",
        "batch.rs",
        "self.answered.split_off(at);",
        "self.answered.split_off(len - at);",
    ),
    life(
        "first-part-frees-the-slot",
        "lease.rs",
        "shares.fetch_sub(1, Relaxed) == 1",
        "shares.fetch_sub(1, Relaxed) > 0",
    ),
    life(
        "payload-leaks",
        "batch.rs",
        "        self.payloads.clear();",
        "        std::mem::take(&mut self.payloads).into_iter().for_each(std::mem::forget);",
    ),
    mutation(
        "waker-dropped-under-the-lock",
        REENTRY,
        "scheduler/waiting.rs",
        "*spent = self.line.remove(at).map(|slot| slot.waker);",
        "let _ = spent;\n                self.line.remove(at);",
    ),
    mutation(
        "request-dropped-under-the-lock",
        REENTRY,
        PENDING,
        "                    }\n                    garbage.push(item);",
        "                    }\n                    let _ = &garbage;\n                    drop(item);",
    ),
    mutation(
        "border-called-under-the-lock",
        REENTRY,
        SCHEDULER,
        "        let result = f(&mut crate::sync::lock(&self.state), &mut out);\n",
        "        let mut state = crate::sync::lock(&self.state);\n"
        "        let result = f(&mut state, &mut out);\n",
    ),
    mutation(
        "step-dropped-under-its-lock",
        REENTRY,
        "steps.rs",
        "        drop(buffer);\n        drop(untaken);\n        if let",
        "        drop(untaken);\n        drop(buffer);\n        if let",
    ),
    mutation(
        "giver-woken-under-the-lock-of-the-steps",
        REENTRY,
        "steps.rs",
        "        drop(buffer);\n        if let Some(giver) = room {\n            giver.wake();\n        }\n        Some(step)",
        "        if let Some(giver) = room {\n            giver.wake();\n        }\n        drop(buffer);\n        Some(step)",
    ),
    mutation(
        "waker-of-a-giver-dropped-under-the-lock",
        REENTRY,
        "steps.rs",
        "        drop(buffer);\n        drop(before);",
        "        drop(before);\n        drop(buffer);",
    ),
]
