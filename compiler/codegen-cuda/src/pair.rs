//! Even and odd elements, as rotations of feature pairs load and store them: two tiles with stride 2 whose offsets
//! differ by one are one contiguous range, which moves in accesses of both.

use linc_tile::{Binary, Op, Stmt, ValueId, View};

use crate::CodegenError;
use crate::assign::{Place, WIDE, memory_bytes};
use crate::emit::{Def, Emitter};
use crate::expression::c_type;
use crate::usage::gcd;

impl<'k> Emitter<'k> {
    /// Writes the first of the statements if it is half of a pair: the first half writes both, the second nothing.
    /// False if it is to be written by itself.
    pub(crate) fn pair(&mut self, body: &'k [Stmt]) -> Result<bool, CodegenError> {
        let first = &body[0];
        if let Some(done) = self.state.paired
            && done == address(first)
        {
            self.state.paired = None;
            return Ok(true);
        }
        let (Op::Load(even) | Op::Store(even, _)) = &first.op else { return Ok(false) };
        // Between the halves may be what has no effect: casts of the first, and the second's offset.
        let between = |s: &&Stmt| match s.op {
            Op::Cast(_) => self.root(s.results[0]) != s.results[0],
            Op::ConstI(_) | Op::Binary(..) => self.kernel.ty(s.results[0]).shape.is_empty(),
            _ => false,
        };
        let Some(second) = body[1..].iter().find(|s| !between(s)) else { return Ok(false) };
        let halves = match (&first.op, &second.op) {
            (Op::Load(_), Op::Load(odd)) => Some((first.results[0], second.results[0], odd)),
            (Op::Store(_, x), Op::Store(odd, y)) => Some((*x, *y, odd)),
            _ => None,
        };
        let Some((x, y, odd)) = halves else { return Ok(false) };
        let place = self.assignment.place(x);
        if place == Place::Scalar || place != self.assignment.place(y) || !self.are_neighbours(even, odd) {
            return Ok(false);
        }
        let width = self.pairs_per_access(place, even);
        // An access that a bound cuts would need more care than it is worth.
        let last = even.axes.len() - 1;
        let whole = even.axes[last].bound.is_none_or(|b| self.usage.divisor(b).is_multiple_of(width as u64));
        if width == 0 || !whole {
            return Ok(false);
        }
        match first.op {
            Op::Load(_) => self.load_pair([x, y], even, place, width)?,
            _ => self.store_pair([x, y], even, place, width),
        }
        self.state.paired = Some(address(second));
        Ok(true)
    }

    /// Whether the views are the even and the odd elements of one range.
    fn are_neighbours(&self, even: &View, odd: &View) -> bool {
        if even.param != odd.param || even.axes != odd.axes || even.axes.last().is_none_or(|a| a.stride != 2)
        {
            return false;
        }
        match self.definition(odd.offset) {
            Some(Op::Binary(Binary::Add, a, b)) => {
                let one = |v: &ValueId| matches!(self.definition(*v), Some(Op::ConstI(1)));
                (self.root(*a) == self.root(even.offset) && one(b))
                    || (self.root(*b) == self.root(even.offset) && one(a))
            }
            _ => false,
        }
    }

    pub(crate) fn definition(&self, value: ValueId) -> Option<&'k Op> {
        let mut found = None;
        self.kernel.for_each_stmt(|s| {
            if s.results.contains(&value) {
                found = Some(&s.op);
            }
        });
        found
    }

    /// Pairs that one access moves; 0 if they are not aligned.
    fn pairs_per_access(&self, place: Place, view: &View) -> usize {
        let size = memory_bytes(self.kernel.param(view.param).elem);
        let (axis, outer) = match place {
            Place::Scalar => return 0,
            Place::Vector(axis) => (axis, 0),
            Place::Matrix(layout) => (layout.cols, view.axes[0].stride.unsigned_abs()),
        };
        let aligned = u64::from(self.options.alignment[view.param.0 as usize]) / size;
        let common = [aligned.max(1), self.usage.divisor(view.offset), outer, WIDE / size];
        let common = common.into_iter().fold(2 * gcd(axis.inner as u64, axis.extent as u64), gcd);
        (1 << common.trailing_zeros()) / 2
    }

    fn load_pair(
        &mut self,
        values: [ValueId; 2],
        view: &View,
        place: Place,
        width: usize,
    ) -> Result<(), CodegenError> {
        self.before_load(place, view);
        let names = values.map(|v| self.name(v));
        for (value, name) in values.iter().zip(&names) {
            let declaration = self.declare(*value, name);
            self.state.out.line(format!("{declaration};"));
        }
        let (from, index, condition) = self.open_pairs(view, place, width, true);
        let elem = c_type(self.kernel.ty(values[0]).elem);
        let count = 2 * width;
        self.state.out.line(format!("{elem} both[{count}];"));
        match condition {
            None => self.state.out.line(format!("load<{count}>(both, {from});")),
            Some(condition) => {
                self.state.out.line(format!("if ({condition}) load<{count}>(both, {from});"));
                self.state.out.line(format!("else clear<{count}>(both);"));
            }
        }
        for e in 0..width {
            for (odd, name) in names.iter().enumerate() {
                self.state.out.line(format!("{name}{} = both[{}];", index(e), 2 * e + odd));
            }
        }
        self.close_slots(place);
        self.state.out.close();
        for (value, name) in values.iter().zip(names) {
            self.define(*value, Def::Array(name));
        }
        values.iter().try_for_each(|value| self.stage_if_needed(*value))
    }

    fn store_pair(&mut self, values: [ValueId; 2], view: &View, place: Place, width: usize) {
        self.flush();
        self.before_store(place, view, false);
        let elem = c_type(self.kernel.ty(values[0]).elem);
        let (to, _, condition) = self.open_pairs(view, place, width, false);
        let last = view.axes.len() - 1;
        let mut elements = vec![];
        for e in 0..width {
            for value in values {
                let mut slots = ["r".to_string(), "c".to_string()];
                if e > 0 {
                    slots[last] = format!("{} + {e}", slots[last]);
                }
                elements.push(self.element(value, [&slots[0], &slots[1]]));
            }
        }
        let count = 2 * width;
        self.state.out.line(format!("const {elem} stored[{count}] = {{{}}};", elements.join(", ")));
        let guard = condition.map_or(String::new(), |c| format!("if ({c}) "));
        self.state.out.line(format!("{guard}store<{count}>({to}, stored);"));
        self.close_slots(place);
        self.state.out.close();
    }

    /// Opens the loops over a pair; returns the address, the index of an element, the condition.
    fn open_pairs(
        &mut self,
        view: &View,
        place: Place,
        width: usize,
        constant: bool,
    ) -> (String, impl Fn(usize) -> String + use<>, Option<String>) {
        match place {
            Place::Vector(axis) if !constant => self.open_writers(axis),
            Place::Scalar | Place::Vector(_) | Place::Matrix(_) => self.state.out.open(""),
        }
        let access = self.open_view(view, place, width, constant);
        let matrix = access.at.len() == 2;
        let index = move |e: usize| {
            let last = if e == 0 { String::new() } else { format!(" + {e}") };
            if matrix { format!("[r][c{last}]") } else { format!("[r{last}]") }
        };
        let condition = access.condition(access.at.len());
        (access.address, index, condition)
    }
}

/// Names a statement of the kernel.
fn address(stmt: &Stmt) -> usize {
    std::ptr::from_ref(stmt).addr()
}
