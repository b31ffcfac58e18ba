//! Copies by Hopper's tensor engine: one thread asks for a whole tile, and mbarriers say when it is there and when its
//! place may be filled again (PTX ISA, `cp.async.bulk.tensor` and `mbarrier`). The other threads compute no addresses, and
//! no barrier of the block stands in a round, so that one warpgroup computes while another waits for its product.
//!
//! All of the first warp comes to the copies and waits for their place, though one lane asks for them: what a whole warp
//! computes alike needs fewer registers than what one thread computes by itself.
//!
//! A loop that loads one round ahead has a pipeline, whose places take turns: turn `t` fills place `t % 2`. Loops that
//! follow each other have the same, which goes on counting turns, so that they always agree with the phases of the
//! mbarriers; a loop within a loop has another.

use linc_tile::{Op, Region, Stmt, ValueId, View};

use crate::TensorMap;
use crate::emit::Emitter;
use crate::operand::SharedTile;
use crate::shared::{Before, Range};

/// Bytes of the mbarriers of a pipeline: two that tiles are there, two that they were read.
const BYTES: u32 = 4 * 8;
/// Rows of the largest box.
const MOST_ROWS: usize = 256;
/// Maps of a kernel: a few of the four kilobytes that arguments may have.
const MOST_MAPS: usize = 16;

/// Pipelines of a kernel.
#[derive(Default)]
pub(crate) struct Pipelines {
    /// Those of the loops around what is being written.
    open: u32,
    /// The most that were open at once.
    count: u32,
}

impl Pipelines {
    /// Bytes of all mbarriers.
    pub(crate) fn bytes(&self) -> u32 {
        self.count * BYTES
    }
}

/// A pipeline, by its number.
#[derive(Clone, Copy)]
pub(crate) struct Pipeline(pub u32);

impl Pipeline {
    /// Address of its mbarriers, as C++.
    pub(crate) fn at(self) -> String {
        format!("PIPELINES + {}", self.0 * BYTES)
    }

    /// The number of the turn that this round reads, as C++.
    pub(crate) fn turn(self) -> String {
        format!("turns[{}]", self.0)
    }
}

impl Emitter<'_> {
    /// The pipeline of a loop that begins.
    pub(crate) fn open_pipeline(&mut self) -> Pipeline {
        let Pipelines { open, count } = &mut self.pipelines;
        *open += 1;
        *count = (*count).max(*open);
        Pipeline(*open - 1)
    }

    /// Its end.
    pub(crate) fn close_pipeline(&mut self) {
        self.pipelines.open -= 1;
    }

    /// What the tensor engine has to know to copy a tile: nothing if it cannot. A tile without bounds can be copied if it
    /// lies within rows of memory as long as its stride, which its columns divide as they divide its offset.
    pub(crate) fn tensor_map(&self, stmt: &Stmt, view: &View) -> Option<TensorMap> {
        let tile = SharedTile::of(self.kernel.ty(stmt.results[0]), 0);
        let ([rows, cols], [height, width]) = (&view.axes[..], tile.extent) else { return None };
        let stride = u64::try_from(rows.stride).ok().filter(|stride| *stride > 0)?;
        let panel = 8 * tile.pieces();
        let whole = tile.rows == height && height <= MOST_ROWS && width.is_multiple_of(panel);
        let aligned = |n: u64| n.is_multiple_of(width as u64);
        let fits = self.options.arch.has_tensor_copies()
            && rows.bound.is_none()
            && cols.bound.is_none()
            && whole
            && aligned(stride)
            && aligned(self.usage.divisor(view.offset));
        let map = TensorMap {
            param: view.param.0 as usize,
            elem: tile.elem,
            stride,
            rows: height as u32,
            columns: panel as u32,
        };
        (fits && (self.maps.len() < MOST_MAPS || self.maps.contains(&map))).then_some(map)
    }

    /// Whether threads read a tile of a loop themselves, or have read what was in its places before.
    pub(crate) fn read_by_threads(&self, value: ValueId, places: Range) -> bool {
        let mut read = self.assignment.unpacked[value.0 as usize];
        self.kernel.for_each_stmt(|stmt| {
            let Op::Dot { a, b, .. } = stmt.op else { return };
            read |= [a, b].contains(&value) && !self.assignment.wgmma[stmt.results[0].0 as usize];
        });
        read || self.state.hazards.read_by_threads(places)
    }

    /// Writes the fetch that this round has still to start.
    pub(crate) fn start_fetch(&mut self) {
        if let Some(fetch) = self.state.fetch.take() {
            self.state.out.line(fetch);
        }
    }

    /// Waits for what threads copy before a loop with pipelines in it, and so not in each of its rounds.
    pub(crate) fn wait_before_pipelines(&mut self, body: &Region) {
        if self.ahead && self.state.hazards.copying() && self.has_pipelines(body) {
            self.wait(Before::Arrival);
        }
    }

    fn has_pipelines(&self, region: &Region) -> bool {
        let fetches = |stmt: &Stmt| match &stmt.op {
            Op::Load(view) => {
                self.assignment.copied[stmt.results[0].0 as usize] && self.tensor_map(stmt, view).is_some()
            }
            _ => false,
        };
        region.body.iter().any(|stmt| match &stmt.op {
            Op::For { body, .. } => body.body.iter().any(fetches) || self.has_pipelines(body),
            op => op.regions().iter().any(|inner| self.has_pipelines(inner)),
        })
    }

    /// The name of the kernel's argument for a map. Equal maps are one.
    fn map_name(&mut self, map: TensorMap) -> String {
        let at = self.maps.iter().position(|known| *known == map).unwrap_or_else(|| {
            self.maps.push(map);
            self.maps.len() - 1
        });
        format!("maps{at}")
    }

    /// Announces that tensor copies of a pipeline will write a range.
    pub(crate) fn before_tensor_copies(&mut self, range: Range, pipeline: Pipeline) {
        let mut before = self.state.hazards.before_fill(range, Some(pipeline.0));
        if self.state.hazards.written_by_threads(range) {
            // They write by another way than threads do.
            self.state.hazards.note_unfenced(range);
            before = if before == Before::Nothing { Before::Barrier } else { before };
        }
        self.wait(before);
    }

    /// Writes the copies of one tile to the place at `at`, by the thread that acquired the pipeline.
    pub(crate) fn tensor_copy(&mut self, map: TensorMap, view: &View, tile: &SharedTile, at: &str) {
        let (name, offset) = (self.map_name(map), self.scalar(view.offset));
        let TensorMap { stride, columns, .. } = map;
        self.state.out.open("");
        self.state
            .out
            .line(format!("const int x = (int)({offset} % {stride}), y = (int)({offset} / {stride});"));
        for panel in 0..tile.extent[1] / columns as usize {
            let plus = |n: usize| if n == 0 { String::new() } else { format!(" + {n}") };
            self.state.out.line(format!(
                "copy_tile_async({at}{}, {name}, x{}, y, arrival);",
                plus(panel * tile.panel()),
                plus(panel * columns as usize)
            ));
        }
        self.state.out.close();
    }

    /// Start of the kernel: mbarriers, which stand behind all tiles, and the counts of turns. Others than the thread that
    /// makes mbarriers know of them after the first barrier.
    pub(crate) fn pipelines_text(&self, at: u32) -> String {
        let count = self.pipelines.count;
        if count == 0 {
            return String::new();
        }
        let prefetch = |i: usize| format!("    prefetch_map(maps{i});\n");
        let prefetches: String = (0..self.maps.len()).map(prefetch).collect();
        format!(
            "  // Pipelines: where their mbarriers are, and how many turns they have had.
  constexpr u32 PIPELINES = {at};
  u32 turns[{count}] = {{}};
  if (thread == 0) {{
{prefetches}    for (int p = 0; p < {count}; ++p) pipeline_init(PIPELINES + p * {BYTES}, {});
    fence_async();
  }}
",
            self.assignment.warps
        )
    }
}
