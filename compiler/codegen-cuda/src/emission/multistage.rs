//! Multistage pipelining: each thread copies its own pieces of later iterations to shared memory, and takes those
//! of this iteration from there.

use linc_tile::{ValueId, View};

use super::addresses::{before_load, open_view};
use super::allocator::Range;
use super::code::Code;
use super::pointwise;
use super::values::Def;
use crate::analysis::loops::{Loop, slice};
use crate::analysis::memory::WIDE;
use crate::decisions::layout::ValueLayout;
use crate::decisions::multistage::{MultistageLoads, piece, stage_bytes};
use crate::text::spelling::memory_type;

/// The loads that a loop prefetches, several iterations ahead.
pub(crate) struct Multistage {
    /// What is loaded, with the memory of all stages.
    tiles: Vec<(ValueId, Range)>,
    /// The function that starts the copies of an iteration.
    function: String,
    /// The variable with the number of the stage that this iteration reads.
    stage: String,
    /// How many there are: that of this iteration, and those of the copies under way.
    stages: u32,
}

impl Multistage {
    /// Writes the function that starts the loads of an iteration, and starts those of the first ones.
    pub(crate) fn begin(
        code: &mut Code<'_>,
        around: Loop<'_>,
        counter: &str,
        [lower, upper, step]: [&str; 3],
    ) -> Option<Multistage> {
        let decisions = code.decisions;
        let MultistageLoads { loads, stages } = MultistageLoads::of(decisions, around)?;
        let all_stages = |(value, _): &(ValueId, _)| {
            (*value, code.shared.take(stages * stage_bytes(decisions, *value), WIDE as u32))
        };
        let tiles: Vec<(ValueId, Range)> = loads.iter().map(all_stages).collect();
        for (_, range) in &tiles {
            code.shared.wait_to_write(&mut code.out, *range);
        }
        // Twice: a barrier before one ends what was noted of those before it.
        for (value, view) in loads.iter().chain(&loads) {
            before_load(code, decisions.place(*value), view);
        }
        let (function, stage) = (code.values.temporary("fetch"), code.values.temporary("stage"));
        code.out.open(format!("const auto {function} = [&](index {counter}, u32 stage)"));
        let outside = code.values.bindings.clone();
        for stmt in slice(&around.body.body, loads.iter().flat_map(|(_, view)| view.operands())) {
            pointwise::scalar(code, stmt);
        }
        for ((value, view), (_, range)) in loads.iter().zip(&tiles) {
            copy_own(code, *value, view, *range);
        }
        code.values.bindings = outside;
        code.out.close_with("};");
        code.out.line(format!("u32 {stage} = 0;"));
        for ahead in 0..stages - 1 {
            let first = if ahead == 0 { lower.to_string() } else { format!("{lower} + {ahead} * {step}") };
            code.out.line(format!("if ({first} < {upper}) {function}({first}, {ahead});"));
            code.out.line("copy_async_commit();");
        }
        for (value, _) in &tiles {
            let at = format!("{}_at", code.values.name(*value));
            code.copied_ahead.insert(*value, at);
        }
        Some(Multistage { tiles, function, stage, stages })
    }

    /// At the start of an iteration: this thread's pieces are here, and the next may come to the stage of the iteration
    /// before.
    pub(crate) fn begin_iteration(&self, code: &mut Code<'_>, counter: &str, upper: &str, step: &str) {
        let Multistage { tiles, function, stage, stages } = self;
        code.out.line(format!("copy_async_wait<{}>();", stages - 2));
        for (value, range) in tiles {
            let (name, bytes) = (code.values.name(*value), stage_bytes(code.decisions, *value));
            let own = format!("{} + {stage} * {bytes} + thread * {WIDE}", range.at);
            code.out.line(format!("const u32 {name}_at = {own};"));
        }
        let next = if *stages == 2 {
            format!("{counter} + {step}")
        } else {
            format!("{counter} + {} * {step}", stages - 1)
        };
        let before = format!("({stage} == 0 ? {} : {stage} - 1)", stages - 1);
        code.out.line(format!("if ({next} < {upper}) {function}({next}, {before});"));
        code.out.line("copy_async_commit();");
    }

    /// At the end of an iteration: the stage of the next.
    pub(crate) fn end_iteration(&self, code: &mut Code<'_>) {
        let Multistage { stage, stages, .. } = self;
        code.out.line(format!("{stage} = {stage} == {} ? 0 : {stage} + 1;", stages - 1));
    }

    /// Behind the loop: the places go back.
    pub(crate) fn end(self, code: &mut Code<'_>) {
        for (value, range) in self.tiles {
            code.copied_ahead.remove(&value);
            // Other threads may still be in the loop when this one puts the memory to another use.
            code.shared.hazards.note_read(range);
            code.shared.hazards.note_write(range);
            code.shared.give(range);
        }
    }
}

/// Distance of a piece from the thread's first, by the counters of its slots.
fn piece_offset(code: &Code<'_>, value: ValueId) -> String {
    let piece = piece(code.decisions, value);
    let pitch = code.decisions.layouts.threads() as u64 * WIDE;
    match code.decisions.place(value) {
        ValueLayout::Scalar | ValueLayout::Vector(_) => format!("r / {piece} * {pitch}"),
        ValueLayout::Matrix(l) => format!("(r * {} + c / {piece}) * {pitch}", l.cols.slots() / piece),
    }
}

/// Starts the copies of a thread's pieces, zeros beyond the bounds.
fn copy_own(code: &mut Code<'_>, value: ValueId, view: &View, range: Range) {
    let (place, bytes) = (code.decisions.place(value), stage_bytes(code.decisions, value));
    code.out.open("");
    code.out.line(format!("const u32 own = {} + stage * {bytes} + thread * {WIDE};", range.at));
    let access = open_view(code, view, place, piece(code.decisions, value), true);
    let inside = access.inside().unwrap_or("true".into());
    let offset = piece_offset(code, value);
    code.out.line(format!("copy_async16(own + {offset}, {}, {inside});", access.address));
    code.close_slots(place);
    code.out.close();
}

/// A load that came ahead: from the thread's own pieces to its registers.
pub(crate) fn load_own(code: &mut Code<'_>, result: ValueId, at: &str) {
    let place = code.decisions.place(result);
    let ty = memory_type(code.decisions.ty(result).elem);
    let name = code.declare(result);
    let slots = code.open_slots(place, piece(code.decisions, result));
    let to = match place {
        ValueLayout::Scalar | ValueLayout::Vector(_) => format!("{name}[{}]", slots[0]),
        ValueLayout::Matrix(_) => format!("{name}[{}][{}]", slots[0], slots[1]),
    };
    let offset = piece_offset(code, result);
    code.out.line(format!("shared_load_piece<{ty}>(&{to}, {at} + {offset});"));
    code.close_slots(place);
    code.values.define(result, Def::Array(name));
}
