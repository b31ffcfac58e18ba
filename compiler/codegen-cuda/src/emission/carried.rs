//! Values that loops carry and branches yield, in variables of their own.

use std::collections::BTreeSet;

use linc_tile::ValueId;

use super::code::{Code, index};
use super::values::Def;

/// Variables for carried values, with their first values.
pub(crate) fn declare(code: &mut Code<'_>, values: &[ValueId], init: &[ValueId]) {
    for (value, init) in values.iter().zip(init) {
        let name = code.declare(*value);
        code.copy_into(*init, &name);
    }
}

/// Says that values are in the variables that are named after others.
pub(crate) fn define(code: &mut Code<'_>, values: &[ValueId], named_after: &[ValueId]) {
    for (value, named) in values.iter().zip(named_after) {
        let name = code.values.name(*named);
        let is_scalar = code.decisions.ty(*value).shape.is_empty();
        code.values.define(*value, if is_scalar { Def::Scalar(name) } else { Def::Array(name) });
    }
}

/// Assigns the yielded values to the variables, as if all at once.
pub(crate) fn assign(code: &mut Code<'_>, to: &[ValueId], yields: &[ValueId]) {
    let targets: BTreeSet<String> = to.iter().map(|v| code.values.name(*v)).collect();
    let held = |def: &Def| match def {
        Def::Scalar(name) | Def::Array(name) | Def::Splat(name) | Def::Expand(name, _) => Some(name.clone()),
        Def::Iota(_) | Def::SharedOnly => None,
    };
    // A value that lives in another target is saved before that target is overwritten.
    let mut saved = vec![];
    for (target, value) in to.iter().zip(yields) {
        let source = held(code.values.def(*value));
        let other = source.filter(|s| targets.contains(s) && *s != code.values.name(*target));
        saved.push(other.map(|_| {
            let copy = code.values.temporary("next");
            code.declare_as(*target, &copy);
            code.copy_into(*value, &copy);
            copy
        }));
    }
    for ((target, value), saved) in to.iter().zip(yields).zip(saved) {
        let name = code.values.name(*target);
        match saved {
            None => code.copy_into(*value, &name),
            Some(copy) => {
                let place = code.decisions.place(*target);
                code.open_slots(place, 1);
                let index = index(place);
                code.out.line(format!("{name}{index} = {copy}{index};"));
                code.close_slots(place);
            }
        }
    }
}
