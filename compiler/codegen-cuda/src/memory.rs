//! Loads and stores: registers to and from global memory in accesses as wide as alignment allows, and tiles that
//! products read as background copies to shared memory, for the next round of a loop while this one computes.

use linc_tile::{Elem, Mode, ValueId, View};

use crate::CodegenError;
use crate::assign::{Place, WIDE, by_pieces, memory_bytes};
use crate::emit::{Def, Emitter};
use crate::expression::c_type;
use crate::layout::Axis;
use crate::operand::SharedTile;
use crate::shared::round_of;
use crate::usage::gcd;

/// The use of a tile that is dealt out to the threads by pieces, whatever the layout in registers.
const PIECES: &str = " pieces";

/// One access in a loop over a view.
pub(crate) struct Access {
    /// Address of its first element.
    pub address: String,
    /// Names of its positions along the axes.
    pub at: Vec<String>,
    /// How far each axis goes, if not all of the layout exists.
    limits: Vec<Option<String>>,
}

impl Access {
    /// Whether it is inside along the first `axes` axes, if it may not be.
    pub(crate) fn condition(&self, axes: usize) -> Option<String> {
        let limited = self.at.iter().zip(&self.limits).take(axes);
        let conditions: Vec<String> =
            limited.filter_map(|(at, limit)| Some(format!("{at} < {}", limit.as_ref()?))).collect();
        (!conditions.is_empty()).then(|| conditions.join(" && "))
    }

    /// What stands before an access that may not be inside.
    pub(crate) fn guard(&self) -> String {
        self.condition(self.at.len()).map_or(String::new(), |inside| format!("if ({inside}) "))
    }
}

impl<'k> Emitter<'k> {
    // ---- addresses ----

    /// Neighbours along the last axis that one access moves.
    pub(crate) fn per_access(&self, place: Place, view: &View) -> usize {
        let param = self.kernel.param(view.param);
        let size = memory_bytes(param.elem);
        let (axis, outer) = match place {
            Place::Scalar => return 1,
            Place::Vector(axis) => (axis, 0),
            Place::Matrix(layout) => (layout.cols, view.axes[0].stride.unsigned_abs()),
        };
        if view.axes.last().is_none_or(|a| a.stride != 1) {
            return 1;
        }
        let aligned = u64::from(self.options.alignment[view.param.0 as usize]) / size;
        let common =
            [aligned.max(1), self.usage.divisor(view.offset), outer, axis.extent as u64, WIDE / size];
        let common = common.into_iter().fold(axis.inner as u64, gcd);
        // A power of two divides the rest.
        1 << common.trailing_zeros().min(3)
    }

    /// Whether each element is in one thread.
    pub(crate) fn alone(&self, place: Place) -> bool {
        match place {
            Place::Scalar => false,
            Place::Vector(axis) => axis.lanes * axis.warps == self.threads(),
            Place::Matrix(_) => true,
        }
    }

    /// Whether a bound may cut an access of that many elements in the middle.
    pub(crate) fn cut(&self, view: &View, width: usize) -> bool {
        let bound = view.axes.last().and_then(|axis| axis.bound);
        bound.is_some_and(|bound| !self.usage.divisor(bound).is_multiple_of(width as u64))
    }

    /// What tells apart which thread touches which element. Several threads hold, and load, an element of a scalar and
    /// of most vectors, of which one stores it.
    fn map(&self, place: Place, view: &View, use_: &str) -> String {
        let strides: Vec<i64> = view.axes.iter().map(|a| a.stride).collect();
        let use_ = if self.alone(place) && use_ != PIECES { "" } else { use_ };
        let round = match self.loops.last() {
            Some(around) if self.advances(place, view) => round_of(&self.name(around.body.args[0])),
            _ => String::new(),
        };
        format!("{:?} {strides:?} {place:?}{use_}{round}", self.root(view.offset))
    }

    /// A condition on positions along an axis, if there is one: `position < limit`.
    fn limit(&mut self, axis: Axis, bound: Option<ValueId>) -> Option<String> {
        match bound {
            Some(bound) => {
                let (bound, name) = (self.scalar(bound), self.temporary("limit"));
                self.state.out.line(format!("const int {name} = below({bound}, {});", axis.extent));
                Some(name)
            }
            None => (!axis.exact()).then(|| axis.extent.to_string()),
        }
    }

    /// The name of a view's parameter.
    fn param_name(&self, view: &View) -> String {
        self.names.params[view.param.0 as usize].clone()
    }

    /// Pointer to the view's first element.
    fn pointer(&mut self, view: &View, constant: bool) -> String {
        let param = self.param_name(view);
        let name = self.temporary(&param);
        let (offset, ty) = (self.scalar(view.offset), memory_type(self.kernel.param(view.param).elem));
        let qualifier = if constant { "const " } else { "" };
        self.state.out.line(format!("{qualifier}{ty}* {name} = {param} + {offset};"));
        name
    }

    /// `i * stride + j * stride` for a view with these axes.
    fn element_offset(places: &[(Axis, i64)], at: &[String]) -> String {
        let reach: i64 = places.iter().map(|(axis, stride)| axis.covered() as i64 * stride.abs()).sum();
        let cast = if reach < 1 << 31 { "" } else { "(index)" };
        let part = |(at, (_, stride)): (&String, &(Axis, i64))| match stride {
            0 => None,
            1 => Some(format!("{cast}{at}")),
            _ => Some(format!("{cast}{at} * {stride}")),
        };
        let parts: Vec<String> = at.iter().zip(places).filter_map(part).collect();
        if parts.is_empty() { "0".into() } else { parts.join(" + ") }
    }

    // ---- loads ----

    pub(crate) fn load(&mut self, result: ValueId, view: &View) -> Result<(), CodegenError> {
        let at = result.0 as usize;
        let place = self.assignment.place(result);
        if place == Place::Scalar {
            self.before_load(place, view);
            let (name, ty) = (self.name(result), c_type(self.kernel.ty(result).elem));
            let (param, offset) = (&self.param_name(view), self.scalar(view.offset));
            self.state.out.line(format!("{ty} {name};"));
            self.state.out.line(format!("load<1>(&{name}, {param} + {offset});"));
            self.define(result, Def::Scalar(name));
            return Ok(());
        }
        if self.assignment.copied[at] {
            if !self.state.tiles.contains_key(&result) {
                self.before_load(place, view);
                let tile = self.new_tile(result);
                self.wait(self.state.hazards.before_write(tile.range));
                self.copy(view, &tile, &tile.at.clone());
                self.state.out.line("copy_async_commit();");
                self.state.hazards.note_copy(tile.range);
                self.note_operand(result, tile.range);
                self.state.tiles.insert(result, tile);
            }
            if self.assignment.unpacked[at] {
                self.unpack(result);
            } else {
                self.define(result, Def::SharedOnly);
            }
            return Ok(());
        }
        match self.state.streamed.get(&result).cloned() {
            Some(at) => self.load_own(result, &at),
            None => self.load_registers(result, view, place),
        }
        self.stage_if_needed(result)
    }

    pub(crate) fn before_load(&mut self, place: Place, view: &View) {
        if self.kernel.param(view.param).mode == Mode::ReadWrite {
            let map = self.map(place, view, " load");
            self.wait(self.state.hazards.before_load(view.param.0, &map));
            self.state.hazards.note_load(view.param.0, &map);
        }
    }

    fn load_registers(&mut self, result: ValueId, view: &View, place: Place) {
        self.before_load(place, view);
        let name = self.name(result);
        let declaration = self.declare(result, &name);
        self.state.out.line(format!("{declaration};"));
        let width = self.per_access(place, view);
        self.state.out.open("");
        let access = self.open_view(view, place, width, true);
        let Access { address: from, at, limits } = &access;
        let index: String = ["[r]", "[c]"][..at.len()].concat();
        let to = format!("&{name}{index}");
        let last = at.len() - 1;
        let cut = self.cut(view, width);
        let line = match (&limits[last], access.condition(at.len()), access.condition(last)) {
            (Some(limit), _, outer) if cut && width > 1 => {
                let left = format!("{limit} - {}", at[last]);
                let count = outer.map_or(left.clone(), |outer| format!("{outer} ? {left} : 0"));
                format!("load_some<{width}>({to}, {from}, {count});")
            }
            (_, None, _) => format!("load<{width}>({to}, {from});"),
            (_, Some(inside), _) => {
                self.state.out.line(format!("if ({inside}) load<{width}>({to}, {from});"));
                format!("else clear<{width}>({to});")
            }
        };
        self.state.out.line(line);
        self.close_slots(place);
        self.state.out.close();
        self.define(result, Def::Array(name));
    }

    /// Opens the loops over a view's elements, `width` slots at a time.
    pub(crate) fn open_view(&mut self, view: &View, place: Place, width: usize, constant: bool) -> Access {
        let places = axes_of(place, view);
        let pointer = self.pointer(view, constant);
        let limits: Vec<Option<String>> =
            places.iter().zip(&view.axes).map(|((axis, _), a)| self.limit(*axis, a.bound)).collect();
        let slots = self.open_slots(place, width);
        let mut at = vec![];
        for (name, ((axis, _), slot)) in ["i", "j"].iter().zip(places.iter().zip(slots)) {
            let position = self.position(*axis, slot);
            self.state.out.line(format!("const int {name} = {position};"));
            at.push(name.to_string());
        }
        let address = format!("{pointer} + ({})", Self::element_offset(&places, &at));
        Access { address, at, limits }
    }

    /// Starts the copies of a tile, zeros beyond its bounds and in its padding. Every thread copies some pieces.
    pub(crate) fn copy(&mut self, view: &View, tile: &SharedTile, at: &str) {
        self.state.out.open("");
        let pointer = self.pointer(view, true);
        let (pieces, real) = (tile.cols / 8, tile.extent[1] / 8);
        let mut conditions = vec![];
        if let Some(bound) = view.axes[0].bound {
            let bound = self.scalar(bound);
            self.state.out.line(format!("const int rows = below({bound}, {});", tile.extent[0]));
            conditions.push("i < rows".to_string());
        } else if tile.rows > tile.extent[0] {
            conditions.push(format!("i < {}", tile.extent[0]));
        }
        if let Some(bound) = view.axes[1].bound {
            let bound = self.scalar(bound);
            self.state.out.line(format!("const int cols = below({bound}, {});", tile.extent[1]));
            conditions.push("j * 8 < cols".to_string());
        } else if pieces > real {
            conditions.push(format!("j < {real}"));
        }
        let valid = if conditions.is_empty() { "true".into() } else { conditions.join(" && ") };
        self.open_pieces(tile.rows, pieces);
        self.state.out.line(format!(
            "copy_async16({}, {pointer} + ((index)i * {} + j * 8), {valid});",
            tile.piece_of(at, "i", "j"),
            view.axes[0].stride
        ));
        self.state.out.close();
        self.state.out.close();
    }

    /// Opens a loop that deals the 16-byte pieces `(i, j)` of a tile out to the threads.
    fn open_pieces(&mut self, rows: usize, pieces: usize) {
        let (total, threads) = (rows * pieces, self.threads());
        if total.is_multiple_of(threads) {
            self.state.out.line("#pragma unroll");
            self.state.out.open(format!("for (int p = 0; p < {}; ++p)", total / threads));
            self.state.out.line(format!("const int piece = p * {threads} + thread;"));
        } else {
            self.state.out.open(format!("for (int piece = thread; piece < {total}; piece += {threads})"));
        }
        self.state.out.line(format!("const int i = piece / {pieces}, j = piece % {pieces};"));
    }

    // ---- stores ----

    /// Announces a store that is written next.
    pub(crate) fn before_store(&mut self, place: Place, view: &View, pieces: bool) {
        let map = self.map(place, view, if pieces { PIECES } else { " store" });
        self.wait(self.state.hazards.before_store(view.param.0, &map));
        self.state.hazards.note_store(view.param.0, &map);
    }

    pub(crate) fn store(&mut self, value: ValueId, view: &View) -> Result<(), CodegenError> {
        let place = self.assignment.place(value);
        let ty = self.kernel.ty(value);
        let pieces = self.assignment.products
            && by_pieces(self.kernel, &self.usage, &self.options.alignment, view, ty);
        if pieces {
            return self.store_pieces(value, view, place);
        }
        self.before_store(place, view, false);
        let elem = c_type(self.kernel.ty(value).elem);
        if place == Place::Scalar {
            let (param, offset) = (&self.param_name(view), self.scalar(view.offset));
            let text = self.scalar(value);
            self.state.out.open("if (thread == 0)");
            self.state.out.line(format!("const {elem} stored[1] = {{{text}}};"));
            self.state.out.line(format!("store<1>({param} + {offset}, stored);"));
            self.state.out.close();
            return Ok(());
        }
        let width = self.per_access(place, view);
        let width = match view.axes.last().and_then(|a| a.bound) {
            // Where a bound cuts an access, elements go one by one.
            Some(bound) => gcd(width as u64, self.usage.divisor(bound)) as usize,
            None => width,
        };
        match place {
            Place::Vector(axis) => self.open_writers(axis),
            Place::Scalar | Place::Matrix(_) => self.state.out.open(""),
        }
        let access = self.open_view(view, place, width, false);
        let last = access.at.len() - 1;
        let elements: Vec<String> = (0..width)
            .map(|e| {
                let mut slots = ["r".to_string(), "c".to_string()];
                if e > 0 {
                    slots[last] = format!("{} + {e}", slots[last]);
                }
                self.element(value, [&slots[0], &slots[1]])
            })
            .collect();
        self.state.out.line(format!("const {elem} stored[{width}] = {{{}}};", elements.join(", ")));
        let (to, guard) = (&access.address, access.guard());
        self.state.out.line(format!("{guard}store<{width}>({to}, stored);"));
        self.close_slots(place);
        self.state.out.close();
        Ok(())
    }

    /// Each element from the thread that holds it. Where it goes is not known: whatever else touches the parameter waits.
    pub(crate) fn scatter(&mut self, to: &View, places: ValueId, value: ValueId) {
        let place = self.assignment.place(value);
        let Place::Vector(axis) = place else { unreachable!("verified: scatter takes a vector") };
        let map = self.temporary("scatter");
        self.wait(self.state.hazards.before_store(to.param.0, &map));
        self.state.hazards.note_store(to.param.0, &map);
        self.open_writers(axis);
        let pointer = self.pointer(to, false);
        let [slot, _] = self.open_slots(place, 1);
        let (at, text) = (self.element(places, [slot, ""]), self.element(value, [slot, ""]));
        let mut conditions = vec![format!("{at} >= 0")];
        if !axis.exact() {
            conditions.push(format!("{} < {}", self.position(axis, slot), axis.extent));
        }
        let elem = c_type(self.kernel.ty(value).elem);
        self.state.out.line(format!("const {elem} stored[1] = {{{text}}};"));
        self.state.out.line(format!("if ({}) store<1>({pointer} + {at}, stored);", conditions.join(" && ")));
        self.close_slots(place);
        self.state.out.close();
    }

    /// A matrix of 16-bit elements in the layout of products, by way of shared memory: a lane holds only pairs of neighbours.
    fn store_pieces(&mut self, value: ValueId, view: &View, place: Place) -> Result<(), CodegenError> {
        let tile = self.new_tile(value);
        self.write_tile(value, &tile);
        self.reads(tile.range);
        self.before_store(place, view, true);
        // The wait may have been a barrier, which ends what was noted before.
        self.state.hazards.note_read(tile.range);
        self.state.out.open("");
        let pointer = self.pointer(view, false);
        let mut conditions = vec![];
        for (name, scale, axis) in [("i", "", 0), ("j", " * 8", 1)] {
            if let Some(bound) = view.axes[axis].bound {
                let (bound, limit) = (self.scalar(bound), self.temporary("limit"));
                self.state.out.line(format!("const int {limit} = below({bound}, {});", tile.extent[axis]));
                conditions.push(format!("{name}{scale} < {limit}"));
            }
        }
        self.open_pieces(tile.extent[0], tile.extent[1] / 8);
        let guard =
            if conditions.is_empty() { String::new() } else { format!("if ({}) ", conditions.join(" && ")) };
        self.state.out.line(format!(
            "{guard}shared_to_global16({pointer} + ((index)i * {} + j * 8), {});",
            view.axes[0].stride,
            tile.piece("i", "j")
        ));
        self.state.out.close();
        self.state.out.close();
        self.shared.give(tile.range);
        Ok(())
    }
}

/// The axes of a tile with the strides of a view.
fn axes_of(place: Place, view: &View) -> Vec<(Axis, i64)> {
    match place {
        Place::Scalar => vec![],
        Place::Vector(axis) => vec![(axis, view.axes[0].stride)],
        Place::Matrix(l) => vec![(l.rows, view.axes[0].stride), (l.cols, view.axes[1].stride)],
    }
}

/// Type of an element in memory.
pub(crate) fn memory_type(elem: Elem) -> &'static str {
    match elem {
        Elem::F32 => "float",
        Elem::Bf16 => "bf16",
        Elem::F16 => "f16",
        Elem::I32 | Elem::Index | Elem::Bool => "int",
    }
}
