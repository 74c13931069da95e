"""Mutations that a loom model must catch."""

from __future__ import annotations

from mutation import mutation

ORDER = "queue::intake_loses_nothing_and_keeps_each_producers_order"
FIRST = "wake::the_first_request_wakes_the_slot"
FILLING = "wake::the_filling_request_wakes_the_slot"
FAILING = "close::a_failing_close_fails_what_was_accepted_and_needs_no_slot"
DEADLINES = "scheduler/deadlines.rs"
LOOKED_AFTER = "deadlines::every_deadline_is_looked_after"
LET_IN = "lobby::a_cancel_lets_in_who_waits_for_room"
LEFT = "reply::what_is_left_is_dropped_with_the_reply"
STEPS = "steps::the_answer_comes_after_all_steps"
STEP_OR_NOBODY = "steps::a_step_and_the_answer_reach_the_caller_or_nobody"

MODELS = [
    mutation(
        "intake-push-relaxed",
        ORDER,
        "queue/intake.rs",
        ".compare_exchange_weak(newest, node, SeqCst, Relaxed)",
        ".compare_exchange_weak(newest, node, Relaxed, Relaxed)",
    ),
    mutation(
        "intake-push-load-store",
        ORDER,
        "queue/intake.rs",
        ".compare_exchange_weak(newest, node, SeqCst, Relaxed)",
        ".swap_unchecked(newest, node)",
        "impl<B: Border> Drop for Intake<B> {",
        """trait SwapUnchecked<T> {
            fn swap_unchecked(&self, old: *mut T, new: *mut T) -> Result<*mut T, *mut T>;
        }
        impl<T> SwapUnchecked<T> for AtomicPtr<T> {
            fn swap_unchecked(&self, old: *mut T, new: *mut T) -> Result<*mut T, *mut T> {
                self.store(new, SeqCst);
                Ok(old)
            }
        }
        impl<B: Border> Drop for Intake<B> {""",
    ),
    mutation(
        "intake-drain-relaxed",
        ORDER,
        "queue/intake.rs",
        "self.newest.swap(null_mut(), AcqRel)",
        "self.newest.swap(null_mut(), Relaxed)",
    ),
    mutation(
        "intake-drain-in-two-steps",
        ORDER,
        "queue/intake.rs",
        "self.newest.swap(null_mut(), AcqRel);",
        "self.newest.load(SeqCst); self.newest.store(null_mut(), AcqRel_to_release());",
        "impl<B: Border> Drop for Intake<B> {",
        """#[allow(non_snake_case)]
        fn AcqRel_to_release() -> crate::sync::atomic::Ordering {
            let _ = AcqRel;
            SeqCst
        }
        impl<B: Border> Drop for Intake<B> {""",
    ),
    mutation(
        "intake-drain-newest-first",
        ORDER,
        "queue/intake.rs",
        "(*newest).reply.link.store(oldest.cast(), Relaxed) };",
        "(*newest).reply.link.store((*newest).reply.link.load(Relaxed), Relaxed) };\n"
        "            let kept = if oldest.is_null() { newest } else { oldest };",
        "            oldest = newest;\n            newest = older;",
        "            oldest = kept;\n            newest = older;",
    ),
    mutation(
        "intake-drop-leaks",
        "queue::intake_drops_what_nobody_took",
        "queue/intake.rs",
        "        self.drain(drop);",
        "        self.drain(std::mem::forget);",
    ),
    mutation(
        "admission-enter-load-store",
        "queue::admission_never_exceeds_its_bound",
        "queue/admission.rs",
        ".compare_exchange_weak(word, word + 1, AcqRel, Acquire)",
        ".compare_exchange_weak({ self.word.store(word + 1, SeqCst); word + 1 }, word + 1, AcqRel, Acquire)",
    ),
    mutation(
        "admission-bound-by-one",
        "queue::admission_never_exceeds_its_bound",
        "queue/admission.rs",
        "if word >= self.bound.load(Relaxed) {",
        "if word >= self.bound.load(Relaxed) + 1 {",
    ),
    mutation(
        "admission-close-load-store",
        "queue::admission_admits_before_the_close_or_not_at_all",
        "queue/admission.rs",
        "self.word.fetch_or(CLOSED, SeqCst) & CLOSED == 0",
        "{ let word = self.word.load(SeqCst); self.word.store(word | CLOSED, SeqCst); word & CLOSED == 0 }",
    ),
    mutation(
        "need-withdraw-load-store",
        "queue::need_is_taken_down_by_one",
        "queue/need.rs",
        """                .compare_exchange(count, NOBODY, AcqRel, Relaxed)
                .is_ok()""",
        """                .compare_exchange({ self.count.store(NOBODY, SeqCst); NOBODY }, NOBODY, AcqRel, Relaxed)
                .is_ok()""",
    ),
    mutation(
        "reply-cancel-load-store",
        "reply::of_cancel_and_claim_exactly_one_wins",
        "reply.rs",
        "        let met = if self.go(PENDING, CANCELLED) {",
        "        let met = if latest!(self.state, LOBBY, Acquire) == PENDING && {\n"
        "            self.state.store(CANCELLED, Release);\n            true\n        } {",
    ),
    mutation(
        "reply-forsake-load-store",
        "reply::an_answer_reaches_the_caller_or_goes_back",
        "reply.rs",
        "            if self.go(from, to) {\n",
        "            self.state.store(to, Release);\n            if true {\n",
    ),
    mutation(
        "payload-dropped-twice",
        "reply::an_answer_reaches_the_caller_or_goes_back",
        "reply.rs",
        "            self.state.store(GONE | (state & STREAM), Release);\n",
        "",
    ),
    mutation(
        "answer-nobody-took-leaks",
        LEFT,
        "reply.rs",
        "            ANSWERING | ANSWERED if state & STREAM == 0 => {",
        "            ANSWERING if state & STREAM == 0 => {",
    ),
    mutation(
        "payload-of-the-overdue-leaks",
        LEFT,
        "reply.rs",
        "            LOBBY | PENDING | OVERDUE | CLAIMED | OPENING | FORSAKEN => {",
        "            LOBBY | PENDING | CLAIMED | OPENING | FORSAKEN => {",
    ),
    mutation(
        "steps-leak",
        LEFT,
        "reply.rs",
        "        if state & STREAM != 0 {\n            let steps",
        "        if false {\n            let steps",
    ),
    mutation(
        "taken-payload-dropped-again",
        LEFT,
        "reply.rs",
        "            LOBBY | PENDING | OVERDUE | CLAIMED | OPENING | FORSAKEN => {",
        "            LOBBY | PENDING | OVERDUE | CLAIMED | OPENING | FORSAKEN | GONE => {",
    ),
    mutation(
        "handle-let-go-relaxed",
        "reply::the_last_handle_sees_what_all_did",
        "count.rs",
        "fetch_sub(1, Release) != 1",
        "fetch_sub(1, Relaxed) != 1",
    ),
    mutation(
        "last-handle-without-a-fence",
        "reply::the_last_handle_sees_what_all_did",
        "count.rs",
        "        fence(Acquire);\n",
        "        let _ = || fence(Acquire);\n",
    ),
    mutation(
        "last-handle-leaks",
        "reply::the_last_handle_sees_what_all_did",
        "count.rs",
        "fetch_sub(1, Release) != 1",
        "fetch_sub(1, Release) != 0",
    ),
    mutation(
        "withdrawal-looks-once",
        "reply::a_withdrawal_ends_what_is_not_sealed",
        "reply.rs",
        "        } else if self.go(PENDING, CANCELLED) {\n            // It was let in",
        "        } else if false {\n            // It was let in",
    ),
    mutation(
        "reply-claim-load-store",
        "reply::of_cancel_and_claim_exactly_one_wins",
        "reply.rs",
        "        self.go(PENDING, CLAIMED)",
        "        self.state.load(Acquire) == PENDING && { self.state.store(CLAIMED, Release); true }",
    ),
    mutation(
        "reply-admit-load-store",
        "reply::of_cancel_expire_and_admit_each_ends_it_once",
        "reply.rs",
        "        self.go(LOBBY, PENDING)",
        "        self.state.load(Acquire) == LOBBY && { self.state.store(PENDING, Release); true }",
    ),
    mutation(
        "reply-expire-load-store",
        "reply::of_cancel_expire_and_admit_each_ends_it_once",
        "reply.rs",
        "        self.go(PENDING, OVERDUE)",
        "        self.state.load(Acquire) == PENDING && { self.state.store(OVERDUE, Release); true }",
    ),
    mutation(
        "reply-reclaim-load-store",
        "reply::what_an_expired_request_leaves_has_one_owner",
        "reply.rs",
        "        let first = self.go(OVERDUE, EXPIRED);",
        "        let first =\n            self.state.load(Acquire) == OVERDUE && { self.state.store(EXPIRED, Release); true };",
    ),
    mutation(
        "deadline-known-before-the-push",
        LOOKED_AFTER,
        "submit.rs",
        "    let (request, queued) = Handle::pair(|| Request::new(payload, Who::One(waiter), terms, false));\n",
        "    if terms.deadline != NEVER {\n"
        "        Shared::keep_deadline(shared, terms.deadline);\n    }\n"
        "    let (request, queued) = Handle::pair(|| Request::new(payload, Who::One(waiter), terms, false));\n",
        "        shared.settle_now();\n    }\n    if terms.deadline != NEVER {\n        Shared::keep_deadline(shared, terms.deadline);\n    }\n    Ok(Ticket {\n        shared: shared.clone(),\n        request,\n    })\n}\n\n/// It is not",
        "        shared.settle_now();\n    }\n    Ok(Ticket {\n        shared: shared.clone(),\n        request,\n    })\n}\n\n/// It is not",
    ),
    mutation(
        "armed-taken-down-after-the-look",
        "deadlines::a_deadline_that_comes_while_the_timer_looks_is_not_missed",
        DEADLINES,
        "        shared.armed.swap(NEVER, SeqCst);\n",
        "",
        "            state.settle(shared, now, out);\n            state.first_deadline()\n        });\n",
        "            state.settle(shared, now, out);\n            state.first_deadline()\n        });\n"
        "        shared.armed.swap(NEVER, SeqCst);\n",
    ),
    mutation(
        "alarm-wakes-nobody",
        "deadlines::an_earlier_alarm_wakes_the_sleeper",
        "timer.rs",
        "            waker.wake();\n",
        "            drop(waker);\n",
    ),
    mutation(
        "alarm-known-after-the-wake",
        "deadlines::an_earlier_alarm_wakes_the_sleeper",
        "timer.rs",
        "until.is_none_or(|until| at < until)",
        "until.is_none_or(|until| at > until)",
    ),
    mutation(
        "sleeper-announced-awake",
        "deadlines::an_earlier_alarm_wakes_the_sleeper",
        "timer.rs",
        "        inner.sleeper = Some((waker.clone(), first));\n",
        "        drop(inner);\n        let mut inner = lock(&self.0);\n"
        "        inner.sleeper = Some((waker.clone(), first));\n",
    ),
    mutation(
        "place-of-the-overdue-not-given-on",
        "deadlines::a_place_freed_by_a_deadline_is_given_on",
        "scheduler/mod.rs",
        "        self.expire_due(shared, now, out);\n        self.let_in(shared, now, out);\n",
        "        self.let_in(shared, now, out);\n        self.expire_due(shared, now, out);\n",
    ),
    mutation(
        "reply-deliver-load-store",
        "reply::an_answer_reaches_the_caller_or_goes_back",
        "reply.rs",
        "        if !self.go(CLAIMED, ANSWERING) {\n            return self.deliver_otherwise(answer);\n        }",
        "        if self.state.load(Acquire) != CLAIMED {\n            return self.deliver_otherwise(answer);\n        }\n"
        "        self.state.store(ANSWERING, Release);",
    ),
    mutation(
        "reply-publish-relaxed",
        "reply::an_answer_reaches_the_caller_or_goes_back",
        "reply.rs",
        "self.state.store(state + (ANSWERED - ANSWERING), Release);",
        "self.state.store(state + (ANSWERED - ANSWERING), Relaxed);",
    ),
    mutation(
        "reply-take-without-swap",
        "reply::of_two_takers_one_gets_the_answer",
        "reply.rs",
        "        if !self.go(ANSWERED, TAKEN) {\n            return None;\n        }\n",
        "",
    ),
    mutation(
        "stream-opened-load-store",
        STEP_OR_NOBODY,
        "reply.rs",
        "if self.go(OPENING, STREAMING) {",
        "self.state.store(STREAMING, Release);\n            if true {",
    ),
    mutation(
        "stream-opened-relaxed",
        STEPS,
        "reply.rs",
        "if self.go(OPENING, STREAMING) {",
        "if self.state.compare_exchange(OPENING, STREAMING, Relaxed, Relaxed).is_ok() {",
    ),
    mutation(
        "stream-without-its-buffer",
        STEP_OR_NOBODY,
        "reply.rs",
        "            self.link.store(steps.cast(), Relaxed);\n            if self.go(OPENING, STREAMING) {\n",
        "            if self.go(OPENING, STREAMING) {\n                self.link.store(steps.cast(), Relaxed);\n",
    ),
    mutation(
        "stream-answered-load-store",
        STEP_OR_NOBODY,
        "reply.rs",
        "        let stored = if self.go(STREAMING, ANSWERING | STREAM) {",
        "        let stored = if self.state.load(Acquire) == STREAMING && {\n"
        "            self.state.store(ANSWERING | STREAM, Release);\n            true\n        } {",
    ),
    mutation(
        "stream-loses-its-mark",
        STEPS,
        "reply.rs",
        "self.state.store(state + (ANSWERED - ANSWERING), Release);",
        "self.state.store(ANSWERED, Release);",
    ),
    mutation(
        "answer-looked-for-after-the-steps",
        STEPS,
        "reply.rs",
        "(state == ANSWERED_STREAM).then(|| self.take_last());",
        "(self.state.load(Acquire) == ANSWERED_STREAM).then(|| self.take_last());",
    ),
    mutation(
        "answer-taken-before-the-steps",
        STEPS,
        "reply.rs",
        "let answer = (state == ANSWERED).then(|| self.take_answer());",
        "let answer = Some(self.take());",
    ),
    mutation(
        "cancel-leaves-the-steps",
        STEP_OR_NOBODY,
        "reply.rs",
        "if from == STREAMING {",
        "if false {",
    ),
    mutation(
        "step-for-who-has-stopped",
        STEP_OR_NOBODY,
        "steps.rs",
        "        if buffer.closed {\n            Err((Unstored::Gone, step))\n        } else if",
        "        if",
    ),
    mutation(
        "reader-does-not-say-that-it-waits",
        "steps::who_waits_for_a_step_is_told",
        "steps.rs",
        "            buffer.waits = true;\n",
        "",
    ),
    mutation(
        "reader-says-too-late-that-it-waits",
        "steps::who_waits_for_a_step_is_told",
        "steps.rs",
        "            buffer.waits = true;\n",
        "            drop(buffer);\n            lock(&self.0).waits = true;\n",
    ),
    mutation(
        "steps-told-to-nobody",
        "steps::a_step_reaches_a_parked_caller_before_the_answer",
        "batch.rs",
        "        if !self.stepped.is_empty() {",
        "        if false {",
    ),
    mutation(
        "room-told-to-nobody",
        "steps::who_waits_for_room_is_told",
        "steps.rs",
        "            giver.wake();\n        }\n        Some(step)",
        "            drop(giver);\n        }\n        Some(step)",
    ),
    mutation(
        "room-looked-for-before-the-waker-is-left",
        "steps::who_waits_for_room_is_told",
        "steps.rs",
        "        let known = buffer.room",
        "        drop(buffer);\n        let mut buffer = lock(&self.0);\n        let known = buffer.room",
    ),
    mutation(
        "cancel-told-to-no-giver",
        "steps::who_waits_for_room_is_told_of_a_cancel",
        "steps.rs",
        "        drop(untaken);\n        if let Some(giver) = room {\n            giver.wake();\n        }",
        "        drop(untaken);\n        drop(room);",
    ),
    mutation(
        "more-steps-than-the-bound",
        "steps::who_waits_for_room_is_told_of_a_cancel",
        "steps.rs",
        "} else if buffer.given.len() >= bound {",
        "} else if buffer.given.len() > bound {",
    ),
    mutation(
        "payload-taken-without-winning",
        "reply::the_payload_has_one_owner",
        "reply.rs",
        "                return (met, None);",
        "                return (met, Some(unsafe { self.place.take_payload() }));",
    ),
    mutation(
        "need-stated-after-the-look",
        FILLING,
        "scheduler/mod.rs",
        """                    shared.need.state(count, cost);
                    if shared.intake.is_empty() {""",
        """                    let empty = shared.intake.is_empty();
                    shared.need.state(count, cost);
                    if empty {""",
    ),
    mutation(
        "no-second-look",
        FIRST,
        "scheduler/mod.rs",
        "if shared.intake.is_empty() {",
        "if true {",
    ),
    mutation(
        "need-not-in-the-one-order",
        FIRST,
        "queue/need.rs",
        "        self.count.store(count, SeqCst);\n        store_load_order();",
        "        self.count.store(count, SeqCst);",
        "queue/intake.rs",
        "        store_load_order();\n        self.newest.load(SeqCst).is_null()",
        "        self.newest.load(SeqCst).is_null()",
    ),
    mutation(
        "push-not-in-the-one-order",
        FIRST,
        "queue/intake.rs",
        "                Err(seen) => newest = seen,\n            }\n        }\n        store_load_order();",
        "                Err(seen) => newest = seen,\n            }\n        }",
    ),
    mutation(
        "need-read-before-the-push",
        FIRST,
        "submit.rs",
        "    shared.intake.push(queued);",
        "    let stated = shared.need.stated();\n    shared.intake.push(queued);",
        "if let Some(count) = shared.need.stated() {",
        "if let Some(count) = stated {",
    ),
    mutation(
        "count-missed-by-one",
        FILLING,
        "submit.rs",
        "shared.admission.count() >= count",
        "shared.admission.count() > count",
    ),
    mutation(
        "cost-forgotten",
        "wake::the_request_that_uses_up_the_budget_wakes_the_slot",
        "submit.rs",
        "shared.cost.load(Relaxed) >= shared.need.stated_cost()",
        "false",
    ),
    mutation(
        "need-taken-down-without-a-wake",
        FILLING,
        "submit.rs",
        "if met && shared.need.withdraw() {",
        "if shared.need.withdraw() && met {",
    ),
    mutation(
        "end-of-batch-without-settling",
        "wake::the_end_of_a_batch_wakes_the_slot_that_waits_for_it",
        "route.rs",
        "if (ended.is_some() && !keeps_slot) || state.has_ended(shared) {",
        "if state.has_ended(shared) {",
    ),
    mutation(
        "seat-left-without-settling",
        "wake::a_wake_for_a_slot_that_left_goes_to_the_next",
        "slot.rs",
        "            state.slots.leave(self.number, &mut out.spent);\n            state.settle(&self.shared, now, out);",
        "            state.slots.leave(self.number, &mut out.spent);\n            let _ = (now, out);",
    ),
    mutation(
        "wake-owed-by-who-left",
        "wake::a_wake_for_a_slot_that_left_goes_to_the_next",
        "scheduler/waiting.rs",
        "        if self.owed == Some(seat) {",
        "        if false {",
    ),
    mutation(
        "lead-not-handed-on",
        "wake::a_slot_that_leaves_with_a_batch_hands_the_lead_on",
        "slot.rs",
        """                Ok(sealed) => {
                    state.settle(shared, now, out);
                    Ok(sealed)
                }
                Err(decision) => {
                    let until""",
        """                Ok(sealed) => Ok(sealed),
                Err(decision) => {
                    let until""",
    ),
    mutation(
        "submit-blind-to-the-close",
        FAILING,
        "submit.rs",
        "    if shared.admission.is_closed() {\n",
        "    if false {\n",
    ),
    mutation(
        "close-seen-before-the-push",
        FAILING,
        "submit.rs",
        "    shared.intake.push(queued);",
        "    let closed = shared.admission.is_closed();\n    shared.intake.push(queued);",
        "    if shared.admission.is_closed() {\n",
        "    if closed {\n",
    ),
    mutation(
        "drain-not-in-the-one-order",
        FAILING,
        "queue/intake.rs",
        "        if self.is_empty() {\n            return;",
        "        if self.newest.load(Relaxed).is_null() {\n            return;",
    ),
    mutation(
        "close-flag-after-settling",
        FAILING,
        "batcher.rs",
        "        self.shared.admission.close();\n        let now = self.now();",
        "        let now = self.now();",
        "                (_, true) => Phase::Draining,\n            };\n            state.settle(&self.shared, now, out);\n        });",
        "                (_, true) => Phase::Draining,\n            };\n            state.settle(&self.shared, now, out);\n        });\n"
        "        self.shared.admission.close();",
    ),
    mutation(
        "failing-counted-twice",
        "close::a_failing_close_counts_each_request_once",
        "scheduler/mod.rs",
        "(out.failing.len() - before) as u64",
        "{ let _ = before; out.failing.len() as u64 }",
    ),
    mutation(
        "drain-does-not-wake-the-slot",
        "close::a_drain_answers_what_was_accepted",
        "scheduler/mod.rs",
        "                self.slots.wake_all(&mut out.wakes);\n                if",
        "                if",
    ),
    mutation(
        "closer-not-told-of-the-last-answer",
        "close::the_last_answer_tells_the_closer",
        "scheduler/mod.rs",
        "                    out.wakes.append(&mut self.closers);",
        "                    self.closers.clear();",
    ),
    mutation(
        "closer-told-by-the-last-prepared-only",
        "close::the_last_answer_sent_tells_the_closer",
        "route.rs",
        "if (ended.is_some() && !keeps_slot) || state.has_ended(shared) {",
        "if ended.is_some() {",
    ),
    mutation(
        "cancel-blind-to-the-close",
        "close::the_last_cancel_tells_the_closer_and_the_slot",
        "submit.rs",
        "            || shared.admission.is_closed()\n            ||",
        "            ||",
        "scheduler/mod.rs",
        "(living == 0 || (dead > 64 && dead > living))",
        "dead > 64 && dead > living",
    ),
    mutation(
        "lobby-known-after-the-look",
        LET_IN,
        "submit.rs",
        "        shared.lobby.store(state.lobby.len(), SeqCst);\n        state.settle(shared, now, out);",
        "        state.settle(shared, now, out);\n        shared.lobby.store(state.lobby.len(), SeqCst);",
    ),
    mutation(
        "room-not-in-the-one-order",
        LET_IN,
        "queue/admission.rs",
        "        self.word.fetch_sub(n, SeqCst);\n        store_load_order();",
        "        self.word.fetch_sub(n, SeqCst);",
    ),
    mutation(
        "lobby-read-before-the-place-is-free",
        LET_IN,
        "submit.rs",
        "                shared.leave_queue(1, self.request.terms.cost);\n",
        "                let must = self.must_settle();\n"
        "                shared.leave_queue(1, self.request.terms.cost);\n",
        "if lead || self.must_settle() {",
        "if lead || must {",
    ),
    mutation(
        "seal-lets-nobody-in",
        "lobby::a_seal_lets_in_who_waits_for_room",
        "scheduler/mod.rs",
        "    fn let_in(&mut self, shared: &Shared<B>, now: Nanos, out: &mut Outbox<B>) {",
        "    fn let_in(&mut self, shared: &Shared<B>, now: Nanos, out: &mut Outbox<B>) {\n"
        "        if self.counters.batches > 0 { return; }",
    ),
    mutation(
        "dead-in-the-lobby-takes-room",
        "lobby::who_gives_up_in_the_lobby_takes_no_room",
        "scheduler/mod.rs",
        "                    out.drop_later(Some(request));\n                    continue;",
        "                    out.drop_later(Some(request));\n                    room -= 1;\n"
        "                    continue;",
    ),
    mutation(
        "last-share-frees-nothing",
        "close::the_last_part_tells_the_closer",
        "lease.rs",
        "shares.fetch_sub(1, Relaxed) == 1",
        "shares.fetch_sub(1, Relaxed) == 3",
    ),
    mutation(
        "end-of-batch-wakes-no-caller",
        "callers::two_callers_answer_each_other",
        "scheduler/mod.rs",
        "                self.settle_callers(shared, now, out);\n",
        "",
    ),
    mutation(
        "cancelled-keeper-keeps-the-time",
        "callers::a_caller_that_gives_up_hands_the_time_on",
        "scheduler/callers.rs",
        "let (key, decision) = self.look(shared, self.limits.max_batch_size, true, now, out);\n"
        "        let Some(head)",
        "let _ = now;\n        let (key, decision) = (0, Decision::NO_SLOT);\n        let Some(head)",
    ),
    mutation(
        "cancelling-caller-does-not-settle",
        "callers::a_caller_that_gives_up_hands_the_time_on",
        "submit.rs",
        "if lead || self.must_settle() {",
        "let _ = lead;\n                if self.must_settle() {",
    ),
    mutation(
        "alone-tells-nobody",
        "callers::a_call_that_runs_alone_tells_who_came_meanwhile",
        "alone.rs",
        "        if !quiet {\n            shared.settle_now();",
        "        if !quiet && false {\n            shared.settle_now();",
    ),
    mutation(
        "alone-looks-before-the-slot-is-free",
        "callers::a_call_that_runs_alone_tells_who_came_meanwhile",
        "alone.rs",
        "        let mut state = lock(&shared.state);\n        let counters = &mut state.counters;\n"
        "        counters.in_flight -= 1;",
        "        let pending = shared.admission.count();\n"
        "        let mut state = lock(&shared.state);\n        let counters = &mut state.counters;\n"
        "        counters.in_flight -= 1;",
        "        state.give_slot_back();\n        let pending = shared.admission.count();\n",
        "        state.give_slot_back();\n",
    ),
    mutation(
        "kept-slot-told-to-nobody",
        "callers::a_kept_slot_goes_to_who_waits_for_it",
        "slot.rs",
        "            state.company.ended(now);\n            state.settle(shared, now, out);",
        "            state.company.ended(now);\n            let _ = out;",
    ),
    mutation(
        "gathers-for-one-too-many",
        "callers::who_gathers_is_answered_by_who_comes_back",
        "scheduler/policy.rs",
        "Some(gather) if view.count >= gather.company ||",
        "Some(gather) if view.count > gather.company ||",
    ),
    # Limits that change while others wait by them.
    *[
        mutation(
            "change-not-settled",
            model,
            "batcher.rs",
            "            state.settle(shared, now, out);\n            Ok(())\n",
            "            let _ = (now, out);\n            Ok(())\n",
        )
        for model in (
            "configure::a_wait_of_nothing_lets_a_waiting_slot_leave",
            "configure::a_smaller_batch_size_lets_a_waiting_slot_leave_with_what_is_there",
            "configure::another_slot_takes_what_waits_for_one",
        )
    ],
    mutation(
        "changed-queue-keeps-its-bound",
        "configure::a_longer_queue_lets_in_who_waits_for_room",
        "scheduler/change.rs",
        "        shared.admission.change(limits.max_queue);\n",
        "",
    ),
]
