//! A row copied into its part of the batch, the rest of which is filled up.

use std::mem::MaybeUninit;

use crate::row::{MAX_RANK, Row};
use crate::widths::Side;

/// The widest number: complex of two doubles.
pub const MAX_SIZE: usize = 16;

/// The bytes of one number, to fill memory with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    bytes: [u8; MAX_SIZE],
    size: usize,
    /// All its bytes are the same.
    even: bool,
}

impl Pattern {
    /// Of a number's bytes, from 1 to [`MAX_SIZE`].
    pub fn new(number: &[u8]) -> Option<Self> {
        if number.is_empty() || number.len() > MAX_SIZE {
            return None;
        }
        let mut bytes = [0; MAX_SIZE];
        bytes[..number.len()].copy_from_slice(number);
        Some(Self {
            bytes,
            size: number.len(),
            even: number.iter().all(|&byte| byte == number[0]),
        })
    }

    /// A number of this size whose bytes are 0.
    pub fn zeros(size: usize) -> Option<Self> {
        Self::new(&[0; MAX_SIZE][..size.min(MAX_SIZE)]).filter(|_| size <= MAX_SIZE)
    }

    /// How many bytes it has.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.size]
    }

    /// Fills memory whose length is a multiple of its size.
    pub fn fill(&self, memory: &mut [MaybeUninit<u8>]) {
        let number = self.bytes();
        if self.even {
            set(memory, number[0]);
            return;
        }
        match self.size {
            8 => fill_with::<8>(memory, number),
            4 => fill_with::<4>(memory, number),
            2 => fill_with::<2>(memory, number),
            _ => {
                for place in memory.chunks_exact_mut(self.size) {
                    write(place, number);
                }
            }
        }
    }
}

/// Sets every byte.
pub fn set(memory: &mut [MaybeUninit<u8>], byte: u8) {
    // SAFETY: the memory is ours to write, all of it.
    unsafe { memory.as_mut_ptr().write_bytes(byte, memory.len()) };
}

/// Of a length known beforehand, so that it becomes wide stores.
fn fill_with<const SIZE: usize>(memory: &mut [MaybeUninit<u8>], number: &[u8]) {
    let mut known = [MaybeUninit::new(0); SIZE];
    write(&mut known, number);
    for place in memory.chunks_exact_mut(SIZE) {
        place.copy_from_slice(&known);
    }
}

fn write(place: &mut [MaybeUninit<u8>], number: &[u8]) {
    for (to, &from) in place.iter_mut().zip(number) {
        to.write(from);
    }
}

/// The part of a batch that is one row's: its shape, and what the row does not fill.
#[derive(Clone, Debug)]
pub struct Frame {
    rank: usize,
    shape: [usize; MAX_RANK],
    /// Where padding goes.
    side: Side,
    pattern: Pattern,
    bytes: usize,
}

impl Frame {
    /// A row's part of this shape, of numbers as large as the pattern; `None` where that overflows, or has more
    /// than [`MAX_RANK`] axes.
    pub fn new(shape: &[usize], side: Side, pattern: Pattern) -> Option<Self> {
        if shape.len() > MAX_RANK {
            return None;
        }
        // Also of what is empty, the parts must not overflow.
        let mut sizes = shape.iter().map(|&one| one.max(1));
        let most = sizes.try_fold(pattern.size, usize::checked_mul)?;
        if most > isize::MAX as usize {
            return None;
        }
        let mut frame = Self {
            rank: shape.len(),
            shape: [1; MAX_RANK],
            side,
            pattern,
            bytes: shape.iter().product::<usize>() * pattern.size,
        };
        frame.shape[..shape.len()].copy_from_slice(shape);
        Some(frame)
    }

    /// How many bytes it takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many numbers there are along each axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape[..self.rank]
    }

    /// Whether a row goes in: as many axes, none longer.
    pub fn takes(&self, row: &Row) -> bool {
        row.rank == self.rank
            && row
                .shape()
                .iter()
                .zip(self.shape())
                .all(|(own, room)| own <= room)
    }

    /// Copies a row of numbers into its part and fills the rest: every byte of `part` is written.
    ///
    /// # Panics
    ///
    /// If `part` has another length than [`bytes`](Self::bytes), or the row does not go in.
    ///
    /// # Safety
    ///
    /// The row's numbers are as large as the pattern, and what [`Row::new`] was promised holds; `part` does not
    /// overlap the row.
    pub unsafe fn place(&self, row: &Row, part: &mut [MaybeUninit<u8>]) {
        assert!(part.len() == self.bytes && self.takes(row));
        if part.is_empty() {
            return;
        }
        let size = self.pattern.size;
        if self.rank == 1 && row.strides[0] == size as isize {
            // What most rows are: a list of numbers.
            let (padding, body) = self.split(part, row.shape[0] * size);
            // SAFETY: the row's numbers follow one another without gaps, and the body has room for them.
            unsafe { copy(row.data, body) };
            self.pattern.fill(padding);
            return;
        }
        // SAFETY: the row goes in, and the whole of the part is the frame's.
        unsafe { self.place_from(0, row.data, row, part) }
    }

    /// Padding, and a body of so many bytes.
    fn split<'a>(
        &self,
        part: &'a mut [MaybeUninit<u8>],
        bytes: usize,
    ) -> (&'a mut [MaybeUninit<u8>], &'a mut [MaybeUninit<u8>]) {
        match self.side {
            Side::Left => part.split_at_mut(part.len() - bytes),
            Side::Right => {
                let (body, padding) = part.split_at_mut(bytes);
                (padding, body)
            }
        }
    }

    /// # Safety
    ///
    /// As for `place`; `data` is where the row's numbers of the axes from `axis` on begin, and `part` the
    /// frame's part of them, which is not empty.
    unsafe fn place_from(
        &self,
        axis: usize,
        data: *const u8,
        row: &Row,
        part: &mut [MaybeUninit<u8>],
    ) {
        let size = self.pattern.size;
        if axis == self.rank {
            // SAFETY: one number is left, which `data` is promised to point to; `part` has room for it.
            unsafe { data.copy_to_nonoverlapping(part.as_mut_ptr().cast(), size) };
            return;
        }
        let length = row.shape[axis];
        let each = part.len() / self.shape[axis];
        let (padding, body) = self.split(part, length * each);
        self.pattern.fill(padding);
        if body.is_empty() {
            return;
        }
        let same_from_here = row.shape[axis + 1..self.rank] == self.shape[axis + 1..self.rank];
        if same_from_here && row.is_dense_from(axis, size) {
            // SAFETY: the numbers from here on follow one another without gaps, and are as many as the body has
            // room for: `length` times those of the inner axes, which are the frame's.
            unsafe { copy(data, body) };
            return;
        }
        let stride = row.strides[axis];
        if axis + 1 == self.rank {
            // SAFETY: `length` numbers lie `stride` bytes apart, and the body has room for as many.
            unsafe { copy_strided(data, stride, size, body) };
            return;
        }
        for (index, inner) in body.chunks_exact_mut(each).enumerate() {
            // Within the row, or where it has no numbers nowhere that is read.
            let data = data.wrapping_offset(index as isize * stride);
            // SAFETY: as for the whole; `data` is where the numbers of this index begin.
            unsafe { self.place_from(axis + 1, data, row, inner) };
        }
    }
}

/// From so many bytes on a row goes past the caches: a batch of such rows has no room in them, and what is written
/// to a cache is read there first.
#[cfg(all(target_arch = "x86_64", not(miri)))]
const LARGE: usize = 128 * 1024;

/// Copies as many bytes as there is room for.
///
/// # Safety
///
/// As many can be read at `data`, and they do not overlap the room.
unsafe fn copy(data: *const u8, room: &mut [MaybeUninit<u8>]) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if room.len() >= LARGE {
        // SAFETY: as promised to us.
        unsafe { copy_past_caches(data, room) };
        return;
    }
    // SAFETY: as promised to us.
    unsafe { data.copy_to_nonoverlapping(room.as_mut_ptr().cast(), room.len()) };
}

/// # Safety
///
/// As for `copy`.
#[cfg(all(target_arch = "x86_64", not(miri)))]
unsafe fn copy_past_caches(data: *const u8, room: &mut [MaybeUninit<u8>]) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};
    const WIDE: usize = size_of::<__m128i>();
    const LINE: usize = 4 * WIDE;
    let begin: *mut u8 = room.as_mut_ptr().cast();
    let before = begin.align_offset(LINE).min(room.len());
    let lines = (room.len() - before) / LINE;
    let after = before + lines * LINE;
    // SAFETY: the three parts follow one another and are all of the room; what is written to the middle one is at
    // places that are a multiple of 64. The fence orders these stores before everything that follows, also for
    // other threads.
    unsafe {
        data.copy_to_nonoverlapping(begin, before);
        for line in 0..lines {
            let at = before + line * LINE;
            let (from, to): (*const __m128i, *mut __m128i) =
                (data.add(at).cast(), begin.add(at).cast());
            let four = [
                _mm_loadu_si128(from),
                _mm_loadu_si128(from.add(1)),
                _mm_loadu_si128(from.add(2)),
                _mm_loadu_si128(from.add(3)),
            ];
            for (place, one) in four.into_iter().enumerate() {
                _mm_stream_si128(to.add(place), one);
            }
        }
        _mm_sfence();
        data.add(after)
            .copy_to_nonoverlapping(begin.add(after), room.len() - after);
    }
}

/// Copies as many numbers as `body` has room for.
///
/// # Safety
///
/// They lie at `data`, `stride` bytes apart, each of `size` bytes.
unsafe fn copy_strided(data: *const u8, stride: isize, size: usize, body: &mut [MaybeUninit<u8>]) {
    if stride == 0 {
        let mut number = [0; MAX_SIZE];
        // SAFETY: there is a number at `data`, of at most as many bytes.
        unsafe { data.copy_to_nonoverlapping(number.as_mut_ptr(), size) };
        if let Some(pattern) = Pattern::new(&number[..size]) {
            pattern.fill(body);
        }
        return;
    }
    macro_rules! copy {
        ($size:expr) => {
            for (index, place) in body.chunks_exact_mut($size).enumerate() {
                let from = data.wrapping_offset(index as isize * stride);
                // SAFETY: a number of the row; the place has room for one.
                unsafe { from.copy_to_nonoverlapping(place.as_mut_ptr().cast(), $size) };
            }
        };
    }
    match size {
        1 => copy!(1),
        2 => copy!(2),
        4 => copy!(4),
        8 => copy!(8),
        _ => copy!(size),
    }
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
