//! The parts of the queue by themselves: intake, admission, need.

use carpool_core::model::Intake;
use carpool_core::queue::admission::{Admission, NotAdmitted};
use carpool_core::queue::need::Need;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use loom::thread;

use crate::support::{Model, Waiter, model};

#[test]
fn intake_loses_nothing_and_keeps_each_producers_order() {
    model(|| {
        let intake = Arc::new(Intake::<Model>::default());
        let producers: Vec<_> = [[1, 2], [11, 12]]
            .into_iter()
            .map(|payloads| {
                let intake = intake.clone();
                thread::spawn(move || {
                    for payload in payloads {
                        intake.push(payload, Waiter::default());
                    }
                })
            })
            .collect();
        let mut seen = intake.drain();
        for producer in producers {
            producer.join().unwrap();
        }
        seen.extend(intake.drain());
        for low in [true, false] {
            let of_one: Vec<_> = seen.iter().filter(|&&p| (p < 10) == low).collect();
            assert_eq!(of_one, if low { [&1, &2] } else { [&11, &12] });
        }
        assert_eq!(seen.len(), 4);
    });
}

#[test]
fn intake_drops_what_nobody_took() {
    // Loom reports what leaks.
    model(|| {
        let intake = Arc::new(Intake::<Model>::default());
        let other = intake.clone();
        let producer = thread::spawn(move || other.push(1, Waiter::default()));
        intake.push(2, Waiter::default());
        drop(intake);
        producer.join().unwrap();
    });
}

#[test]
fn admission_never_exceeds_its_bound() {
    model(|| {
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
    model(|| {
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
    model(|| {
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
