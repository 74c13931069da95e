#!/usr/bin/env python3
"""Shows that the loom models can fail: breaks the source in one place at a time and runs the model
that is named for it.

    python3 rust/carpool-core/tests/mutations.py [--list] [NAME ...]

The crate is copied, so the working tree is never touched. Every mutation must still compile, and its
model must fail; one that survives (or no longer applies, because the source has changed) makes this
exit with 1. Needs nothing but the standard library and cargo.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

CRATE = Path(__file__).resolve().parent.parent
ROOT = CRATE.parent.parent


class Edit(NamedTuple):
    file: str
    old: str
    new: str


class Mutation(NamedTuple):
    name: str
    model: str
    edits: tuple[Edit, ...]


def mutation(name: str, model: str, *parts: str) -> Mutation:
    """`parts`: a file of src/, then pairs of what to replace and by what; then perhaps another file."""
    edits: list[Edit] = []
    file, rest = "", list(parts)
    while rest:
        if rest[0].endswith(".rs"):
            file = rest.pop(0)
        edits.append(Edit(file, rest.pop(0), rest.pop(0)))
    return Mutation(name, model, tuple(edits))


ORDER = "queue::intake_loses_nothing_and_keeps_each_producers_order"
FIRST = "wake::the_first_request_wakes_the_slot"
FILLING = "wake::the_filling_request_wakes_the_slot"
FAILING = "close::a_failing_close_fails_what_was_accepted_and_needs_no_slot"
LET_IN = "lobby::a_cancel_lets_in_who_waits_for_room"

MUTATIONS = [
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
        "(*newest).next.store(oldest, Relaxed) };",
        "(*newest).next.store((*newest).next.load(Relaxed), Relaxed) };\n"
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
        "if word >= self.bound {",
        "if word >= self.bound + 1 {",
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
        "            if self.go(from, to) {\n                return met;",
        "            let _ = from;\n            self.state.store(to, Release);\n"
        "            if true {\n                return met;",
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
        "        self.go(PENDING, EXPIRED)",
        "        self.state.load(Acquire) == PENDING && { self.state.store(EXPIRED, Release); true }",
    ),
    mutation(
        "reply-deliver-load-store",
        "reply::an_answer_reaches_the_caller_or_goes_back",
        "reply.rs",
        "        if !self.go(CLAIMED, ANSWERING) {\n            return Err(answer);\n        }",
        "        if self.state.load(Acquire) != CLAIMED {\n            return Err(answer);\n        }\n"
        "        self.state.store(ANSWERING, Release);",
    ),
    mutation(
        "reply-publish-relaxed",
        "reply::an_answer_reaches_the_caller_or_goes_back",
        "reply.rs",
        "self.state.store(ANSWERED, Release);",
        "self.state.store(ANSWERED, crate::sync::atomic::Ordering::Relaxed);",
    ),
    mutation(
        "reply-take-without-swap",
        "reply::of_two_takers_one_gets_the_answer",
        "reply.rs",
        "if self.state.load(Acquire) != ANSWERED || !self.go(ANSWERED, TAKEN) {",
        "if self.state.load(Acquire) != ANSWERED {",
    ),
    mutation(
        "payload-taken-without-winning",
        "reply::the_payload_has_one_owner",
        "request.rs",
        "if matches!(met, Cancelled::InLobby | Cancelled::Pending) {",
        "if !matches!(met, Cancelled::TooLate) {",
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
        "    shared.intake.push(request.clone());",
        "    let stated = shared.need.stated();\n    shared.intake.push(request.clone());",
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
        "if ended.is_some() || state.has_ended(shared) {",
        "if state.has_ended(shared) {",
    ),
    mutation(
        "seat-left-without-settling",
        "wake::a_wake_for_a_slot_that_left_goes_to_the_next",
        "slot.rs",
        "            state.slots.leave(self.number);\n            state.settle(&self.shared, now, out);",
        "            state.slots.leave(self.number);\n            let _ = (now, out);",
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
        "    shared.intake.push(request.clone());",
        "    let closed = shared.admission.is_closed();\n    shared.intake.push(request.clone());",
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
        "if ended.is_some() || state.has_ended(shared) {",
        "if ended.is_some() {",
    ),
    mutation(
        "cancel-blind-to-the-close",
        "close::the_last_cancel_tells_the_closer_and_the_slot",
        "submit.rs",
        "            || shared.admission.is_closed()\n            ||",
        "            ||",
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
        "    fn let_in(&mut self, shared: &Shared<B>, out: &mut Outbox<B>) {",
        "    fn let_in(&mut self, shared: &Shared<B>, out: &mut Outbox<B>) {\n"
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
        "end-of-batch-wakes-no-caller",
        "callers::two_callers_answer_each_other",
        "scheduler/mod.rs",
        "                self.settle_callers(shared, now, out);\n",
        "",
    ),
    mutation(
        "cancelled-keeper-keeps-the-time",
        "callers::a_caller_that_gives_up_hands_the_time_on",
        "scheduler/mod.rs",
        "        let (key, _) = self.look(shared, shared.limits.max_batch_size, now, out);\n",
        "        let key = 0;\n",
    ),
    mutation(
        "cancelling-caller-does-not-settle",
        "callers::a_caller_that_gives_up_hands_the_time_on",
        "submit.rs",
        "if lead || self.must_settle() {",
        "let _ = lead;\n                if self.must_settle() {",
    ),
]


def copy_crate(to: Path) -> None:
    """The crate alone, with what the loom models need and no other dependency."""
    shutil.copytree(CRATE / "src", to / "src")
    shutil.copytree(CRATE / "tests" / "loom", to / "tests" / "loom")
    shutil.copy(CRATE / "tests" / "loom.rs", to / "tests" / "loom.rs")
    shutil.copy(ROOT / "Cargo.lock", to / "Cargo.lock")
    manifest = (CRATE / "Cargo.toml").read_text()
    manifest = re.sub(r"(?ms)^\[(dev-dependencies|\[bench\]|lints)\].*?(?=^\[|\Z)", "", manifest)
    workspace = (ROOT / "Cargo.toml").read_text()
    edition = re.search(r"(?m)^edition = .*$", workspace)
    version = re.search(r"(?m)^version = .*$", workspace)
    if not (edition and version):
        sys.exit("Cargo.toml names no version and edition")
    manifest = re.sub(r"(?m)^(?!name|description)\w[\w-]*\.workspace = true\n", "", manifest)
    manifest = manifest.replace("[package]\n", f"[package]\n{edition[0]}\n{version[0]}\n", 1)
    (to / "Cargo.toml").write_text(manifest + "\n[workspace]\n")


def cargo(crate: Path, target: Path, *args: str) -> tuple[int, str]:
    env = os.environ | {
        "RUSTFLAGS": "--cfg loom --cap-lints allow",
        "RUST_BACKTRACE": "0",
        "LOOM_MAX_PREEMPTIONS": "2",
        "CARGO_TARGET_DIR": str(target),
        "CARGO_PROFILE_RELEASE_LTO": "off",
        "CARGO_INCREMENTAL": "1",
    }
    command = ["cargo", "test", "--quiet", "--release", "--test", "loom", *args]
    try:
        done = subprocess.run(
            command,
            cwd=crate,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=300,
            text=True,
            errors="replace",
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 124, "timeout"
    return done.returncode, done.stdout


def verdict(chosen: Mutation, crate: Path, target: Path) -> str:
    """'' when the model caught it, else what is wrong."""
    before: dict[Path, str] = {}
    for edit in chosen.edits:
        path = crate / "src" / edit.file
        source = path.read_text()
        before.setdefault(path, source)
        if source.count(edit.old) != 1:
            for touched, text in before.items():
                touched.write_text(text)
            return f"applies {source.count(edit.old)} times to {edit.file}: bring it up to date"
        path.write_text(source.replace(edit.old, edit.new))
    try:
        code, output = cargo(crate, target, "--no-run")
        if code != 0:
            return "does not compile\n" + output
        code, output = cargo(crate, target, "--", "--exact", chosen.model)
        if code == 124:
            return "its model does not end"
        if code == 0:
            missing = "0 passed" in output
            return f"no model {chosen.model}" if missing else f"SURVIVES {chosen.model}"
        return ""
    finally:
        for path, text in before.items():
            path.write_text(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("names", nargs="*", help="mutations to try; all without")
    parser.add_argument("--list", action="store_true", help="print the names and their models")
    options = parser.parse_args()
    if options.list:
        for one in MUTATIONS:
            print(f"{one.name:40} {one.model}")
        return 0
    unknown = set(options.names) - {one.name for one in MUTATIONS}
    if unknown:
        parser.error(f"no such mutation: {', '.join(sorted(unknown))}")
    chosen = [one for one in MUTATIONS if not options.names or one.name in options.names]
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / "mutations"
    bad = 0
    with tempfile.TemporaryDirectory(prefix="carpool-mutations-") as folder:
        crate = Path(folder)
        copy_crate(crate)
        code, output = cargo(crate, target)
        if code != 0:
            print(output, "\nthe models fail on the source as it is", sep="")
            return 1
        for one in chosen:
            start = time.monotonic()
            wrong = verdict(one, crate, target)
            bad += bool(wrong)
            took = time.monotonic() - start
            print(
                f"{'NOT CAUGHT' if wrong else 'caught':10} {one.name:40} {took:5.1f} s  {wrong}",
                flush=True,
            )
    print(f"{len(chosen) - bad} of {len(chosen)} mutations caught")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
