//! The parts of the queue by themselves: intake, admission, need.

use carpool_core::model::Intake;
use carpool_core::queue::admission::{Admission, NotAdmitted};
use carpool_core::queue::need::Need;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use loom::thread;

use crate::support::{Model, Note, Waiter, model, whole_model};

fn push(intake: &Intake<Model>, note: u8) {
    let waiter = Waiter {
        note: Note::new(note),
        ..Waiter::default()
    };
    intake.push(0, waiter);
}

/// Reads what only the push itself has published.
fn drain(intake: &Intake<Model>) -> Vec<u8> {
    let mut notes = Vec::new();
    intake.drain(|request| notes.push(request.waiter().note.read()));
    notes
}

#[test]
fn intake_loses_nothing_and_keeps_each_producers_order() {
    model(|| {
        let intake = Arc::new(Intake::<Model>::default());
        let producers = [vec![1, 2], vec![11, 12]].map(|notes| {
            let intake = intake.clone();
            thread::spawn(move || notes.into_iter().for_each(|note| push(&intake, note)))
        });
        let mut seen = drain(&intake);
        seen.extend(drain(&intake));
        for producer in producers {
            producer.join().unwrap();
        }
        seen.extend(drain(&intake));
        let (low, high): (Vec<u8>, Vec<u8>) = seen.iter().partition(|&&note| note < 10);
        assert_eq!((low, high), (vec![1, 2], vec![11, 12]));
    });
}

#[test]
fn intake_drops_what_nobody_took() {
    // Loom reports what leaks.
    whole_model(|| {
        let intake = Arc::new(Intake::<Model>::default());
        let other = intake.clone();
        let producer = thread::spawn(move || push(&other, 1));
        push(&intake, 2);
        drop(intake);
        producer.join().unwrap();
    });
}

#[test]
fn admission_never_exceeds_its_bound() {
    whole_model(|| {
        let admission = Arc::new(Admission::new(1));
        let inside = Arc::new(AtomicUsize::new(0));
        let enter = |admission: &Admission, inside: &AtomicUsize| {
            for _ in 0..2 {
                match admission.enter() {
                    Ok(()) => {
                        assert_eq!(inside.fetch_add(1, Relaxed), 0);
                        inside.fetch_sub(1, Relaxed);
                        admission.leave(1);
                    }
                    Err(why) => assert_eq!(why, NotAdmitted::Full),
                }
            }
        };
        let other = (admission.clone(), inside.clone());
        let rival = thread::spawn(move || enter(&other.0, &other.1));
        enter(&admission, &inside);
        rival.join().unwrap();
        assert_eq!(admission.count(), 0);
    });
}

#[test]
fn admission_admits_before_the_close_or_not_at_all() {
    whole_model(|| {
        let admission = Arc::new(Admission::new(2));
        let rivals: Vec<_> = (0..2)
            .map(|_| {
                let admission = admission.clone();
                thread::spawn(move || admission.enter().is_ok())
            })
            .collect();
        assert!(admission.close());
        let counted = admission.count();
        let entered = rivals.into_iter().map(|rival| rival.join().unwrap());
        assert_eq!(entered.filter(|&ok| ok).count(), counted);
        assert_eq!(admission.count(), counted);
        assert_eq!(admission.enter(), Err(NotAdmitted::Closed));
        assert!(!admission.close());
    });
}

#[test]
fn need_is_taken_down_by_one() {
    whole_model(|| {
        let need = Arc::new(Need::default());
        need.state(2, u64::MAX);
        let rivals: Vec<_> = (0..2)
            .map(|_| {
                let need = need.clone();
                thread::spawn(move || need.withdraw())
            })
            .collect();
        let taken = rivals.into_iter().map(|rival| rival.join().unwrap());
        assert_eq!(taken.filter(|&taken| taken).count(), 1);
        assert_eq!(need.stated(), None);
    });
}
