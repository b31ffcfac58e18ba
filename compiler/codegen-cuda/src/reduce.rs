//! Operations that combine elements of several threads: reductions, running sums, transposition.
//!
//! Along an axis, elements are combined digit by digit of its layout: within a thread, between lanes by shuffles,
//! between warps through shared memory. The order is fixed, so results are the same in every run.

use linc_tile::{Reduction, ValueId};

use crate::CodegenError;
use crate::assign::Place;
use crate::emit::{Def, Emitter};
use crate::layout::Axis;

impl Emitter<'_> {
    /// The axis that is combined, the other one if there is one.
    fn split(&self, value: ValueId, axis: usize) -> (Axis, Option<Axis>) {
        match self.assignment.place(value) {
            Place::Matrix(l) => {
                if axis == 0 {
                    (l.rows, Some(l.cols))
                } else {
                    (l.cols, Some(l.rows))
                }
            }
            Place::Vector(along) => (along, None),
            Place::Scalar => unreachable!("verified: a scalar has no axis"),
        }
    }

    /// The element at slot `s` along the combined axis and `o` along the other one; `neutral` beyond the end.
    fn along(&mut self, value: ValueId, axis: usize, along: Axis, neutral: &str) -> String {
        let slots = match self.assignment.place(value) {
            Place::Matrix(_) if axis == 1 => ["o", "s"],
            Place::Matrix(_) => ["s", "o"],
            Place::Vector(_) | Place::Scalar => ["s", ""],
        };
        let element = self.element(value, slots);
        if along.exact() {
            return element;
        }
        let at = self.position(along, "s");
        format!("({at} < {} ? {element} : {neutral})", along.extent)
    }

    pub(crate) fn reduce(&mut self, op: Reduction, axis: usize, value: ValueId, result: ValueId) {
        let (along, other) = self.split(value, axis);
        let (neutral, combine): (&str, fn(&str, &str) -> String) = match op {
            Reduction::Sum => ("0.0f", |a, b| format!("{a} + {b}")),
            Reduction::Max => ("-LINC_INFINITY", |a, b| format!("fmaxf({a}, {b})")),
        };
        let natural = self.name(result);
        let natural = if self.moves(result, other) { self.temporary(&natural) } else { natural };
        let count = other.map_or(1, |o| o.slots());
        let (declared, target) = match other {
            Some(_) => (format!("float {natural}[{count}];"), format!("{natural}[o]")),
            None => (format!("float {natural};"), natural.clone()),
        };
        self.state.out.line(declared);
        if other.is_some() {
            self.state.out.unrolled("o", count, 1);
        }
        self.state.out.line(format!("{target} = {neutral};"));
        self.state.out.unrolled("s", along.slots(), 1);
        let element = self.along(value, axis, along, neutral);
        self.state.out.line(format!("{target} = {};", combine(&target, &element)));
        self.state.out.close();
        for mask in along.lane_masks() {
            self.state
                .out
                .line(format!("{target} = {};", combine(&target, &format!("shuffle_xor({target}, {mask})"))));
        }
        if other.is_some() {
            self.state.out.close();
        }
        if along.warps > 1 {
            self.combine_warps(&natural, along, other, combine);
        }
        match other {
            None => self.define(result, Def::Scalar(natural)),
            Some(other) => self.define_moved(result, natural, other),
        }
    }

    /// Whether a vector that is made along an axis belongs along another.
    fn moves(&self, result: ValueId, made: Option<Axis>) -> bool {
        made.is_some_and(|made| self.assignment.place(result) != Place::Vector(made))
    }

    /// Defines a vector that was made along an axis, and moves it to where it belongs.
    fn define_moved(&mut self, result: ValueId, made: String, along: Axis) {
        self.define(result, Def::Array(made));
        let Place::Vector(own) = self.assignment.place(result) else {
            unreachable!("verified: a matrix is reduced to a vector")
        };
        if own != along {
            let moved = self.convert(result, along, own);
            self.define(result, Def::Array(moved));
        }
    }

    /// Combines what each warp has, in the order of the warps; afterwards all have all.
    fn combine_warps(
        &mut self,
        name: &str,
        along: Axis,
        other: Option<Axis>,
        combine: fn(&str, &str) -> String,
    ) {
        let width = other.map_or(1, |o| o.covered());
        let range = self.scratch(along.warps * width);
        self.writes(range);
        let warp = digit("warp", along.warp_bit, along.warps);
        self.open_holders(along, other);
        let (element, at) = match other {
            Some(axis) => {
                self.state.out.unrolled("o", axis.slots(), 1);
                (format!("{name}[o]"), self.position(axis, "o"))
            }
            None => (name.to_string(), "0".into()),
        };
        self.state
            .out
            .line(format!("shared_store({} + ({warp} * {width} + {at}) * 4, {element});", range.at));
        if other.is_some() {
            self.state.out.close();
        }
        self.state.out.close();
        self.reads(range);
        if let Some(axis) = other {
            self.state.out.unrolled("o", axis.slots(), 1);
        }
        self.state.out.line(format!("{element} = shared_load({} + {at} * 4);", range.at));
        self.state.out.line("#pragma unroll");
        let next = format!("shared_load({} + (w * {width} + {at}) * 4)", range.at);
        self.state.out.line(format!(
            "for (int w = 1; w < {}; ++w) {element} = {};",
            along.warps,
            combine(&element, &next)
        ));
        if other.is_some() {
            self.state.out.close();
        }
        self.shared.give(range);
    }

    /// Running sums: first within the digits of a warp, then what the warps and rounds before add.
    pub(crate) fn scan(
        &mut self,
        axis: usize,
        reverse: bool,
        value: ValueId,
        result: ValueId,
    ) -> Result<(), CodegenError> {
        let (along, other) = self.split(value, axis);
        let name = self.name(result);
        let declaration = self.declare(result, &name);
        self.state.out.line(format!("{declaration};"));
        let totals = self.temporary("total");
        let count = other.map_or(1, |o| o.slots());
        self.state.out.line(format!("float {totals}[{}][{count}];", along.outer));
        let at = |s: &str| match (other, axis) {
            (None, _) => format!("{name}[{s}]"),
            (Some(_), 0) => format!("{name}[{s}][o]"),
            (Some(_), _) => format!("{name}[o][{s}]"),
        };
        let order =
            |n: usize| -> Vec<usize> { if reverse { (0..n).rev().collect() } else { (0..n).collect() } };
        self.state.out.unrolled("o", count, 1);
        // Slots are numbered outer, mid, inner; each group of `inner` neighbours is summed, then lanes, then `mid`.
        self.state.out.unrolled("b", along.outer, 1);
        self.state.out.line("float before = 0.0f;");
        for mid in order(along.mid) {
            self.state.out.open("");
            self.state.out.line("float sum = 0.0f;");
            let slot = |e: usize| format!("b * {} + {}", along.mid * along.inner, mid * along.inner + e);
            for e in order(along.inner) {
                self.state.out.open("");
                self.state.out.line(format!("const int s = {};", slot(e)));
                let element = self.along(value, axis, along, "0.0f");
                self.state.out.line(format!("sum += {element};"));
                self.state.out.line(format!("{} = sum;", at("s")));
                self.state.out.close();
            }
            let (lanes, bit) = (along.lanes, along.lane_bit);
            self.state
                .out
                .line(format!("const float upto = scan_lanes<{lanes}, {bit}, {reverse}>(sum, lane);"));
            for e in order(along.inner) {
                self.state.out.line(format!("{} += before + (upto - sum);", at(&slot(e))));
            }
            self.state.out.line(format!("before += last_lane<{lanes}, {bit}, {reverse}>(upto, lane);"));
            self.state.out.close();
        }
        self.state.out.line(format!("{totals}[b][o] = before;"));
        self.state.out.close();
        self.state.out.close();
        if along.warps > 1 || along.outer > 1 {
            self.add_before(&totals, along, other, reverse, &at);
        }
        self.define(result, Def::Array(name));
        Ok(())
    }

    /// Adds the totals of the warps and rounds before to every element.
    fn add_before(
        &mut self,
        totals: &str,
        along: Axis,
        other: Option<Axis>,
        reverse: bool,
        at: &dyn Fn(&str) -> String,
    ) {
        let width = other.map_or(1, |o| o.covered());
        let count = other.map_or(1, |o| o.slots());
        let parts = along.outer * along.warps;
        let range = self.scratch(parts * width);
        self.writes(range);
        let warp = digit("warp", along.warp_bit, along.warps);
        let place = match other {
            Some(axis) => self.position(axis, "o"),
            None => "0".into(),
        };
        self.open_holders(along, other);
        self.state.out.unrolled("o", count, 1);
        self.state.out.unrolled("b", along.outer, 1);
        self.state.out.line(format!(
            "shared_store({} + ((b * {} + {warp}) * {width} + {place}) * 4, {totals}[b][o]);",
            range.at, along.warps
        ));
        self.state.out.close();
        self.state.out.close();
        self.state.out.close();
        self.reads(range);
        self.state.out.unrolled("o", count, 1);
        self.state.out.line("float before = 0.0f;");
        self.state.out.line("#pragma unroll");
        let step = if reverse {
            format!("const int part = {} - p;", parts - 1)
        } else {
            "const int part = p;".into()
        };
        self.state.out.open(format!("for (int p = 0; p < {parts}; ++p)"));
        self.state.out.line(step);
        self.state.out.open(format!("if (part % {} == {warp})", along.warps));
        let per = along.mid * along.inner;
        self.state.out.unrolled("e", per, 1);
        self.state.out.line(format!("{} += before;", at(&format!("part / {} * {per} + e", along.warps))));
        self.state.out.close();
        self.state.out.close();
        self.state.out.line(format!("before += shared_load({} + (part * {width} + {place}) * 4);", range.at));
        self.state.out.close();
        self.state.out.close();
        self.shared.give(range);
    }

    /// Opens a block for one lane of those that hold the same totals: the first along the axis, and of a vector, which
    /// all other lanes and warps hold alike, the first of all.
    fn open_holders(&mut self, along: Axis, other: Option<Axis>) {
        let single = Axis { lanes: 1, ..along };
        match other {
            Some(_) => {
                self.state.out.open(format!("if ({} == 0)", digit("lane", along.lane_bit, along.lanes)))
            }
            None => self.open_writers(single),
        }
    }

    /// Through shared memory, with rows of odd length.
    pub(crate) fn transpose(&mut self, value: ValueId, result: ValueId) {
        let (place, turned) = (self.assignment.place(value), self.assignment.place(result));
        let (Place::Matrix(from), Place::Matrix(to)) = (place, turned) else {
            unreachable!("verified: a matrix is transposed")
        };
        let pitch = from.cols.extent | 1;
        let range = self.scratch(from.rows.extent * pitch);
        self.writes(range);
        let slots = self.open_slots(place, 1);
        let (i, j) = (self.position(from.rows, slots[0]), self.position(from.cols, slots[1]));
        let element = self.element(value, slots);
        let guard = if from.rows.exact() && from.cols.exact() {
            String::new()
        } else {
            format!("if ({i} < {} && {j} < {}) ", from.rows.extent, from.cols.extent)
        };
        self.state
            .out
            .line(format!("{guard}shared_store({} + ({i} * {pitch} + {j}) * 4, {element});", range.at));
        self.close_slots(place);
        self.reads(range);
        let name = self.name(result);
        let declaration = self.declare(result, &name);
        self.state.out.line(format!("{declaration};"));
        let slots = self.open_slots(turned, 1);
        let mut at = [self.position(to.rows, slots[0]), self.position(to.cols, slots[1])];
        for (at, axis) in at.iter_mut().zip([to.rows, to.cols]) {
            if !axis.exact() {
                *at = format!("int_min({at}, {})", axis.extent - 1);
            }
        }
        self.state.out.line(format!(
            "{name}[r][c] = shared_load({} + ({} * {pitch} + {}) * 4);",
            range.at, at[1], at[0]
        ));
        self.close_slots(turned);
        self.shared.give(range);
        self.define(result, Def::Array(name));
    }
}

/// A digit of the warp or lane number.
pub(crate) fn digit(name: &str, bit: u32, count: usize) -> String {
    match (bit, count) {
        (_, 1) => "0".into(),
        (0, _) => format!("({name} & {})", count - 1),
        (_, _) => format!("({name} >> {bit} & {})", count - 1),
    }
}
