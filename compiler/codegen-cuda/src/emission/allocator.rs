//! The allocator of a block's shared memory: which tile has which bytes, for how long.

use std::collections::BTreeSet;

use crate::decisions::shared_form::ALIGN;

/// A range of bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Range {
    /// First byte.
    pub at: u32,
    /// Number of bytes.
    pub bytes: u32,
}

impl Range {
    /// Whether they have a byte in common.
    pub(crate) fn meets(&self, other: &Range) -> bool {
        self.at < other.at + other.bytes && other.at < self.at + self.bytes
    }
}

/// Ranges in use, first fit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allocator {
    used: BTreeSet<Range>,
    peak: u32,
}

impl Allocator {
    /// A free range that starts at a multiple of `align`, a power of two.
    pub(crate) fn take(&mut self, bytes: u32, align: u32) -> Range {
        let (bytes, align) = (bytes.next_multiple_of(ALIGN), align.max(ALIGN));
        let mut at: u32 = 0;
        for range in &self.used {
            if at + bytes <= range.at {
                break;
            }
            at = (range.at + range.bytes).next_multiple_of(align);
        }
        let range = Range { at, bytes };
        self.used.insert(range);
        self.peak = self.peak.max(at + bytes);
        range
    }

    /// The range may be taken again. What still reads it is the business of [`Hazards`].
    pub(crate) fn give(&mut self, range: Range) {
        self.used.remove(&range);
    }

    /// Bytes up to the end of all ranges that were ever taken.
    pub(crate) fn peak(&self) -> u32 {
        self.peak
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_reused_and_never_overlap() {
        let mut shared = Allocator::default();
        let (a, b) = (shared.take(100, ALIGN), shared.take(1000, ALIGN));
        assert!(!a.meets(&b));
        shared.give(a);
        let c = shared.take(64, ALIGN);
        assert_eq!((c.at, shared.peak()), (0, 128 + 1024));
        assert_eq!(shared.take(4, ALIGN).at, 128 + 1024);
        shared.give(b);
        assert_eq!((shared.take(1024, 1024).at, shared.take(4, ALIGN).at), (2048, 128));
    }
}
