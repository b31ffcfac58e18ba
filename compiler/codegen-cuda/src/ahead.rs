//! Loads one round of a loop ahead: while a round computes, the tiles of the next come to a second place in shared
//! memory; by the tensor engine where it can copy all of them, else by background copies of the threads.

use linc_tile::{Mode, Op, Region, Stmt, ValueId, View};

use crate::emit::Emitter;
use crate::operand::SharedTile;
use crate::pipeline::Pipeline;
use crate::rounds::{computable, slice};
use crate::shared::{Before, Range};
use crate::wgmma::WARPS;
use crate::{CodegenError, TensorMap};

/// Tiles that a loop loads one round ahead.
pub(crate) struct Fetches {
    /// The loads, each with both of its places.
    tiles: Vec<(ValueId, Range)>,
    function: String,
    way: Way,
    /// A round has a product to start the next fetch behind, and another warpgroup that this one need not wait for then.
    behind: bool,
}

/// Who copies, and what says which place is whose turn.
enum Way {
    /// Threads; the variable with the number of the place that this round reads.
    Threads { stage: String },
    /// The tensor engine; the pipeline.
    Tensor(Pipeline),
}

impl<'k> Emitter<'k> {
    /// Finds the loads of a loop that depend on nothing but its counter, writes the function that starts them, and
    /// starts those of the first round.
    pub(crate) fn begin_fetches(
        &mut self,
        body: &'k Region,
        counter: &str,
        lower: &str,
        upper: &str,
    ) -> Result<Option<Fetches>, CodegenError> {
        if !self.ahead {
            return Ok(None);
        }
        let loads: Vec<(&'k Stmt, &'k View)> = body
            .body
            .iter()
            .filter_map(|s| match &s.op {
                Op::Load(view) if self.assignment.copied[s.results[0].0 as usize] => Some((s, view)),
                _ => None,
            })
            .filter(|(_, view)| {
                self.kernel.param(view.param).mode == Mode::Read
                    && view.operands().all(|v| computable(body, v))
            })
            .collect();
        if loads.is_empty() {
            return Ok(None);
        }
        let maps: Option<Vec<TensorMap>> =
            loads.iter().map(|(stmt, view)| self.tensor_map(stmt, view)).collect();
        let function = self.temporary("fetch");
        let tiles: Vec<(ValueId, Range)> = loads
            .iter()
            .map(|(s, _)| {
                let tile = SharedTile::of(self.kernel.ty(s.results[0]), 0);
                (s.results[0], self.shared.take(2 * tile.bytes(), tile.align()))
            })
            .collect();
        let way = match maps {
            Some(_) => Way::Tensor(self.open_pipeline()),
            None => Way::Threads { stage: self.temporary("stage") },
        };
        for (_, range) in &tiles {
            match way {
                Way::Tensor(pipeline) => self.before_tensor_copies(*range, pipeline),
                Way::Threads { .. } => self.wait(self.state.hazards.before_write(*range)),
            }
        }
        let (which, place) = match way {
            Way::Tensor(_) => ("turn", "turn % 2"),
            Way::Threads { .. } => ("stage", "stage"),
        };
        self.state.out.open(format!("const auto {function} = [&](index {counter}, u32 {which})"));
        let (defs, home) = (self.state.defs.clone(), self.state.home.clone());
        let needed: Vec<&'k Stmt> = slice(&body.body, loads.iter().flat_map(|(_, v)| v.operands()));
        for stmt in needed {
            self.stmt(stmt)?;
        }
        if let Way::Tensor(pipeline) = &way {
            let at = pipeline.at();
            let bytes: u32 = tiles.iter().map(|(_, range)| range.bytes / 2).sum();
            self.state.out.line(format!("pipeline_acquire({at}, turn);"));
            self.state.out.open("if (elected())");
            if tiles.iter().any(|(value, range)| self.read_by_threads(*value, *range)) {
                // Their reads are over, but the engine goes another way.
                self.state.out.line("fence_async();");
            }
            self.state.out.line(format!("const u32 arrival = pipeline_expect({at}, turn, {bytes});"));
        }
        for (i, ((stmt, view), (_, range))) in loads.iter().zip(&tiles).enumerate() {
            let tile = SharedTile::of(self.kernel.ty(stmt.results[0]), 0);
            let at = format!("{} + {place} * {}", range.at, tile.bytes());
            match &maps {
                Some(maps) => self.tensor_copy(maps[i], view, &tile, &at),
                None => self.copy(view, &tile, &at),
            }
        }
        if let Way::Tensor(_) = way {
            self.state.out.close();
        }
        (self.state.defs, self.state.home) = (defs, home);
        self.state.out.close_with("};");
        match &way {
            Way::Threads { stage } => {
                self.state.out.line(format!("u32 {stage} = 0;"));
                self.state.out.line(format!("if ({lower} < {upper}) {function}({lower}, 0);"));
                self.state.out.line("copy_async_commit();");
            }
            Way::Tensor(pipeline) => {
                let turn = pipeline.turn();
                let first = format!("if (warp == 0 && {lower} < {upper}) {function}({lower}, {turn});");
                self.state.out.line(first);
                if self.state.hazards.copying() {
                    // What threads copy is waited for here, once, and not by a barrier in every round.
                    self.wait(Before::Arrival);
                }
            }
        }
        for (value, range) in &tiles {
            let mut tile = SharedTile::of(self.kernel.ty(*value), 0);
            tile.at = format!("{}_at", self.name(*value));
            tile.range = *range;
            tile.owned = false;
            self.state.tiles.insert(*value, tile);
        }
        let product = body.body.iter().any(|stmt| matches!(stmt.op, Op::Dot { .. }));
        let behind = product && self.assignment.warps > WARPS;
        Ok(Some(Fetches { tiles, function, way, behind }))
    }

    /// At the start of a round: its tiles are here, everyone is done with the other places, the next may come.
    pub(crate) fn next_fetches(&mut self, fetches: &Option<Fetches>, counter: &str, upper: &str, step: &str) {
        let Some(Fetches { tiles, function, way, behind }) = fetches else { return };
        let next = format!("{counter} + {step}");
        let place = match way {
            Way::Threads { stage } => {
                for (value, range) in tiles {
                    self.note_operand(*value, *range);
                }
                self.wait(Before::Arrival);
                self.state.out.line(format!("if ({next} < {upper}) {function}({next}, {stage} ^ 1);"));
                self.state.out.line("copy_async_commit();");
                stage.clone()
            }
            Way::Tensor(pipeline) => {
                let (at, turn) = (pipeline.at(), pipeline.turn());
                self.state.out.line(format!("pipeline_wait({at}, {turn});"));
                let fetch = format!("if (warp == 0 && {next} < {upper}) {function}({next}, {turn} + 1);");
                self.state.fetch = Some(fetch);
                if !behind {
                    self.start_fetch();
                }
                format!("{turn} % 2")
            }
        };
        for (value, range) in tiles {
            let bytes = SharedTile::of(self.kernel.ty(*value), 0).bytes();
            self.state.out.line(format!(
                "const u32 {}_at = {} + {place} * {bytes};",
                self.name(*value),
                range.at
            ));
        }
    }

    pub(crate) fn end_round(&mut self, fetches: &Option<Fetches>) {
        match fetches.as_ref().map(|f| &f.way) {
            None => {}
            Some(Way::Threads { stage }) => self.state.out.line(format!("{stage} ^= 1;")),
            Some(Way::Tensor(pipeline)) => {
                self.start_fetch();
                let (at, turn) = (pipeline.at(), pipeline.turn());
                self.state.out.line(format!("pipeline_release({at}, {turn}, lane);"));
                self.state.out.line(format!("{turn} += 1;"));
            }
        }
    }

    pub(crate) fn end_fetches(&mut self, fetches: Option<Fetches>) {
        let Some(Fetches { tiles, way, .. }) = fetches else { return };
        for (_, range) in &tiles {
            match way {
                Way::Threads { .. } => self.state.hazards.note_written(*range),
                Way::Tensor(pipeline) => self.state.hazards.note_released(*range, pipeline.0),
            }
        }
        if let Way::Tensor(_) = way {
            self.close_pipeline();
        }
        for (value, range) in tiles {
            self.state.tiles.remove(&value);
            self.shared.give(range);
        }
    }
}
