//! Counters and histograms of one batcher, and their frozen snapshot.

use crate::clock::Nanos;
use crate::scheduler::policy::Reason;

/// Sub-buckets per power of two: 8 of them keep the relative error of a percentile below 1/16.
const SUB_BITS: u32 = 3;
const SUB: usize = 1 << SUB_BITS;
const BUCKETS: usize = (64 - SUB_BITS as usize) * SUB + SUB;

/// Counts of `u64` values in buckets that grow with the value (log-linear, as in G. Tene's
/// HdrHistogram): exact below 8, within 1/16 of the value above.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Box<[u64; BUCKETS]>,
    count: u64,
    sum: u128,
    min: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: Box::new([0; BUCKETS]),
            count: 0,
            sum: 0,
            min: u64::MAX,
            max: 0,
        }
    }
}

fn bucket(value: u64) -> usize {
    if value < SUB as u64 {
        return value as usize;
    }
    let shift = 63 - value.leading_zeros() - SUB_BITS;
    let sub = (value >> shift) as usize - SUB;
    (shift as usize + 1) * SUB + sub
}

/// The middle of a bucket's values.
fn middle(bucket: usize) -> f64 {
    if bucket < SUB {
        return bucket as f64;
    }
    let shift = (bucket / SUB - 1) as u32;
    let low = ((SUB + bucket % SUB) as u64) << shift;
    low as f64 + ((1_u64 << shift) - 1) as f64 / 2.0
}

impl Histogram {
    /// Counts one value.
    #[inline]
    pub fn add(&mut self, value: u64) {
        self.counts[bucket(value)] += 1;
        self.count += 1;
        self.sum += u128::from(value);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    /// How many values.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their mean; 0 without any.
    pub fn mean(&self) -> f64 {
        if self.count == 0 {
            0.0
        } else {
            self.sum as f64 / self.count as f64
        }
    }

    /// The smallest; 0 without any.
    pub fn min(&self) -> u64 {
        if self.count == 0 { 0 } else { self.min }
    }

    /// The largest; 0 without any.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The value that `p` per cent of all do not exceed (nearest rank), within 1/16; 0 without any.
    pub fn percentile(&self, p: f64) -> f64 {
        let rank = ((p / 100.0 * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        if rank == 1 || rank >= self.count {
            let exact = if rank >= self.count {
                self.max
            } else {
                self.min()
            };
            return exact as f64;
        }
        let mut seen = 0;
        for (bucket, &n) in self.counts.iter().enumerate() {
            seen += n;
            if n > 0 && seen >= rank {
                return middle(bucket).clamp(self.min() as f64, self.max as f64);
            }
        }
        0.0
    }

    /// The buckets that are not empty: a value in the middle of each, and its count.
    pub fn buckets(&self) -> Vec<(f64, u64)> {
        let all = self.counts.iter().enumerate();
        all.filter(|&(_, &n)| n > 0)
            .map(|(bucket, &n)| (middle(bucket), n))
            .collect()
    }
}

/// What the scheduler counts, under its own lock.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counters {
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    /// Gave way at a full queue, newcomers included.
    pub(crate) shed: u64,
    /// Of those that failed, whose time was over before they were sealed.
    pub(crate) expired: u64,
    /// How many were inside at once, as seen whenever some were answered; but not of a lone call that ran at once.
    pub(crate) inside: Histogram,
    /// Given up by their callers while in flight.
    pub(crate) forsaken: u64,
    pub(crate) in_flight: u64,
    pub(crate) batches: u64,
    pub(crate) reasons: [u64; Reason::ALL.len()],
    pub(crate) sizes: Histogram,
    pub(crate) waits: Histogram,
    pub(crate) runs: Histogram,
}

/// All figures of one batcher at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Every submit so far: the sum of the next six.
    pub submitted: u64,
    /// Answered with a result.
    pub answered: u64,
    /// Answered with an error.
    pub failed: u64,
    /// Of those that failed, whose time was over before they were sealed.
    pub expired: u64,
    /// Given up by their callers before they were answered.
    pub cancelled: u64,
    /// Refused at submit.
    pub rejected: u64,
    /// Gave way at a full queue: of those pending, which are counted as failed, and of those that were refused.
    pub shed: u64,
    /// Waiting for a batch.
    pub pending: u64,
    /// In a sealed batch, unanswered.
    pub in_flight: u64,
    /// Batches sealed.
    pub batches: u64,
    /// Batches by what made them leave, in the order of [`Reason::ALL`].
    pub reasons: [u64; Reason::ALL.len()],
    /// Requests per batch.
    pub sizes: Histogram,
    /// Nanoseconds from submit to seal, per request.
    pub waits: Histogram,
    /// Nanoseconds from seal to the last answer, per batch.
    pub runs: Histogram,
    /// How many were inside at once (waiting for room, pending or in flight), as seen whenever some were answered;
    /// but not of calls that found nobody else and ran at once.
    pub inside: Histogram,
    /// How many batches may run at once.
    pub slots: usize,
    /// Nanoseconds since the batcher was made.
    pub open: Nanos,
    /// How long the oldest pending request has waited by now.
    pub oldest: Option<Nanos>,
    /// Batches that were slow.
    pub slow: u64,
    /// Of what handlers were given, what was of use, and all of it; see [`Batch::padded`](crate::Batch::padded).
    pub padding: (u64, u64),
}

/// Nanoseconds from one moment to another; 0 if it was the other way round.
#[inline]
pub(crate) fn since(from: Nanos, to: Nanos) -> u64 {
    to.saturating_sub(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_monotone_and_close() {
        let mut last = 0;
        for value in (0..2000).chain([1 << 20, (1 << 40) + 12345, u64::MAX - 1, u64::MAX]) {
            let at = bucket(value);
            assert!(at >= last && at < BUCKETS, "{value} in {at}");
            last = at;
            let error = (middle(at) - value as f64).abs();
            assert!(error <= value as f64 / 16.0, "{value}: {}", middle(at));
        }
    }

    #[test]
    fn percentiles_of_a_known_set() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(50.0), 0.0);
        assert_eq!(
            (histogram.mean(), histogram.min(), histogram.max()),
            (0.0, 0, 0)
        );
        (1..=4).for_each(|value| histogram.add(value));
        assert_eq!(histogram.percentile(0.0), 1.0);
        assert_eq!(histogram.percentile(50.0), 2.0);
        assert_eq!(histogram.percentile(75.0), 3.0);
        assert_eq!(histogram.percentile(100.0), 4.0);
        assert_eq!(histogram.mean(), 2.5);
        assert_eq!(
            histogram.buckets(),
            vec![(1.0, 1), (2.0, 1), (3.0, 1), (4.0, 1)]
        );
    }
}
