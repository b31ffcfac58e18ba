//! Positions of a thread's elements along an axis, as functions that the kernel starts with.

use std::collections::BTreeMap;

use crate::decisions::layout::Axis;

/// The axes whose positions the text uses, with the name of the function that gives them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Positions(BTreeMap<Axis, String>);

impl Positions {
    /// The position of a slot along an axis, as C++.
    pub(crate) fn at(&mut self, axis: Axis, slot: &str) -> String {
        if axis.covered() == 1 {
            return "0".into();
        }
        let count = self.0.len();
        let name = self.0.entry(axis).or_insert_with(|| format!("at{count}"));
        format!("{name}({slot})")
    }

    /// The functions, of `warp` and `lane`; with `renews`, these are looked up again at each call.
    pub(crate) fn functions(&self, renews: bool) -> String {
        let function = |(axis, name): (&Axis, &String)| {
            let (base, offset) = (base(*axis), offset(*axis, "slot"));
            let function = match renews {
                true => format!("[&](int slot) {{ return {base} + {offset}; }}"),
                false => format!("[base = {base}](int slot) {{ return base + {offset}; }}"),
            };
            format!("  // Positions along an axis of {}.\n  const auto {name} = {function};\n", axis.extent)
        };
        self.0.iter().map(function).collect()
    }
}

/// The thread's first position as C++, of `warp` and `lane`.
fn base(axis: Axis) -> String {
    let digit = |name: &str, count: usize, bit: u32, of: usize, step: usize| {
        if count == 1 {
            return None;
        }
        let shifted = if bit == 0 { name.to_string() } else { format!("({name} >> {bit})") };
        let top = bit + count.trailing_zeros() >= of.trailing_zeros();
        let digit = if top { shifted } else { format!("({shifted} & {})", count - 1) };
        Some(if step == 1 { digit } else { format!("{digit} * {step}") })
    };
    // The number of warps is not known here, so that a warp digit is always masked.
    let warp = digit("warp", axis.warps, axis.warp_bit, 1 << 30, axis.warp_step());
    let lane = digit("lane", axis.lanes, axis.lane_bit, 32, axis.lane_step());
    let parts: Vec<String> = [warp, lane].into_iter().flatten().collect();
    if parts.is_empty() { "0".into() } else { parts.join(" + ") }
}

/// Position of slot `slot` (a C++ expression) relative to the thread's first.
fn offset(axis: Axis, slot: &str) -> String {
    let mut parts = vec![];
    let per_outer = axis.mid * axis.inner;
    if axis.outer > 1 {
        let digit = if per_outer == 1 { slot.to_string() } else { format!("{slot} / {per_outer}") };
        parts.push(format!("{digit} * {}", axis.outer_step()));
    }
    if axis.mid > 1 {
        let digit = if axis.inner == 1 { slot.to_string() } else { format!("{slot} / {}", axis.inner) };
        let digit = if axis.outer == 1 { digit } else { format!("{digit} % {}", axis.mid) };
        parts.push(format!("{digit} * {}", axis.mid_step()));
    }
    if axis.inner > 1 {
        let whole = axis.outer == 1 && axis.mid == 1;
        parts.push(if whole { slot.to_string() } else { format!("{slot} % {}", axis.inner) });
    }
    if parts.is_empty() { "0".into() } else { parts.join(" + ") }
}
