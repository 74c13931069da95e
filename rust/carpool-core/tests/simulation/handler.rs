//! What handlers do with their batches, and how the answers get home.

use carpool_core::AnswerError;

use super::border::Answer;
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
        let what = self.dice.below(8);
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
                let which = &mut self.running[which];
                which.batch = None;
                self.sent(&left, !left.is_empty());
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
            let (out, ids) = running.unsent.swap_remove(pick % running.unsent.len());
            self.note(|| format!("send {ids:?}"));
            let last = out.is_last();
            match pick % 2 {
                0 => out.send(),
                _ => drop(out),
            }
            self.sent(&ids, last);
        }
        let Running { batch, ids, unsent } = &self.running[which];
        let open = |id: &usize| matches!(self.plain.all[*id].state, State::InFlight { .. });
        if unsent.is_empty() && (batch.is_none() || !ids.iter().any(open)) {
            self.running.swap_remove(which);
        }
    }

    /// One step's outcomes have been sent: one round of wakes, for those who still wait.
    fn sent(&mut self, ids: &[usize], last: bool) {
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
        self.plain.running -= usize::from(last);
        let woken = self.diary.read();
        assert!(woken.len() <= 1, "one round of wakes per step: {woken:?}");
        let mut woken = woken.concat();
        woken.sort_unstable();
        told.sort_unstable();
        assert_eq!(woken, told);
        for id in told {
            self.receive(id);
        }
        self.check_books();
    }
}
