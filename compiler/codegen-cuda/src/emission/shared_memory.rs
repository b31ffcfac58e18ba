//! The shared memory of a block while its kernel is written: what lies where, and the waiting of threads for each other.

use std::collections::BTreeMap;

use linc_tile::ValueId;

use super::allocator::{Allocator, Range};
use super::hazards::{Before, Hazards};
use crate::decisions::shared_form::{ALIGN, SharedForm};
use crate::hopper::pipeline::Pipeline;
use crate::text::shared_tile;
use crate::text::writer::Writer;

/// A tile in shared memory.
#[derive(Clone, Debug)]
pub(crate) struct StagedTile {
    pub form: SharedForm,
    /// Its bytes; both places of a tile that is loaded ahead.
    pub range: Range,
    /// Byte offset of the first element, as C++.
    pub at: String,
    /// The body that defines it; none for one that is loaded ahead, whose range belongs to the loop.
    pub body: Option<usize>,
}

impl StagedTile {
    /// Address of a 16-byte piece of a tile of 16-bit elements.
    pub(crate) fn piece(&self, row: &str, piece: &str) -> String {
        shared_tile::piece(&self.form, &self.at, row, piece)
    }
}

/// The shared memory of a block.
#[derive(Clone, Default)]
pub(crate) struct SharedMemory {
    allocator: Allocator,
    pub hazards: Hazards,
    /// What products read, by value.
    pub tiles: BTreeMap<ValueId, StagedTile>,
    /// Threads compute addresses again behind each barrier.
    renews: bool,
}

impl SharedMemory {
    /// That of a block whose threads compute addresses again behind each barrier, or keep them.
    pub(crate) fn new(renews: bool) -> SharedMemory {
        SharedMemory { renews, ..SharedMemory::default() }
    }

    /// Bytes up to the end of all that was ever used.
    pub(crate) fn peak(&self) -> u32 {
        self.allocator.peak()
    }

    /// Takes a range that starts at a multiple of `align`.
    pub(crate) fn take(&mut self, bytes: u32, align: u32) -> Range {
        self.allocator.take(bytes, align)
    }

    /// Takes room for numbers for a moment.
    pub(crate) fn scratch(&mut self, floats: usize) -> Range {
        self.allocator.take(4 * floats as u32, ALIGN)
    }

    /// Gives a range back.
    pub(crate) fn give(&mut self, range: Range) {
        self.allocator.give(range);
    }

    /// Takes room for a tile of a body.
    pub(crate) fn new_tile(&mut self, form: SharedForm, body: usize) -> StagedTile {
        let range = self.take(form.bytes(), form.align());
        StagedTile { form, range, at: range.at.to_string(), body: Some(body) }
    }

    /// The values of the tiles that a body defines.
    pub(crate) fn tiles_of(&self, body: usize) -> Vec<ValueId> {
        self.tiles.iter().filter(|(_, tile)| tile.body == Some(body)).map(|(value, _)| *value).collect()
    }

    /// Forgets a tile and gives its room back.
    pub(crate) fn release(&mut self, value: ValueId) {
        if let Some(tile) = self.tiles.remove(&value) {
            self.give(tile.range);
        }
    }

    // ---- waiting ----

    /// Lets the compiler forget what it has computed from the number of the lane, where it should not keep it.
    pub(crate) fn renew_addresses(&self, out: &mut Writer) {
        if self.renews {
            out.line("lane = again(lane);");
        }
    }

    /// Writes a barrier.
    pub(crate) fn barrier(&mut self, out: &mut Writer) {
        if self.hazards.fence() {
            // Warpgroups read operands by another way than threads write them.
            out.line("fence_async();");
        }
        out.line("barrier();");
        self.renew_addresses(out);
        self.hazards.barrier();
    }

    /// Writes what has to come before an access.
    pub(crate) fn wait(&mut self, out: &mut Writer, before: Before) {
        match before {
            Before::Nothing => {}
            Before::Barrier => self.barrier(out),
            Before::Arrival => {
                out.line("copy_async_wait<0>();");
                self.hazards.arrival();
                self.barrier(out);
            }
        }
    }

    /// Announces a read.
    pub(crate) fn reads(&mut self, out: &mut Writer, range: Range) {
        self.reads_all(out, &[range], false);
    }

    /// Announces reads that come together, by threads or by a product of warpgroups. All waiting is before all of them: a
    /// barrier ends what was noted before it.
    pub(crate) fn reads_all(&mut self, out: &mut Writer, ranges: &[Range], by_warpgroups: bool) {
        for range in ranges {
            self.wait(out, self.hazards.before_read(*range));
        }
        for range in ranges {
            match by_warpgroups {
                true => self.hazards.note_product_read(*range),
                false => self.hazards.note_read(*range),
            }
        }
    }

    /// Waits until a range may be written.
    pub(crate) fn wait_to_write(&mut self, out: &mut Writer, range: Range) {
        self.wait(out, self.hazards.before_write(range));
    }

    /// Announces a write.
    pub(crate) fn writes(&mut self, out: &mut Writer, range: Range) {
        self.wait_to_write(out, range);
        self.hazards.note_write(range);
    }

    /// Announces that TMA copies of a pipeline will write a range.
    pub(crate) fn before_tensor_copies(&mut self, out: &mut Writer, range: Range, pipeline: Pipeline) {
        let mut before = self.hazards.before_fill(range, Some(pipeline.0));
        if self.hazards.written_by_threads(range) {
            // They write by another way than threads do.
            self.hazards.note_unfenced(range);
            before = if before == Before::Nothing { Before::Barrier } else { before };
        }
        self.wait(out, before);
    }
}
