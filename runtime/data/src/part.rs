//! Which batches of an optimizer step a process reads, where several processes share the step.

/// Of the batches of a step, which are numbered over all ranks, those of one rank: `batches` from number `rank * batches` on.
///
/// Each rank goes over the rows of all others without reading them, so that a place in the data is the same on every
/// rank and says nothing of how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// From 0.
    pub rank: usize,
    /// Ranks that share a step; at least 1.
    pub ranks: usize,
    /// Batches of a step that each rank reads; at least 1.
    pub batches: usize,
}

impl Part {
    /// Of one process: every batch is its own.
    pub const WHOLE: Part = Part { rank: 0, ranks: 1, batches: 1 };
}

/// Where in a step the next batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    part: Part,
    /// Batches of this step that were read.
    done: usize,
}

impl Turn {
    /// At the beginning of a step.
    pub(crate) fn new(part: Part) -> Self {
        Self { part, done: 0 }
    }

    /// From here on a step begins.
    pub(crate) fn begin(&mut self) {
        self.done = 0;
    }

    /// Batches of other ranks that lie before the next one.
    pub(crate) fn before(&self) -> usize {
        if self.done == 0 { self.part.rank * self.part.batches } else { 0 }
    }

    /// A batch was read; the batches of other ranks that lie between it and what comes next.
    pub(crate) fn after(&mut self) -> usize {
        self.done += 1;
        if self.done < self.part.batches {
            return 0;
        }
        self.done = 0;
        (self.part.ranks - 1 - self.part.rank) * self.part.batches
    }
}
