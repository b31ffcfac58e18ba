//! Loads some rounds ahead for loops that stream through memory. A reduction over the block keeps all its warps waiting
//! for each other, and memory with them, unless loads are under way meanwhile. So each thread copies its own pieces of
//! the tiles of later rounds to shared memory in the background, and takes those of this round from there into its
//! registers. No thread touches the pieces of another: there is nothing to wait for but the copies themselves.

use linc_tile::{Mode, Op, Region, Stmt, ValueId, View};

use crate::CodegenError;
use crate::assign::{Place, WIDE, memory_bytes};
use crate::emit::{Def, Emitter};
use crate::memory::memory_type;
use crate::rounds::{any, computable, slice};
use crate::shared::Range;

/// Bytes that a block should have under way. By Little's law a multiprocessor of an H200, which takes 31 bytes in a ns
/// and waits some 800 ns for them, wants 25 KB of all its blocks together, which are two at least. More gains nothing
/// there (`benches/h200.md`).
const UNDER_WAY: u32 = 16 << 10;
/// Rounds that are in shared memory at most.
const MOST_STAGES: u32 = 4;

/// The loads of a loop that come ahead of their rounds.
pub(crate) struct Streams {
    /// What is loaded, with the places of all stages.
    tiles: Vec<(ValueId, Range)>,
    /// The function that starts the copies of a round.
    function: String,
    /// The variable with the number of the stage that this round reads.
    stage: String,
    /// Rounds in shared memory: this one and those under way.
    stages: u32,
}

impl<'k> Emitter<'k> {
    /// Finds the loads of a loop that can come ahead, if it has anything to gain, and starts those of the first rounds.
    pub(crate) fn begin_streams(
        &mut self,
        body: &'k Region,
        counter: &str,
        [lower, upper, step]: [&str; 3],
    ) -> Result<Option<Streams>, CodegenError> {
        let reduces = |s: &Stmt| matches!(s.op, Op::Reduce { .. } | Op::Scan { .. });
        if !self.ahead || self.assignment.products || !any(&body.body, &reduces) {
            return Ok(None);
        }
        let loads: Vec<(ValueId, &'k View)> = body
            .body
            .iter()
            .filter_map(|s| match &s.op {
                Op::Load(view) if self.streams(body, s.results[0], view) => Some((s.results[0], view)),
                _ => None,
            })
            .collect();
        if loads.is_empty() {
            return Ok(None);
        }
        let bytes: u32 = loads.iter().map(|(value, _)| self.stage_bytes(*value)).sum();
        let stages = (UNDER_WAY.div_ceil(bytes) + 1).clamp(2, MOST_STAGES);
        let tiles: Vec<(ValueId, Range)> = loads
            .iter()
            .map(|(value, _)| (*value, self.shared.take(stages * self.stage_bytes(*value), WIDE as u32)))
            .collect();
        for (_, range) in &tiles {
            self.wait(self.state.hazards.before_write(*range));
        }
        // Twice: a barrier before one ends what was noted of those before it.
        for (value, view) in loads.iter().chain(&loads) {
            self.before_load(self.assignment.place(*value), view);
        }
        let (function, stage) = (self.temporary("fetch"), self.temporary("stage"));
        self.state.out.open(format!("const auto {function} = [&](index {counter}, u32 stage)"));
        let (defs, home) = (self.state.defs.clone(), self.state.home.clone());
        for stmt in slice(&body.body, loads.iter().flat_map(|(_, view)| view.operands())) {
            self.stmt(stmt)?;
        }
        for ((value, view), (_, range)) in loads.iter().zip(&tiles) {
            self.copy_own(*value, view, *range);
        }
        (self.state.defs, self.state.home) = (defs, home);
        self.state.out.close_with("};");
        self.state.out.line(format!("u32 {stage} = 0;"));
        for ahead in 0..stages - 1 {
            let first = if ahead == 0 { lower.to_string() } else { format!("{lower} + {ahead} * {step}") };
            self.state.out.line(format!("if ({first} < {upper}) {function}({first}, {ahead});"));
            self.state.out.line("copy_async_commit();");
        }
        for (value, _) in &tiles {
            let at = format!("{}_at", self.name(*value));
            self.state.streamed.insert(*value, at);
        }
        Ok(Some(Streams { tiles, function, stage, stages }))
    }

    /// At the start of a round: its own pieces are here, and the next may come to the stage of the round before.
    pub(crate) fn next_streams(&mut self, streams: &Option<Streams>, counter: &str, upper: &str, step: &str) {
        let Some(Streams { tiles, function, stage, stages }) = streams else { return };
        self.state.out.line(format!("copy_async_wait<{}>();", stages - 2));
        for (value, range) in tiles {
            let (name, bytes) = (self.name(*value), self.stage_bytes(*value));
            let own = format!("{} + {stage} * {bytes} + thread * {WIDE}", range.at);
            self.state.out.line(format!("const u32 {name}_at = {own};"));
        }
        let next = if *stages == 2 {
            format!("{counter} + {step}")
        } else {
            format!("{counter} + {} * {step}", stages - 1)
        };
        let before = format!("({stage} == 0 ? {} : {stage} - 1)", stages - 1);
        self.state.out.line(format!("if ({next} < {upper}) {function}({next}, {before});"));
        self.state.out.line("copy_async_commit();");
    }

    pub(crate) fn end_stream_round(&mut self, streams: &Option<Streams>) {
        let Some(Streams { stage, stages, .. }) = streams else { return };
        self.state.out.line(format!("{stage} = {stage} == {} ? 0 : {stage} + 1;", stages - 1));
    }

    pub(crate) fn end_streams(&mut self, streams: Option<Streams>) {
        for (value, range) in streams.into_iter().flat_map(|s| s.tiles) {
            self.state.streamed.remove(&value);
            // Other threads may still be in the loop when this one puts the memory to another use.
            self.state.hazards.note_read(range);
            self.state.hazards.note_write(range);
            self.shared.give(range);
        }
    }

    /// Whether a load of a loop's body can come ahead: in whole pieces, each of one thread, from places that are known
    /// and unchanged until then.
    fn streams(&self, body: &Region, value: ValueId, view: &View) -> bool {
        let place = self.assignment.place(value);
        let width = self.per_access(place, view);
        let whole = width as u64 * memory_bytes(self.kernel.param(view.param).elem) == WIDE;
        self.alone(place)
            && whole
            && !self.cut(view, width)
            && view.operands().all(|v| computable(body, v))
            && self.unchanged(body, value, view)
    }

    /// Whether what a load of a later round will read is there already: nothing is stored to its parameter in the loop,
    /// or only behind the load, by each thread to where it has loaded. Another parameter may be the same memory only in
    /// that way (`dx` of a norm's gradient and its `dy`).
    fn unchanged(&self, body: &Region, value: ValueId, view: &View) -> bool {
        let place = self.assignment.place(value);
        let stores =
            |s: &Stmt| matches!(&s.op, Op::Store(to, _) | Op::Scatter { to, .. } if to.param == view.param);
        let stores_elsewhere = |s: &Stmt| match &s.op {
            Op::Store(to, stored) => {
                to.param == view.param
                    && !(self.root(to.offset) == self.root(view.offset)
                        && to.axes == view.axes
                        && self.assignment.place(*stored) == place)
            }
            Op::Scatter { to, .. } => to.param == view.param,
            _ => false,
        };
        let before = body.body.iter().position(|s| s.results.contains(&value)).unwrap_or(0);
        self.kernel.param(view.param).mode == Mode::Read
            || (self.advances(place, view)
                && !any(&body.body[..before], &stores)
                && !any(&body.body, &stores_elsewhere))
    }

    /// Bytes of shared memory for one round of a tile.
    fn stage_bytes(&self, value: ValueId) -> u32 {
        (self.pieces(value) * self.threads()) as u32 * WIDE as u32
    }

    /// Pieces of a thread.
    fn pieces(&self, value: ValueId) -> usize {
        self.assignment.place(value).slots() / self.piece(value)
    }

    /// Elements of a piece. A tile is loaded as it is in memory.
    fn piece(&self, value: ValueId) -> usize {
        (WIDE / memory_bytes(self.kernel.ty(value).elem)) as usize
    }

    /// Distance of a piece from the thread's first, by the counters of its slots.
    fn piece_offset(&self, value: ValueId) -> String {
        let (piece, pitch) = (self.piece(value), self.threads() as u64 * WIDE);
        match self.assignment.place(value) {
            Place::Scalar | Place::Vector(_) => format!("r / {piece} * {pitch}"),
            Place::Matrix(l) => format!("(r * {} + c / {piece}) * {pitch}", l.cols.slots() / piece),
        }
    }

    /// Starts the copies of a thread's pieces, zeros beyond the bounds.
    fn copy_own(&mut self, value: ValueId, view: &View, range: Range) {
        let place = self.assignment.place(value);
        self.state.out.open("");
        self.state.out.line(format!(
            "const u32 own = {} + stage * {} + thread * {WIDE};",
            range.at,
            self.stage_bytes(value)
        ));
        let access = self.open_view(view, place, self.piece(value), true);
        let inside = access.condition(access.at.len()).unwrap_or("true".into());
        let offset = self.piece_offset(value);
        self.state.out.line(format!("copy_async16(own + {offset}, {}, {inside});", access.address));
        self.close_slots(place);
        self.state.out.close();
    }

    /// A load that came ahead: from the thread's own pieces to its registers.
    pub(crate) fn load_own(&mut self, result: ValueId, at: &str) {
        let place = self.assignment.place(result);
        let (name, ty, piece) =
            (self.name(result), memory_type(self.kernel.ty(result).elem), self.piece(result));
        let declaration = self.declare(result, &name);
        self.state.out.line(format!("{declaration};"));
        let slots = self.open_slots(place, piece);
        let to = match place {
            Place::Scalar | Place::Vector(_) => format!("{name}[{}]", slots[0]),
            Place::Matrix(_) => format!("{name}[{}][{}]", slots[0], slots[1]),
        };
        let offset = self.piece_offset(result);
        self.state.out.line(format!("shared_load_piece<{ty}>(&{to}, {at} + {offset});"));
        self.close_slots(place);
        self.define(result, Def::Array(name));
    }
}
