//! Loads one round of a loop ahead: while a round computes, the tiles of the next come by background copies to a second
//! place in shared memory.

use linc_tile::{Mode, Op, Region, Stmt, ValueId, View};

use crate::CodegenError;
use crate::emit::Emitter;
use crate::operand::SharedTile;
use crate::shared::{Before, Range};

/// Tiles that a loop loads one round ahead.
pub(crate) struct Fetches {
    /// The loads, each with both of its places.
    tiles: Vec<(ValueId, Range)>,
    function: String,
    stage: String,
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
        let fetches = Fetches {
            function: self.temporary("fetch"),
            stage: self.temporary("stage"),
            tiles: loads
                .iter()
                .map(|(s, _)| {
                    let tile = SharedTile::of(self.kernel.ty(s.results[0]), 0);
                    (s.results[0], self.shared.take(2 * tile.bytes(), tile.align()))
                })
                .collect(),
        };
        for (_, range) in &fetches.tiles {
            self.wait(self.state.hazards.before_write(*range));
        }
        self.state.out.open(format!("const auto {} = [&](index {counter}, u32 stage)", fetches.function));
        let (defs, home) = (self.state.defs.clone(), self.state.home.clone());
        let needed: Vec<&'k Stmt> = slice(&body.body, loads.iter().flat_map(|(_, v)| v.operands()));
        for stmt in needed {
            self.stmt(stmt)?;
        }
        for ((stmt, view), (_, range)) in loads.iter().zip(&fetches.tiles) {
            let tile = SharedTile::of(self.kernel.ty(stmt.results[0]), 0);
            let at = format!("{} + stage * {}", range.at, tile.bytes());
            self.copy(view, &tile, &at);
        }
        (self.state.defs, self.state.home) = (defs, home);
        self.state.out.close_with("};");
        self.state.out.line(format!("u32 {} = 0;", fetches.stage));
        self.state.out.line(format!("if ({lower} < {upper}) {}({lower}, 0);", fetches.function));
        self.state.out.line("copy_async_commit();");
        for (value, range) in &fetches.tiles {
            let mut tile = SharedTile::of(self.kernel.ty(*value), 0);
            tile.at = format!("{}_at", self.name(*value));
            tile.range = *range;
            tile.owned = false;
            self.state.tiles.insert(*value, tile);
        }
        Ok(Some(fetches))
    }

    /// At the start of a round: its tiles are here, everyone is done with the other places, the next may come.
    pub(crate) fn next_fetches(&mut self, fetches: &Option<Fetches>, counter: &str, upper: &str, step: &str) {
        let Some(Fetches { tiles, function, stage }) = fetches else { return };
        for (value, range) in tiles {
            self.note_operand(*value, *range);
        }
        self.wait(Before::Arrival);
        self.state
            .out
            .line(format!("if ({counter} + {step} < {upper}) {function}({counter} + {step}, {stage} ^ 1);"));
        self.state.out.line("copy_async_commit();");
        for (value, range) in tiles {
            let bytes = SharedTile::of(self.kernel.ty(*value), 0).bytes();
            self.state.out.line(format!(
                "const u32 {}_at = {} + {stage} * {bytes};",
                self.name(*value),
                range.at
            ));
        }
    }

    pub(crate) fn end_round(&mut self, fetches: &Option<Fetches>) {
        if let Some(Fetches { stage, .. }) = fetches {
            self.state.out.line(format!("{stage} ^= 1;"));
        }
    }

    pub(crate) fn end_fetches(&mut self, fetches: Option<Fetches>) {
        for (value, range) in fetches.into_iter().flat_map(|f| f.tiles) {
            self.state.tiles.remove(&value);
            self.shared.give(range);
        }
    }
}

/// Whether a scalar is known before the round: made outside, the counter, or arithmetic on such. What is carried is known
/// only when the round before has ended.
fn computable(region: &Region, value: ValueId) -> bool {
    if region.args[1..].contains(&value) {
        return false;
    }
    let Some(stmt) = region.body.iter().find(|s| s.results.contains(&value)) else { return true };
    match &stmt.op {
        Op::ConstF(_)
        | Op::ConstI(_)
        | Op::ProgramId(_)
        | Op::Binary(..)
        | Op::Cast(_)
        | Op::Compare(..)
        | Op::Select(..) => stmt.op.operands().into_iter().all(|v| computable(region, v)),
        Op::Unary(..)
        | Op::Fma(..)
        | Op::Splat(_)
        | Op::Expand { .. }
        | Op::Iota { .. }
        | Op::Load(_)
        | Op::Store(..)
        | Op::Dot { .. }
        | Op::Reduce { .. }
        | Op::Scan { .. }
        | Op::Transpose(_)
        | Op::For { .. }
        | Op::If { .. } => false,
    }
}

/// The statements of a body that scalars depend on, in order.
fn slice(body: &[Stmt], wanted: impl Iterator<Item = ValueId>) -> Vec<&Stmt> {
    let mut wanted: Vec<ValueId> = wanted.collect();
    let mut needed = vec![];
    for stmt in body.iter().rev() {
        if stmt.results.iter().any(|r| wanted.contains(r)) {
            wanted.extend(stmt.op.operands());
            needed.push(stmt);
        }
    }
    needed.reverse();
    needed
}
