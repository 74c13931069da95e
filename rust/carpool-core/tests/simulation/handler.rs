//! What handlers do with their batches, and how the answers get home.

use carpool_core::{AnswerError, SplitError};

use super::border::{Answer, ids};
use super::plain::{Plain, State};
use super::world::{Running, World};

impl World {
    /// A handler does something: answers, fails, forgets, or has its answers sent.
    pub fn progress(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let which = self.dice.below(self.running.len());
        let (census, now) = (self.census.clone(), self.now());
        let fails = self.dice.one_in(5);
        let answer = move |id: usize| match fails {
            true => Answer::Error(census.value(id)),
            false => Answer::Result(census.value(id)),
        };
        let what = self.dice.below(9);
        let pick = self.dice.next() as usize;
        let running = &mut self.running[which];
        if self.trace {
            eprintln!("{now:6} handler of {:?} does {what}", running.ids);
        }
        let all = running.ids.clone();
        let open = |plain: &Plain| -> Vec<usize> {
            let is_open = |id: &&usize| matches!(plain.all[**id].state, State::InFlight { .. });
            all.iter().filter(is_open).copied().collect()
        };
        let left = open(&self.plain);
        let outgoing = match (&mut running.batch, what) {
            (Some(batch), 0..=2) => {
                let answers = all.iter().map(|&id| answer(id)).collect();
                match batch.answer_all(answers) {
                    Ok(out) => Some((out, all.clone())),
                    Err((AnswerError::Answered { .. }, back)) => {
                        assert!(left.len() < all.len() && back.len() == all.len());
                        None
                    }
                    Err((other, _)) => panic!("{other}"),
                }
            }
            (Some(batch), 3) => {
                let (expected, actual) = (all.len(), all.len() + 1);
                let answers = (0..actual).map(&answer).collect();
                let (error, back) = batch.answer_all(answers).err().expect("too many");
                assert_eq!(error, AnswerError::WrongLength { expected, actual });
                assert_eq!(back.len(), actual);
                None
            }
            (Some(batch), 4 | 5) => {
                let index = pick % (all.len() + 1);
                let tag = all[index.min(all.len() - 1)];
                match batch.answer(index, answer(tag)) {
                    Ok(out) => Some((out, vec![tag])),
                    Err((AnswerError::OutOfRange { .. }, _)) => {
                        assert_eq!(index, all.len());
                        None
                    }
                    Err((AnswerError::Answered { .. }, _)) => {
                        assert!(!left.contains(&all[index]));
                        None
                    }
                    Err((other, _)) => panic!("{other}"),
                }
            }
            (Some(batch), 6) => Some((batch.answer_rest(|at| answer(all[at])), left)),
            (batch, 7) if batch.is_some() => {
                // Dropped: what is unanswered fails, and is sent at once.
                for &id in &left {
                    self.prepare(id, true);
                }
                let running = &mut self.running[which];
                running.batch = None;
                let free = !left.is_empty() && running.ends_its_share();
                self.sent(&left, free);
                return;
            }
            (Some(_), 8) => {
                self.split(which, pick);
                return;
            }
            _ => None,
        };
        if let Some((out, ids)) = outgoing {
            for &id in &ids {
                self.prepare(id, fails);
            }
            self.running[which].unsent.push((out, ids));
        }
        self.check_books();
        self.send_one(which, pick);
    }

    fn prepare(&mut self, id: usize, failed: bool) {
        let state = &mut self.plain.all[id].state;
        let State::InFlight { gone } = *state else {
            panic!("{id} is answered, but {state:?}");
        };
        *state = State::Prepared { gone, failed };
    }

    /// Sends one of the outcomes that are ready, in any order.
    fn send_one(&mut self, which: usize, pick: usize) {
        let running = &mut self.running[which];
        if !running.unsent.is_empty() && pick % 4 != 0 {
            let (mut out, ids) = running.unsent.swap_remove(pick % running.unsent.len());
            // Whom nobody follows is due.
            self.hear((pick % 3 == 0).then(|| out.follow()).flatten());
            self.note(|| format!("send {ids:?}"));
            let free = out.is_last() && self.running[which].ends_its_share();
            match pick % 2 {
                0 => assert_eq!(out.send(), free),
                _ => drop(out),
            }
            self.sent(&ids, free);
        }
        let Running {
            batch, ids, unsent, ..
        } = &self.running[which];
        let open = |id: &usize| matches!(self.plain.all[*id].state, State::InFlight { .. });
        if unsent.is_empty() && (batch.is_none() || !ids.iter().any(open)) {
            self.running.swap_remove(which);
        }
    }

    /// Makes two batches of one, where each has a request.
    fn split(&mut self, which: usize, pick: usize) {
        let running = &mut self.running[which];
        let batch = running.batch.as_mut().expect("a batch");
        let sealed = batch.waited() + self.plain.oldest(&running.ids);
        let (at, len, left) = (pick % (batch.len() + 1), batch.len(), batch.left());
        let (reason, waited, open) = (batch.reason(), batch.waited(), ids(batch));
        let rest = match batch.split_off(at) {
            Ok(rest) => rest,
            Err(error) => {
                assert_eq!(error, SplitError { at, len });
                assert!(at == 0 || at == len);
                return;
            }
        };
        let others = running.ids.split_off(at);
        let share = usize::from(batch.left() > 0 && rest.left() > 0);
        running.parts.set(running.parts.get() + share);
        assert_eq!(batch.left() + rest.left(), left);
        let parts = running.parts.clone();
        for (part, of) in [(&*batch, &running.ids), (&rest, &others)] {
            assert_eq!((part.len(), part.reason()), (of.len(), reason));
            // Of a batch that was answered whole nothing is left to look at.
            assert_eq!(ids(part), if open.is_empty() { &[] } else { &of[..] });
            let waits = sealed - self.plain.oldest(of);
            let expected = if open.is_empty() { waited } else { waits };
            assert_eq!(part.waited(), expected);
            for (at, &id) in of.iter().enumerate() {
                let is_open = matches!(self.plain.all[id].state, State::InFlight { .. });
                let payload = part.payload(at).map(|value| value.id);
                assert_eq!(payload, is_open.then_some(id));
            }
        }
        self.running.push(Running {
            batch: Some(rest),
            ids: others,
            unsent: Vec::new(),
            parts,
        });
        self.check_books();
    }

    /// One step's outcomes have been sent: one round of wakes, for those who still wait.
    fn sent(&mut self, ids: &[usize], slot_is_free: bool) {
        let mut told = Vec::new();
        for &id in ids {
            let State::Prepared { gone, failed } = self.plain.all[id].state else {
                panic!("{id} was never answered");
            };
            self.plain.all[id].state = match (gone, failed) {
                (true, _) => State::Cancelled,
                (_, true) => State::Failed,
                _ => State::Answered,
            };
            if !gone {
                told.push(id);
            }
        }
        self.plain.running -= usize::from(slot_is_free);
        // The end of a batch is a look too, which meets what is overdue.
        let expired = self.note_endings();
        let rounds = self.diary.rounds();
        let most = 1 + usize::from(!expired.is_empty());
        assert!(rounds <= most, "{rounds} rounds of wakes in one step");
        told.extend(expired);
        told.sort_unstable();
        self.check_told(told);
    }
}

impl Running {
    /// The part has ended; true if it was the last that held the slot.
    fn ends_its_share(&self) -> bool {
        self.parts.set(self.parts.get() - 1);
        self.parts.get() == 0
    }
}
