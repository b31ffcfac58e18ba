//! Pipelines of TMA copies: one thread asks for a whole tile, and mbarriers say when it is there and when its stage may
//! be filled again (PTX ISA, `mbarrier`). The other threads compute no addresses, and no barrier of the block stands in
//! an iteration, so that one warpgroup computes while another waits for its product.
//!
//! All of the first warp comes to the copies and waits for their stage, though one lane asks for them: what a whole warp
//! computes alike needs fewer registers than what one thread computes by itself.
//!
//! A loop that loads one iteration ahead has a pipeline of two stages: turn `t` fills stage `t % 2`. Loops
//! that follow each other have the same, which goes on counting turns, so that they always agree with the phases of the
//! mbarriers; a loop within a loop has another.

/// Bytes of the mbarriers of a pipeline: two that tiles are there, two that they were read.
const BYTES: u32 = 4 * 8;

/// Pipelines of a kernel.
#[derive(Clone, Copy, Default)]
pub(crate) struct Pipelines {
    /// Those of the loops around what is being written.
    open: u32,
    /// The most that were open at once.
    count: u32,
}

impl Pipelines {
    /// The pipeline of a loop that begins.
    pub(crate) fn open(&mut self) -> Pipeline {
        self.open += 1;
        self.count = self.count.max(self.open);
        Pipeline(self.open - 1)
    }

    /// The innermost of these loops ends.
    pub(crate) fn close(&mut self) {
        self.open -= 1;
    }

    /// Bytes of all mbarriers.
    pub(crate) fn bytes(self) -> u32 {
        self.count * BYTES
    }

    /// Start of the kernel: mbarriers, which stand behind all tiles, `at` bytes into shared memory, and the counts of
    /// turns. Others than the thread that makes mbarriers know of them after the first barrier.
    pub(crate) fn prologue(self, at: u32, maps: usize, warps: usize) -> String {
        let count = self.count;
        if count == 0 {
            return String::new();
        }
        let prefetch = |i: usize| format!("    prefetch_map(maps{i});\n");
        let prefetches: String = (0..maps).map(prefetch).collect();
        format!(
            "  // Pipelines: where their mbarriers are, and how many turns they have had.
  constexpr u32 PIPELINES = {at};
  u32 turns[{count}] = {{}};
  if (thread == 0) {{
{prefetches}    for (int p = 0; p < {count}; ++p) pipeline_init(PIPELINES + p * {BYTES}, {warps});
    fence_async();
  }}
"
        )
    }
}

/// A pipeline, by its number.
#[derive(Clone, Copy)]
pub(crate) struct Pipeline(pub u32);

impl Pipeline {
    /// Address of its mbarriers.
    pub(crate) fn at(self) -> String {
        format!("PIPELINES + {}", self.0 * BYTES)
    }

    /// The number of the turn that this iteration reads.
    pub(crate) fn turn(self) -> String {
        format!("turns[{}]", self.0)
    }
}
