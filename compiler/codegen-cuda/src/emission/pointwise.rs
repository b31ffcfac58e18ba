//! Pointwise statements: scalars each for itself, runs over one layout as one loop over the slots of a thread.

use linc_tile::{Op, Stmt, ValueId};

use super::code::Code;
use super::values::{Def, Values};
use crate::decisions::Decisions;
use crate::decisions::layout::ValueLayout;
use crate::text::expression;
use crate::text::spelling::{float, integer, register_type};

/// A pointwise operation on elements at the slots.
fn operation(decisions: &Decisions<'_>, values: &mut Values<'_>, stmt: &Stmt, slots: [&str; 2]) -> String {
    let operands = stmt.op.operands();
    let elements: Vec<String> = operands.iter().map(|v| values.element(*v, slots)).collect();
    let elem = |value: ValueId| decisions.ty(value).elem;
    match stmt.op {
        Op::Cast(from) => expression::cast(elem(from), elem(stmt.results[0]), &elements[0]),
        _ => expression::pointwise(&stmt.op, elem(operands[0]), &elements),
    }
}

/// Writes a statement that makes a scalar of scalars. Every thread computes it.
pub(crate) fn scalar(code: &mut Code<'_>, stmt: &Stmt) {
    let result = stmt.results[0];
    match &stmt.op {
        Op::ConstF(value) => return constant(code, result, float(*value)),
        Op::ConstI(value) => return constant(code, result, integer(*value)),
        Op::Cast(_) if code.decisions.root(result) != result => return,
        _ => {}
    }
    let text = match &stmt.op {
        Op::ProgramId(axis) => {
            format!("(index)blockIdx.{}", ["x", "y", "z"][code.decisions.launch_axes[*axis]])
        }
        _ => operation(code.decisions, &mut code.values, stmt, ["", ""]),
    };
    let (name, ty) = (code.values.name(result), register_type(code.decisions.ty(result).elem));
    code.out.line(format!("const {ty} {name} = {text};"));
    code.values.define(result, Def::Scalar(name));
}

/// A number: with the name that the tile program gives it, or as it is.
fn constant(code: &mut Code<'_>, result: ValueId, text: String) {
    if code.decisions.kernel.names[result.0 as usize].is_empty() {
        return code.values.define(result, Def::Scalar(text));
    }
    let (name, ty) = (code.values.name(result), register_type(code.decisions.ty(result).elem));
    code.out.line(format!("constexpr {ty} {name} = {text};"));
    code.values.define(result, Def::Scalar(name));
}

/// Statements over one layout that wait to be written together.
pub(crate) struct Run<'a> {
    pub place: ValueLayout,
    pub stmts: Vec<&'a Stmt>,
}

impl Run<'_> {
    /// Whether a root is made here.
    pub(crate) fn makes(&self, root: ValueId) -> bool {
        self.stmts.iter().any(|stmt| stmt.results[0] == root)
    }

    /// Writes the statements. Values that nothing else uses are variables of one element.
    pub(crate) fn write(self, code: &mut Code<'_>) {
        let decisions = code.decisions;
        let used_here = |value: ValueId| {
            let operands = self.stmts.iter().flat_map(|s| s.op.operands());
            operands.filter(|v| decisions.root(*v) == value).count()
        };
        let kept = |value: ValueId| decisions.usage.uses[value.0 as usize] > used_here(value);
        let made: Vec<(ValueId, bool)> =
            self.stmts.iter().map(|s| (s.results[0], kept(s.results[0]))).collect();
        for (value, _) in made.iter().filter(|(_, kept)| *kept) {
            code.declare(*value);
        }
        let slots = code.open_slots(self.place, 1);
        for (stmt, (value, kept)) in self.stmts.iter().zip(made) {
            let text = operation(decisions, &mut code.values, stmt, slots);
            if kept {
                let at = code.values.element(value, slots);
                code.out.line(format!("{at} = {text};"));
            } else {
                let (name, elem) = (code.values.name(value), register_type(decisions.ty(value).elem));
                code.out.line(format!("const {elem} {name} = {text};"));
                code.values.define(value, Def::Splat(name));
            }
        }
        code.close_slots(self.place);
    }
}
