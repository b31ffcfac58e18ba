//! Hazards: where threads have to wait for each other before they read or write the same memory.
//!
//! Between two barriers no element may be written by one thread and touched by another. Every access of the emitted
//! text is announced here, in program order, and the answer says whether a barrier has to come before it. Loops are
//! emitted again until what is known at their start covers what is known at their end, so a barrier missing around
//! the back edge shows. Asynchronous copies add one state: a range is pending until they are waited for.
//!
//! Global memory needs the same care within a block, for parameters that are stored to. Two accesses through the
//! same view and layout touch an element from the same thread, so they are ordered anyway; but not if they are of
//! different iterations of a loop, in which the same view is at another place, unless no two iterations share an
//! element.

use std::collections::BTreeSet;

use super::allocator::Range;

/// An access since the last barrier.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Access {
    SharedRead(Range),
    SharedWrite(Range),
    /// Read in a loop by warps that then arrived at the mbarrier of the pipeline of that number.
    SharedReleased(Range, u32),
    /// Parameter, and what tells its element-to-thread maps apart.
    GlobalRead(u32, String),
    GlobalWrite(u32, String),
}

/// The map of an access of an earlier iteration, which equals no other.
fn earlier(map: &str) -> String {
    const MARK: &str = " earlier";
    if map.ends_with(MARK) { map.to_string() } else { format!("{map}{MARK}") }
}

/// End of the map of a view whose elements belong to one iteration of the loop with that counter.
pub(crate) fn iteration_of(counter: &str) -> String {
    format!(" in an iteration of {counter}")
}

/// What has to come before an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Before {
    /// No other thread's access can conflict.
    Nothing,
    /// `__syncthreads`: another thread may still read or write the same bytes.
    Barrier,
    /// The end of the asynchronous copies, then a barrier.
    Arrival,
}

/// What may be under way at a point of the program.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Hazards {
    accesses: BTreeSet<Access>,
    pending: BTreeSet<Range>,
    /// Written, or copied to, for wgmma or before TMA copies, which need a fence before the barrier (`fence_async`).
    unfenced: BTreeSet<Range>,
    /// Written by threads, themselves or by asynchronous copies, without a fence since.
    written: BTreeSet<Range>,
    /// Read by threads, of which nobody has been told.
    read: BTreeSet<Range>,
    /// All threads have met since the kernel began, and know of its mbarriers.
    met: bool,
}

impl Hazards {
    /// Everything that is under way here or there.
    pub(crate) fn join(&mut self, other: &Hazards) {
        self.accesses.extend(other.accesses.iter().cloned());
        self.pending.extend(&other.pending);
        self.unfenced.extend(&other.unfenced);
        self.written.extend(&other.written);
        self.read.extend(&other.read);
        self.met &= other.met;
    }

    /// An iteration has ended that began as `start`, of the loop with that counter: its views are at other places in
    /// the next iteration. Those of which no two iterations have an element in common can go on under the same map.
    pub(crate) fn next_round(&mut self, start: &Hazards, counter: &str) {
        let apart = iteration_of(counter);
        let accesses = std::mem::take(&mut self.accesses);
        self.accesses = accesses
            .into_iter()
            .map(|access| match access {
                fresh if start.accesses.contains(&fresh) => fresh,
                Access::GlobalRead(_, ref map) | Access::GlobalWrite(_, ref map) if map.ends_with(&apart) => {
                    access
                }
                Access::GlobalRead(param, map) => Access::GlobalRead(param, earlier(&map)),
                Access::GlobalWrite(param, map) => Access::GlobalWrite(param, earlier(&map)),
                shared @ (Access::SharedRead(_) | Access::SharedWrite(_) | Access::SharedReleased(..)) => {
                    shared
                }
            })
            .collect();
    }

    /// All threads have met.
    pub(crate) fn barrier(&mut self) {
        self.accesses.clear();
        self.met = true;
    }

    /// All copies have arrived. Others than the threads that started them need a barrier.
    pub(crate) fn arrival(&mut self) {
        self.pending.clear();
    }

    /// A fence: wgmma and TMA copies see all that was written before. False if there is nothing new for them.
    pub(crate) fn fence(&mut self) -> bool {
        let before = self.unfenced.len();
        let under_way = |range: &Range| self.pending.iter().any(|p| p.meets(range));
        self.unfenced.retain(under_way);
        let new = self.unfenced.len() < before;
        if new {
            self.written.retain(under_way);
            self.read.clear();
        }
        new
    }

    /// Whether TMA copies into the range have to be told of what threads wrote there.
    pub(crate) fn written_by_threads(&self, range: Range) -> bool {
        self.written.iter().any(|w| w.meets(&range))
    }

    /// What is written to the range, or under way to it, is read by wgmma.
    pub(crate) fn note_unfenced(&mut self, range: Range) {
        self.unfenced.insert(range);
    }

    /// Whether asynchronous copies may be under way.
    pub(crate) fn copying(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Before reading a range. The caller then does what is asked and calls [`Hazards::note_read`].
    pub(crate) fn before_read(&self, range: Range) -> Before {
        if self.pending.iter().any(|p| p.meets(&range)) {
            return Before::Arrival;
        }
        let conflict = |a: &Access| matches!(a, Access::SharedWrite(r) if r.meets(&range));
        if self.accesses.iter().any(conflict) { Before::Barrier } else { Before::Nothing }
    }

    /// Before writing a range, or starting a copy into it.
    pub(crate) fn before_write(&self, range: Range) -> Before {
        self.before_fill(range, None)
    }

    /// Before writing a range; if by TMA copies of that pipeline, they wait for what was released to it themselves.
    pub(crate) fn before_fill(&self, range: Range, pipeline: Option<u32>) -> Before {
        if self.pending.iter().any(|p| p.meets(&range)) {
            return Before::Arrival;
        }
        let conflict = |a: &Access| match a {
            Access::SharedWrite(r) | Access::SharedRead(r) => r.meets(&range),
            Access::SharedReleased(r, to) => r.meets(&range) && !(*r == range && Some(*to) == pipeline),
            Access::GlobalRead(..) | Access::GlobalWrite(..) => false,
        };
        let unmet = pipeline.is_some() && !self.met;
        if unmet || self.accesses.iter().any(conflict) { Before::Barrier } else { Before::Nothing }
    }

    /// Before loading from a parameter that is stored to as well.
    pub(crate) fn before_load(&self, param: u32, map: &str) -> Before {
        let conflict = |a: &Access| matches!(a, Access::GlobalWrite(p, m) if *p == param && m != map);
        if self.accesses.iter().any(conflict) { Before::Barrier } else { Before::Nothing }
    }

    /// Before storing to a parameter.
    pub(crate) fn before_store(&self, param: u32, map: &str) -> Before {
        let conflict = |a: &Access| matches!(a, Access::GlobalWrite(p, m) | Access::GlobalRead(p, m) if *p == param && m != map);
        if self.accesses.iter().any(conflict) { Before::Barrier } else { Before::Nothing }
    }

    /// Whether TMA copies into the range have to be told of what threads read there.
    pub(crate) fn read_by_threads(&self, range: Range) -> bool {
        self.read.iter().any(|r| r.meets(&range))
    }

    /// A read by threads.
    pub(crate) fn note_read(&mut self, range: Range) {
        self.accesses.insert(Access::SharedRead(range));
        self.read.insert(range);
    }

    /// A read by products of warpgroups, which have the same way to memory as TMA copies.
    pub(crate) fn note_product_read(&mut self, range: Range) {
        self.accesses.insert(Access::SharedRead(range));
    }

    /// All reads of a range were released to a pipeline.
    pub(crate) fn note_released(&mut self, range: Range, pipeline: u32) {
        if self.accesses.remove(&Access::SharedRead(range)) {
            self.accesses.insert(Access::SharedReleased(range, pipeline));
        }
    }

    pub(crate) fn note_write(&mut self, range: Range) {
        self.accesses.insert(Access::SharedWrite(range));
        self.note_written(range);
    }

    pub(crate) fn note_copy(&mut self, range: Range) {
        self.pending.insert(range);
        self.note_written(range);
    }

    /// Threads have written a range, or copied to it, and met at a barrier since.
    pub(crate) fn note_written(&mut self, range: Range) {
        self.written.insert(range);
    }

    pub(crate) fn note_load(&mut self, param: u32, map: &str) {
        self.accesses.insert(Access::GlobalRead(param, map.to_string()));
    }

    pub(crate) fn note_store(&mut self, param: u32, map: &str) {
        self.accesses.insert(Access::GlobalWrite(param, map.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conflicting_accesses_ask_for_a_barrier() {
        let mut hazards = Hazards::default();
        let (a, b) = (Range { at: 0, bytes: 128 }, Range { at: 128, bytes: 128 });
        hazards.note_write(a);
        assert_eq!(hazards.before_read(b), Before::Nothing);
        assert_eq!(hazards.before_read(a), Before::Barrier);
        hazards.barrier();
        assert_eq!(hazards.before_read(a), Before::Nothing);
        hazards.note_read(a);
        assert_eq!((hazards.before_read(a), hazards.before_write(a)), (Before::Nothing, Before::Barrier));
        hazards.note_copy(b);
        assert_eq!(hazards.before_read(b), Before::Arrival);
    }

    #[test]
    fn products_are_told_once_and_of_nothing_that_is_under_way() {
        let mut hazards = Hazards::default();
        let (a, b) = (Range { at: 0, bytes: 128 }, Range { at: 128, bytes: 128 });
        assert!(!hazards.fence());
        hazards.note_unfenced(a);
        hazards.note_copy(b);
        hazards.note_unfenced(b);
        assert!(hazards.fence());
        assert!(!hazards.fence());
        hazards.arrival();
        assert!(hazards.fence());
        assert!(!hazards.fence());
    }

    #[test]
    fn what_was_released_to_a_pipeline_is_its_own_to_fill() {
        let mut hazards = Hazards::default();
        let (a, b) = (Range { at: 0, bytes: 256 }, Range { at: 128, bytes: 256 });
        // Nobody knows of its mbarriers yet.
        assert_eq!(hazards.before_fill(a, Some(1)), Before::Barrier);
        assert_eq!(hazards.before_write(a), Before::Nothing);
        hazards.barrier();
        assert_eq!(hazards.before_fill(a, Some(1)), Before::Nothing);
        hazards.note_read(a);
        assert_eq!(hazards.before_fill(a, Some(1)), Before::Barrier);
        hazards.note_released(a, 1);
        assert_eq!(hazards.before_fill(a, Some(1)), Before::Nothing);
        assert_eq!(hazards.before_fill(a, Some(0)), Before::Barrier);
        // Its places are others.
        assert_eq!(hazards.before_fill(b, Some(1)), Before::Barrier);
        assert_eq!(hazards.before_write(a), Before::Barrier);
        hazards.barrier();
        hazards.note_released(a, 1);
        assert_eq!(hazards.before_write(a), Before::Nothing);
    }

    #[test]
    fn tensor_copies_are_told_of_what_threads_did() {
        let mut hazards = Hazards::default();
        let (a, b) = (Range { at: 0, bytes: 128 }, Range { at: 128, bytes: 128 });
        hazards.note_write(a);
        hazards.barrier();
        hazards.note_read(b);
        hazards.note_product_read(a);
        assert!(hazards.written_by_threads(a) && !hazards.written_by_threads(b));
        assert!(!hazards.read_by_threads(a) && hazards.read_by_threads(b));
        // A fence for something else is one for this.
        hazards.note_unfenced(b);
        assert!(hazards.fence());
        assert!(!hazards.written_by_threads(a) && !hazards.read_by_threads(b));
    }

    #[test]
    fn rounds_of_a_loop_are_at_different_places() {
        let (start, mut hazards) = (Hazards::default(), Hazards::default());
        hazards.note_store(0, "x");
        hazards.next_round(&start, "i");
        assert_eq!(hazards.before_load(0, "x"), Before::Barrier);
        assert_eq!(hazards.before_store(0, "x"), Before::Barrier);
        let once = hazards.clone();
        hazards.next_round(&start, "i");
        assert_eq!(hazards, once);
    }

    #[test]
    fn views_of_one_round_are_ordered_within_it_only() {
        let (start, mut hazards) = (Hazards::default(), Hazards::default());
        let (x, y) = (format!("x{}", iteration_of("i")), format!("y{}", iteration_of("i")));
        hazards.note_store(0, &x);
        hazards.next_round(&start, "i");
        assert_eq!(hazards.before_load(0, &x), Before::Nothing);
        assert_eq!(hazards.before_load(0, &y), Before::Barrier);
        // The loop is run again by another.
        hazards.next_round(&start, "j");
        assert_eq!(hazards.before_load(0, &x), Before::Barrier);
    }

    #[test]
    fn global_memory_is_ordered_between_different_maps_only() {
        let mut hazards = Hazards::default();
        hazards.note_store(0, "x");
        assert_eq!(hazards.before_load(0, "x"), Before::Nothing);
        assert_eq!(hazards.before_load(0, "y"), Before::Barrier);
        assert_eq!(hazards.before_load(1, "y"), Before::Nothing);
        assert_eq!(hazards.before_store(0, "y"), Before::Barrier);
    }
}
