//! Addresses in global memory, and the order of the threads' accesses to it.

use linc_tile::{Mode, ValueId, View};

use super::code::Code;
use super::hazards::iteration_of;
use crate::decisions::access::advances;
use crate::decisions::layout::{Axis, ValueLayout};
use crate::text::spelling::memory_type;

/// The use of a tile that is dealt out to the threads by pieces, whatever the layout in registers.
const PIECES: &str = " pieces";

/// One access in a loop over a view.
pub(crate) struct Access {
    /// Address of its first element.
    pub address: String,
    /// Names of its positions along the axes.
    pub at: Vec<String>,
    /// How far each axis goes, if not all of the layout exists.
    pub limits: Vec<Option<String>>,
}

impl Access {
    /// Whether it is inside along the first `axes` axes, if it may not be.
    pub(crate) fn condition(&self, axes: usize) -> Option<String> {
        let limited = self.at.iter().zip(&self.limits).take(axes);
        let conditions: Vec<String> =
            limited.filter_map(|(at, limit)| Some(format!("{at} < {}", limit.as_ref()?))).collect();
        (!conditions.is_empty()).then(|| conditions.join(" && "))
    }

    /// Whether it is inside along all axes, if it may not be.
    pub(crate) fn inside(&self) -> Option<String> {
        self.condition(self.at.len())
    }

    /// What stands before an access that may not be inside.
    pub(crate) fn guard(&self) -> String {
        self.inside().map_or(String::new(), |inside| format!("if ({inside}) "))
    }
}

/// The name of a view's parameter.
pub(crate) fn param<'c>(code: &'c Code<'_>, view: &View) -> &'c str {
    &code.names.params[view.param.0 as usize]
}

/// Pointer to the view's first element.
pub(crate) fn pointer(code: &mut Code<'_>, view: &View, constant: bool) -> String {
    let param = param(code, view).to_string();
    let name = code.values.temporary(&param);
    let (offset, ty) =
        (code.values.scalar(view.offset), memory_type(code.decisions.kernel.param(view.param).elem));
    let qualifier = if constant { "const " } else { "" };
    code.out.line(format!("{qualifier}{ty}* {name} = {param} + {offset};"));
    name
}

/// Opens the loops over a view's elements, `width` slots at a time.
pub(crate) fn open_view(
    code: &mut Code<'_>,
    view: &View,
    place: ValueLayout,
    width: usize,
    constant: bool,
) -> Access {
    let places = axes_of(place, view);
    let pointer = pointer(code, view, constant);
    let limits: Vec<Option<String>> =
        places.iter().zip(&view.axes).map(|((axis, _), a)| limit(code, *axis, a.bound)).collect();
    let slots = code.open_slots(place, width);
    let mut at = vec![];
    for (name, ((axis, _), slot)) in ["i", "j"].iter().zip(places.iter().zip(slots)) {
        let position = code.values.positions.at(*axis, slot);
        code.out.line(format!("const int {name} = {position};"));
        at.push(name.to_string());
    }
    let address = format!("{pointer} + ({})", element_offset(&places, &at));
    Access { address, at, limits }
}

/// The axes of a tile with the strides of a view.
fn axes_of(place: ValueLayout, view: &View) -> Vec<(Axis, i64)> {
    match place {
        ValueLayout::Scalar => vec![],
        ValueLayout::Vector(axis) => vec![(axis, view.axes[0].stride)],
        ValueLayout::Matrix(l) => vec![(l.rows, view.axes[0].stride), (l.cols, view.axes[1].stride)],
    }
}

/// What a position along an axis is below, if not all of the layout exists.
fn limit(code: &mut Code<'_>, axis: Axis, bound: Option<ValueId>) -> Option<String> {
    match bound {
        Some(bound) => Some(declare_limit(code, bound, axis.extent)),
        None => (!axis.exact()).then(|| axis.extent.to_string()),
    }
}

/// Declares a number that positions below a bound are below, and returns its name.
pub(crate) fn declare_limit(code: &mut Code<'_>, bound: ValueId, extent: usize) -> String {
    let (bound, name) = (code.values.scalar(bound), code.values.temporary("limit"));
    code.out.line(format!("const int {name} = below({bound}, {extent});"));
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

// ---- order ----

/// What tells apart which thread touches which element. Several threads hold, and load, an element of a scalar and of
/// most vectors, of which one stores it.
fn map(code: &Code<'_>, place: ValueLayout, view: &View, access: &str) -> String {
    let decisions = code.decisions;
    let strides: Vec<i64> = view.axes.iter().map(|a| a.stride).collect();
    let access = if decisions.layouts.alone(place) && access != PIECES { "" } else { access };
    let round = match code.loops.last() {
        Some(around) if advances(decisions, *around, place, view) => {
            iteration_of(&code.values.name(around.body.args[0]))
        }
        _ => String::new(),
    };
    format!("{:?} {strides:?} {place:?}{access}{round}", decisions.root(view.offset))
}

/// Announces a load that is written next.
pub(crate) fn before_load(code: &mut Code<'_>, place: ValueLayout, view: &View) {
    if code.decisions.kernel.param(view.param).mode == Mode::ReadWrite {
        let map = map(code, place, view, " load");
        let before = code.shared.hazards.before_load(view.param.0, &map);
        code.shared.wait(&mut code.out, before);
        code.shared.hazards.note_load(view.param.0, &map);
    }
}

/// Announces a store that is written next.
pub(crate) fn before_store(code: &mut Code<'_>, place: ValueLayout, view: &View) {
    let map = map(code, place, view, " store");
    note_store(code, view, &map);
}

/// Announces a store in pieces that is written next.
pub(crate) fn before_store_in_pieces(code: &mut Code<'_>, place: ValueLayout, view: &View) {
    let map = map(code, place, view, PIECES);
    note_store(code, view, &map);
}

/// Announces a store whose threads and elements the map tells.
pub(crate) fn note_store(code: &mut Code<'_>, view: &View, map: &str) {
    let before = code.shared.hazards.before_store(view.param.0, map);
    code.shared.wait(&mut code.out, before);
    code.shared.hazards.note_store(view.param.0, map);
}
