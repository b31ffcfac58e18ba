//! Loads and stores: registers to and from global memory in accesses as wide as alignment allows, and tiles that
//! products read as background copies to shared memory, for the next round of a loop while this one computes.

use linc_tile::{Elem, Mode, ValueId, View};

use crate::CodegenError;
use crate::assign::{Place, WIDE, by_pieces, memory_bytes};
use crate::emit::{Def, Emitter};
use crate::expression::c_type;
use crate::layout::Axis;
use crate::product::SharedTile;
use crate::usage::gcd;

impl<'k> Emitter<'k> {
    // ---- addresses ----

    /// Neighbours along the last axis that one access moves.
    fn per_access(&self, place: Place, view: &View) -> usize {
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

    /// What tells apart which thread touches which element. Several threads hold, and load, an element of a scalar and
    /// of most vectors, of which one stores it.
    fn map(&self, place: Place, view: &View, use_: &str) -> String {
        let strides: Vec<i64> = view.axes.iter().map(|a| a.stride).collect();
        let alone = match place {
            Place::Scalar => false,
            Place::Vector(axis) => axis.lanes * axis.warps == self.threads(),
            Place::Matrix(_) => true,
        };
        let use_ = if alone { "" } else { use_ };
        format!("{:?} {strides:?} {place:?}{use_}", self.root(view.offset))
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

    /// Pointer to the view's first element.
    fn pointer(&mut self, view: &View, constant: bool) -> String {
        let param = self.kernel.param(view.param);
        let name = self.temporary(&param.name);
        let (offset, ty) = (self.scalar(view.offset), memory_type(param.elem));
        let qualifier = if constant { "const " } else { "" };
        self.state.out.line(format!("{qualifier}{ty}* {name} = {} + {offset};", param.name));
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
            let (param, offset) = (&self.kernel.param(view.param).name, self.scalar(view.offset));
            self.state.out.line(format!("{ty} {name};"));
            self.state.out.line(format!("load<1>(&{name}, {param} + {offset});"));
            self.define(result, Def::Scalar(name));
            return Ok(());
        }
        if self.assignment.copied[at] {
            if !self.state.tiles.contains_key(&result) {
                self.before_load(place, view);
                let mut tile = SharedTile::of(self.kernel.ty(result), self.current());
                tile.range = self.shared.take(tile.bytes());
                tile.at = tile.range.at.to_string();
                self.wait(self.state.hazards.before_write(tile.range));
                self.copy(view, &tile, &tile.at.clone());
                self.state.out.line("copy_async_commit();");
                self.state.hazards.note_copy(tile.range);
                self.state.tiles.insert(result, tile);
            }
            if self.assignment.unpacked[at] {
                self.unpack(result);
            } else {
                self.define(result, Def::SharedOnly);
            }
            return Ok(());
        }
        self.load_registers(result, view, place);
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
        let (from, at, mut conditions) = self.open_view(view, place, width, true);
        let index: String = ["[r]", "[c]"][..at.len()].concat();
        let to = format!("&{name}{index}");
        let last = at.len() - 1;
        // A bound may cut an access in the middle.
        let partly = view.axes[last]
            .bound
            .filter(|b| !self.usage.divisor(*b).is_multiple_of(width as u64) && width > 1);
        if partly.is_some() {
            // The condition on the last axis is the last one: `j < limit`.
            let cut = conditions.pop().unwrap_or_default();
            let limit = cut.rsplit(' ').next().unwrap_or_default().to_string();
            let count = if conditions.is_empty() {
                format!("{limit} - {}", at[last])
            } else {
                format!("{} ? {limit} - {} : 0", conditions.join(" && "), at[last])
            };
            self.state.out.line(format!("load_some<{width}>({to}, {from}, {count});"));
        } else if conditions.is_empty() {
            self.state.out.line(format!("load<{width}>({to}, {from});"));
        } else {
            self.state.out.line(format!("if ({}) load<{width}>({to}, {from});", conditions.join(" && ")));
            self.state.out.line(format!("else clear<{width}>({to});"));
        }
        self.close_slots(place);
        self.state.out.close();
        self.define(result, Def::Array(name));
    }

    /// Opens the loops over a view's elements, `width` slots at a time; returns the address of an access, the names of
    /// its positions, and the conditions under which it is there.
    pub(crate) fn open_view(
        &mut self,
        view: &View,
        place: Place,
        width: usize,
        constant: bool,
    ) -> (String, Vec<String>, Vec<String>) {
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
        let conditions = conditions(&at, &limits);
        (address, at, conditions)
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
            "copy_async16({at} + swizzled<{}>(i, j), {pointer} + ((index)i * {} + j * 8), {valid});",
            tile.pieces(),
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

    pub(crate) fn before_store(&mut self, place: Place, view: &View) {
        let map = self.map(place, view, " store");
        self.wait(self.state.hazards.before_store(view.param.0, &map));
        self.state.hazards.note_store(view.param.0, &map);
    }

    pub(crate) fn store(&mut self, value: ValueId, view: &View) -> Result<(), CodegenError> {
        let place = self.assignment.place(value);
        self.before_store(place, view);
        let elem = c_type(self.kernel.ty(value).elem);
        if place == Place::Scalar {
            let (param, offset) = (&self.kernel.param(view.param).name, self.scalar(view.offset));
            let text = self.scalar(value);
            self.state.out.open("if (thread == 0)");
            self.state.out.line(format!("const {elem} out[1] = {{{text}}};"));
            self.state.out.line(format!("store<1>({param} + {offset}, out);"));
            self.state.out.close();
            return Ok(());
        }
        let ty = self.kernel.ty(value);
        if self.assignment.products && by_pieces(self.kernel, &self.usage, &self.options.alignment, view, ty)
        {
            return self.store_pieces(value, view);
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
        let (to, at, conditions) = self.open_view(view, place, width, false);
        let last = at.len() - 1;
        let elements: Vec<String> = (0..width)
            .map(|e| {
                let mut slots = ["r".to_string(), "c".to_string()];
                if e > 0 {
                    slots[last] = format!("{} + {e}", slots[last]);
                }
                self.element(value, [&slots[0], &slots[1]])
            })
            .collect();
        self.state.out.line(format!("const {elem} out[{width}] = {{{}}};", elements.join(", ")));
        let guard =
            if conditions.is_empty() { String::new() } else { format!("if ({}) ", conditions.join(" && ")) };
        self.state.out.line(format!("{guard}store<{width}>({to}, out);"));
        self.close_slots(place);
        self.state.out.close();
        Ok(())
    }

    /// A bf16 matrix in the layout of products, by way of shared memory: a lane holds only pairs of neighbours.
    fn store_pieces(&mut self, value: ValueId, view: &View) -> Result<(), CodegenError> {
        let mut tile = SharedTile::of(self.kernel.ty(value), self.current());
        tile.range = self.shared.take(tile.bytes());
        tile.at = tile.range.at.to_string();
        self.write_tile(value, &tile);
        self.reads(tile.range);
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
            "{guard}shared_to_global16({pointer} + ((index)i * {} + j * 8), {} + swizzled<{}>(i, j));",
            view.axes[0].stride,
            tile.at,
            tile.pieces()
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

fn conditions(at: &[String], limits: &[Option<String>]) -> Vec<String> {
    at.iter().zip(limits).filter_map(|(at, limit)| Some(format!("{at} < {}", limit.as_ref()?))).collect()
}

/// Type of an element in memory.
pub(crate) fn memory_type(elem: Elem) -> &'static str {
    match elem {
        Elem::F32 => "float",
        Elem::Bf16 => "bf16",
        Elem::I32 | Elem::Index | Elem::Bool => "int",
    }
}
