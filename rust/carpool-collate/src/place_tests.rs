//! Placing checked against a reference that moves one number at a time.

use proptest::prelude::*;

use super::*;

/// A row within a larger memory: any strides, also negative and zero ones.
#[derive(Clone, Debug)]
struct Case {
    size: usize,
    shape: Vec<usize>,
    room: Vec<usize>,
    steps: Vec<isize>,
    left: bool,
}

fn cases() -> impl Strategy<Value = Case> {
    let axes = proptest::collection::vec((0usize..5, 0usize..4, -2isize..4), 0..4);
    let sizes = prop_oneof![Just(1), Just(2), Just(4), Just(8), Just(16)];
    (sizes, axes, any::<bool>(), any::<bool>()).prop_map(|(size, axes, left, dense)| {
        let shape: Vec<usize> = axes.iter().map(|axis| axis.0).collect();
        let mut steps: Vec<isize> = axes.iter().map(|axis| axis.2).collect();
        if dense {
            let mut step = 1;
            for at in (0..shape.len()).rev() {
                steps[at] = step;
                step *= shape[at].max(1) as isize;
            }
        }
        Case {
            size,
            room: axes.iter().map(|axis| axis.0 + axis.1).collect(),
            shape,
            steps,
            left,
        }
    })
}

fn indices(shape: &[usize]) -> Vec<Vec<usize>> {
    shape.iter().fold(vec![vec![]], |all, &length| {
        let longer = all.into_iter().flat_map(|index: Vec<usize>| {
            (0..length).map(move |next| [index.clone(), vec![next]].concat())
        });
        longer.collect()
    })
}

fn offset(index: &[usize], steps: &[isize]) -> isize {
    index
        .iter()
        .zip(steps)
        .map(|(&at, step)| at as isize * step)
        .sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 24 } else { 1000 }))]

    #[test]
    fn every_number_comes_to_its_place(case in cases()) {
        let Case { size, shape, room, steps, left } = case;
        // Memory of exactly the numbers that there are, so that a sanitizer sees every step beyond.
        let reached: Vec<isize> = indices(&shape).iter().map(|index| offset(index, &steps)).collect();
        let least = reached.iter().copied().min().unwrap_or(0);
        let most = reached.iter().copied().max().unwrap_or(-1);
        let count = usize::try_from(most - least + 1).unwrap_or(0);
        let memory: Vec<u8> = (0..count * size).map(|at| (at * 7 + 3) as u8).collect();
        let begin = (-least) as usize * size;
        let strides: Vec<isize> = steps.iter().map(|step| step * size as isize).collect();
        let pad: Vec<u8> = (0..size).map(|at| 200 + at as u8).collect();
        let side = if left { Side::Left } else { Side::Right };
        let frame = Frame::new(&room, side, Pattern::new(&pad).expect("a size that there is"));
        let frame = frame.expect("a small one");

        let data = if reached.is_empty() { memory.as_ptr() } else { memory[begin..].as_ptr() };
        let mut made = vec![MaybeUninit::uninit(); frame.bytes()];
        // SAFETY: `memory` has every number that the strides lead to.
        unsafe {
            let row = Row::new(data, &shape, &strides).expect("few axes");
            frame.place(&row, &mut made);
        }

        let mut expected: Vec<u8> = pad.repeat(frame.bytes() / size);
        for index in indices(&shape) {
            let from = (offset(&index, &steps) - least) as usize * size;
            let mut to = 0;
            for (axis, &at) in index.iter().enumerate() {
                let skipped = if left { room[axis] - shape[axis] } else { 0 };
                to = to * room[axis] + at + skipped;
            }
            expected[to * size..(to + 1) * size].copy_from_slice(&memory[from..from + size]);
        }
        // SAFETY: every byte is written, which is what this test (under miri) is for.
        let made: Vec<u8> = made.iter().map(|byte| unsafe { byte.assume_init() }).collect();
        prop_assert_eq!(made, expected);
    }

    #[test]
    fn what_is_kept_is_one_end(length in 0usize..9, kept in 0usize..9, step in -3isize..4, left: bool) {
        let kept = kept.min(length);
        let memory: Vec<u8> = (0..64).collect();
        let end = if left { Side::Left } else { Side::Right };
        let frame = Frame::new(&[kept], Side::Right, Pattern::zeros(1).expect("a size")).expect("small");
        let mut made = vec![MaybeUninit::uninit(); kept];
        // SAFETY: up to 8 steps of at most 3 in both directions stay within the 64 bytes.
        unsafe {
            let mut row = Row::new(memory[30..].as_ptr(), &[length], &[step]).expect("one axis");
            row.keep(0, kept, end);
            frame.place(&row, &mut made);
        }
        let all: Vec<u8> = (0..length as isize).map(|at| (30 + at * step) as u8).collect();
        let expected = if left { &all[length - kept..] } else { &all[..kept] };
        // SAFETY: as above.
        let made: Vec<u8> = made.iter().map(|byte| unsafe { byte.assume_init() }).collect();
        prop_assert_eq!(&made[..], expected);
    }
}

#[test]
fn frames_that_overflow_are_none() {
    let pattern = Pattern::zeros(8).expect("a size");
    assert!(Frame::new(&[usize::MAX, 2], Side::Right, pattern).is_none());
    assert!(Frame::new(&[usize::MAX / 4, 0], Side::Right, pattern).is_none());
    assert!(Frame::new(&[1; MAX_RANK + 1], Side::Right, pattern).is_none());
    assert!(Frame::new(&[2; MAX_RANK], Side::Right, pattern).is_some());
}

#[test]
fn patterns_have_one_to_sixteen_bytes() {
    assert!(Pattern::new(&[]).is_none());
    assert!(Pattern::new(&[1; 17]).is_none());
    assert!(Pattern::zeros(17).is_none());
    assert_eq!(
        Pattern::zeros(3).map(|one| one.bytes().to_vec()),
        Some(vec![0; 3])
    );
}

#[test]
fn a_row_that_does_not_go_in_is_refused() {
    let frame = Frame::new(&[2], Side::Right, Pattern::zeros(1).expect("a size")).expect("small");
    let memory = [0u8; 4];
    // SAFETY: the memory has three numbers.
    let row = unsafe { Row::new(memory.as_ptr(), &[3], &[1]) }.expect("one axis");
    assert!(!frame.takes(&row));
    let placed = std::panic::catch_unwind(|| {
        let mut part = [MaybeUninit::uninit(); 2];
        // SAFETY: it is refused before anything is copied.
        unsafe { frame.place(&row, &mut part) };
    });
    assert!(placed.is_err());
}

#[test]
fn large_rows_are_the_same_wherever_they_begin() {
    let memory: Vec<u8> = (0..300_000usize).map(|at| (at * 31 % 251) as u8).collect();
    for (from, length, skip, width) in [
        (0, 131_072, 0, 131_072),
        (1, 131_075, 3, 131_100),
        (7, 200_001, 61, 200_001),
        (3, 131_071, 1, 131_071),
    ] {
        let pattern = Pattern::new(&[9]).expect("a size");
        let frame = Frame::new(&[width], Side::Right, pattern).expect("not too large");
        let mut made = vec![MaybeUninit::new(0); skip + width];
        // SAFETY: the memory has as many numbers from there on.
        unsafe {
            let row = Row::new(memory[from..].as_ptr(), &[length], &[1]).expect("one axis");
            frame.place(&row, &mut made[skip..]);
        }
        // SAFETY: all of it had a value from the beginning.
        let made: Vec<u8> = made
            .iter()
            .map(|byte| unsafe { byte.assume_init() })
            .collect();
        assert!(made[..skip].iter().all(|&byte| byte == 0));
        assert_eq!(made[skip..skip + length], memory[from..from + length]);
        assert!(made[skip + length..].iter().all(|&byte| byte == 9));
    }
}
