"""Mutations of many at once: lists of requests with one waiter."""

from __future__ import annotations

from mutation import WINDOWS, Mutation, mutation

MANY_RS = "many.rs"
LET_IN = "scheduler/windows.rs"
SCHEDULER = "scheduler/mod.rs"


def list_of(name: str, *parts: str) -> Mutation:
    return mutation(name, WINDOWS, *parts)


MANY = [
    mutation(
        "countdown-load-store",
        "windows::the_last_of_two_batches_wakes_the_waiter_who_finds_both",
        MANY_RS,
        "let before = self.left.fetch_sub(n, AcqRel);",
        "let before = self.left.load(Acquire);\n        self.left.store(before - n, SeqCst);",
    ),
    mutation(
        "countdown-before-the-outcomes-are-published",
        "windows::the_last_of_two_batches_wakes_the_waiter_who_finds_both",
        "route.rs",
        "            request.reply.publish();\n            windows |= request.window().is_some();\n",
        "            windows |= request.window().is_some();\n",
        "            many::tell_each(self.delivered, B::tell);\n",
        "            many::tell_each(self.delivered.clone(), B::tell);\n"
        "            self.delivered.iter().for_each(|request| request.reply.publish());\n",
    ),
    mutation(
        "window-known-to-be-short-after-the-look",
        "windows::a_cancel_lets_in_a_window_that_waits_for_room",
        LET_IN,
        "        shared.short.store(1, SeqCst);\n",
        "",
    ),
    mutation(
        "cancel-blind-to-windows",
        "windows::a_cancel_lets_in_a_window_that_waits_for_room",
        "submit.rs",
        "            || shared.short.load(SeqCst) > 0\n",
        "",
    ),
    mutation(
        "backlog-ended-twice",
        "windows::a_failing_close_and_the_last_answer_end_a_window_once",
        LET_IN,
        "                let n = backlog.end(why);\n",
        "                let n = backlog.end(why) + 1;\n",
    ),
    list_of("window-told-of-each", MANY_RS, "self.told == Told::PerStep", "true"),
    list_of("window-never-told-of-a-step", MANY_RS, "self.told == Told::PerStep", "false"),
    list_of(
        "three-batches-ahead",
        LET_IN,
        "            .saturating_mul(MOST)\n",
        "            .saturating_mul(3)\n",
    ),
    list_of("windows-fill-the-queue", LET_IN, ".min((max_queue / 2).max(1))", ".min(max_queue)"),
    list_of(
        "sealed-count-as-ahead",
        SCHEDULER,
        "                        window.leave(&terms);\n",
        "                        let _ = window;\n",
    ),
    list_of(
        "one-window-after-the-other",
        LET_IN,
        "                served.push_back(backlog);\n",
        "                self.backlogs.push_back(backlog);\n",
    ),
    list_of(
        "failing-close-forgets-the-backlog",
        SCHEDULER,
        "        self.end_backlogs(shared, Failure::Closed, |_| true, out);\n",
        "",
    ),
    list_of(
        "backlog-does-not-expire",
        "scheduler/deadlines.rs",
        "            self.end_backlogs(shared, Failure::Expired, overdue, out);\n",
        "            let _ = overdue;\n",
    ),
    list_of(
        "cancelled-backlog-goes-on",
        MANY_RS,
        "                if let Some(mut backlog) = state.backlogs.remove(at) {",
        "                if let Some(mut backlog) = state.backlogs.remove(at).filter(|_| false) {",
    ),
    list_of(
        "cancelled-window-keeps-its-places",
        MANY_RS,
        "                    shared.leave_queue(1, request.terms.cost);\n",
        "",
    ),
    list_of(
        "small-batches-are-not-counted",
        MANY_RS,
        "packed: shared.has_budget() || items.iter().any(|item| item.key != 0),",
        "packed: false,",
    ),
    list_of(
        "each-for-itself-in-a-convoy",
        MANY_RS,
        "convoy: how.convoy.cloned().unwrap_or_default().0,",
        "convoy: Convoy::default().0,",
    ),
    list_of(
        "cancelled-stays-ahead-of-its-convoy",
        MANY_RS,
        "                    self.window.leave(&request.terms);\n",
        "",
    ),
    list_of(
        "expired-stays-ahead",
        "scheduler/deadlines.rs",
        "                window.leave(&request.terms);\n",
        "                let _ = window;\n",
    ),
    list_of(
        "who-gave-way-stays-ahead",
        "scheduler/overflow.rs",
        "            window.leave(&request.terms);\n",
        "            let _ = window;\n",
    ),
    list_of(
        "held-batches-counted-one-by-one",
        "scheduler/packs.rs",
        "            true => requests.div_ceil(self.size.max(1)),\n",
        "            true => packs,\n",
    ),
    list_of(
        "later-lists-overtake-their-convoy",
        LET_IN,
        " || served.iter().any(follows)",
        "",
    ),
]
