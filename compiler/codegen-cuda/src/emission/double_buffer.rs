//! Double buffering: while an iteration computes, the tiles of the next are copied to the other of two stages in shared
//! memory.

use linc_tile::ValueId;

use super::allocator::Range;
use super::code::Code;
use super::hazards::Before;
use super::pointwise;
use super::shared_memory::StagedTile;
use super::tiles;
use crate::analysis::loops::{Loop, slice};
use crate::decisions::double_buffer::DoubleBuffer;
use crate::decisions::shared_form::SharedForm;
use crate::decisions::tensor_maps::read_by_threads;
use crate::hopper::pipeline::Pipeline;

/// Tiles that a loop prefetches, one iteration ahead.
pub(crate) struct Fetches {
    /// The loads, each with the memory of both stages.
    tiles: Vec<(ValueId, Range)>,
    /// The function that starts the copies of an iteration.
    function: String,
    way: Way,
    /// The next fetch starts behind the first product of an iteration.
    behind: bool,
}

/// Who copies, and what says which stage an iteration reads.
enum Way {
    /// All threads, by `cp.async`; the variable with the number of the stage that this iteration reads.
    Threads { stage: String },
    /// TMA, with an mbarrier for each stage.
    Tensor(Pipeline),
}

impl Fetches {
    /// Writes the function that starts the loads of an iteration, and starts those of the first.
    pub(crate) fn begin(
        code: &mut Code<'_>,
        around: Loop<'_>,
        counter: &str,
        lower: &str,
        upper: &str,
    ) -> Option<Fetches> {
        let DoubleBuffer { loads, maps, behind } =
            DoubleBuffer::of(code.decisions, around.body, code.maps.known())?;
        let decisions = code.decisions;
        let form = |value: ValueId| SharedForm::of(decisions.ty(value));
        let function = code.values.temporary("fetch");
        let both = |(value, _): &(ValueId, _)| {
            (*value, code.shared.take(2 * form(*value).bytes(), form(*value).align()))
        };
        let tiles: Vec<(ValueId, Range)> = loads.iter().map(both).collect();
        let way = match maps {
            Some(_) => Way::Tensor(code.pipelines.open()),
            None => Way::Threads { stage: code.values.temporary("stage") },
        };
        for (_, range) in &tiles {
            match way {
                Way::Tensor(pipeline) => code.shared.before_tensor_copies(&mut code.out, *range, pipeline),
                Way::Threads { .. } => code.shared.wait_to_write(&mut code.out, *range),
            }
        }
        let (which, place) = match way {
            Way::Tensor(_) => ("turn", "turn % 2"),
            Way::Threads { .. } => ("stage", "stage"),
        };
        code.out.open(format!("const auto {function} = [&](index {counter}, u32 {which})"));
        let outside = code.values.bindings.clone();
        for stmt in slice(&around.body.body, loads.iter().flat_map(|(_, view)| view.operands())) {
            pointwise::scalar(code, stmt);
        }
        if let Way::Tensor(pipeline) = &way {
            let at = pipeline.at();
            let bytes: u32 = tiles.iter().map(|(_, range)| range.bytes / 2).sum();
            code.out.line(format!("pipeline_acquire({at}, turn);"));
            code.out.open("if (elected())");
            let hazards = &code.shared.hazards;
            let was_read = |(value, range): &(ValueId, Range)| {
                read_by_threads(decisions, *value) || hazards.read_by_threads(*range)
            };
            if tiles.iter().any(was_read) {
                // Their reads are over, but the engine goes another way.
                code.out.line("fence_async();");
            }
            code.out.line(format!("const u32 arrival = pipeline_expect({at}, turn, {bytes});"));
        }
        for (i, ((value, view), (_, range))) in loads.iter().zip(&tiles).enumerate() {
            let form = form(*value);
            let at = format!("{} + {place} * {}", range.at, form.bytes());
            match &maps {
                Some(maps) => {
                    let offset = code.values.scalar(view.offset);
                    code.maps.copy(&mut code.out, maps[i], &offset, &form, &at);
                }
                None => tiles::copy(code, view, &form, &at),
            }
        }
        if let Way::Tensor(_) = way {
            code.out.close();
        }
        code.values.bindings = outside;
        code.out.close_with("};");
        match &way {
            Way::Threads { stage } => {
                code.out.line(format!("u32 {stage} = 0;"));
                code.out.line(format!("if ({lower} < {upper}) {function}({lower}, 0);"));
                code.out.line("copy_async_commit();");
            }
            Way::Tensor(pipeline) => {
                let turn = pipeline.turn();
                let first = format!("if (warp == 0 && {lower} < {upper}) {function}({lower}, {turn});");
                code.out.line(first);
                if code.shared.hazards.copying() {
                    // What threads copy is waited for here, once, and not by a barrier in every iteration.
                    code.shared.wait(&mut code.out, Before::Arrival);
                }
            }
        }
        for (value, range) in &tiles {
            let at = format!("{}_at", code.values.name(*value));
            let tile = StagedTile { form: form(*value), range: *range, at, body: None };
            code.shared.tiles.insert(*value, tile);
        }
        Some(Fetches { tiles, function, way, behind })
    }

    /// At the start of an iteration: its tiles are here, everyone is done with the other stage, the next ones may
    /// come there.
    pub(crate) fn begin_iteration(&self, code: &mut Code<'_>, counter: &str, upper: &str, step: &str) {
        let Fetches { tiles, function, way, behind } = self;
        let next = format!("{counter} + {step}");
        let place = match way {
            Way::Threads { stage } => {
                for (value, _) in tiles {
                    let tile = code.shared.tiles[value].clone();
                    tiles::note_operand(code, *value, &tile);
                }
                code.shared.wait(&mut code.out, Before::Arrival);
                code.out.line(format!("if ({next} < {upper}) {function}({next}, {stage} ^ 1);"));
                code.out.line("copy_async_commit();");
                stage.clone()
            }
            Way::Tensor(pipeline) => {
                let (at, turn) = (pipeline.at(), pipeline.turn());
                code.out.line(format!("pipeline_wait({at}, {turn});"));
                let fetch = format!("if (warp == 0 && {next} < {upper}) {function}({next}, {turn} + 1);");
                code.fetch = Some(fetch);
                if !behind {
                    code.start_fetch();
                }
                format!("{turn} % 2")
            }
        };
        for (value, range) in tiles {
            let bytes = code.shared.tiles[value].form.bytes();
            let name = code.values.name(*value);
            code.out.line(format!("const u32 {name}_at = {} + {place} * {bytes};", range.at));
        }
    }

    /// At the end of an iteration: the other stage is that of the next.
    pub(crate) fn end_iteration(&self, code: &mut Code<'_>) {
        match &self.way {
            Way::Threads { stage } => code.out.line(format!("{stage} ^= 1;")),
            Way::Tensor(pipeline) => {
                code.start_fetch();
                let (at, turn) = (pipeline.at(), pipeline.turn());
                code.out.line(format!("pipeline_release({at}, {turn}, lane);"));
                code.out.line(format!("{turn} += 1;"));
            }
        }
    }

    /// Behind the loop: the places go back.
    pub(crate) fn end(self, code: &mut Code<'_>) {
        for (_, range) in &self.tiles {
            match self.way {
                Way::Threads { .. } => code.shared.hazards.note_written(*range),
                Way::Tensor(pipeline) => code.shared.hazards.note_released(*range, pipeline.0),
            }
        }
        if let Way::Tensor(_) = self.way {
            code.pipelines.close();
        }
        for (value, _) in self.tiles {
            code.shared.release(value);
        }
    }
}
