//! The kernel library: every kernel as a function from a plain specification to a tile program.
//!
//! What is common to all: arithmetic is f32, whatever the element types in memory; sizes are positive and static; any
//! size works (tails through bounds); a kernel's name encodes its specification, so equal specifications give equal
//! names and texts, and different ones different names. Every sum has a fixed order, so results do not depend on the
//! number of workers. A pointer argument may point into the middle of a buffer, so offsets that change from launch to
//! launch are not part of a specification.
//!
//! | kernel | parameters, in launch order |
//! |---|---|
//! | [`pointwise::pointwise`] | inputs.., outputs.. |
//! | [`copy::copy`] | src, dst |
//! | [`fill::fill`] | dst |
//! | [`reduce::sum_middle`] | x, y |
//! | [`reduce::sum_of_squares`] | x, partials |
//! | [`reduce::norm_finish`] | partials, norm |
//! | [`parts::reduce_parts`] | x, y |
//! | [`norm::rms_norm`] | x, \[residual\], w, y, \[sum\] |
//! | [`norm::rms_norm_grad`] | x, w, dy, \[dres\], dx, dw_partial |
//! | [`rope::rope`] | x, table, \[start\], y |
//! | [`embedding::embedding`] | table, ids, y |
//! | [`embedding::embedding_grad`] | ids, dy, dtable |
//! | [`embedding::embedding_grad_sorted`] | ids, tokens, ranges, dy, dtable |
//! | [`sort::sort_keys`] | ids, keys, tokens, low |
//! | [`sort::sort_pass`] | by, keys, tokens, sorted_keys, sorted_tokens |
//! | [`sort::sorted_ranges`] | keys, ranges |
//! | [`loss::count_targets`] | targets, inv_count |
//! | [`loss::cross_entropy_rows`] | logits, targets, nll, \[inv_count, dloss\] |
//! | [`loss::mean_nll`] | nll, inv_count, loss |
//! | [`loss::cross_entropy`] | logits, targets, loss |
//! | [`loss::cross_entropy_grad`] | logits, targets, dloss, dlogits |
//! | [`optimizer::adamw`] | p, g, m, v, lr, step, clip, \[update\] |
//!
//! Parameters in brackets exist only if the specification asks for them. [`attention`] lists those of attention kernels.
//!
//! To add a kernel: a function here, a row in the table, a test against plain loops under `tests/`.

use crate::builder::Builder;
use crate::ir::{Binary, Compare, Elem, ParamId, ValueId};

pub mod attention;
pub mod copy;
pub mod embedding;
pub mod fill;
pub mod loss;
pub mod norm;
pub mod optimizer;
pub mod parts;
pub mod pointwise;
pub mod reduce;
pub mod rope;
pub mod sort;

/// Elements of a tile that streams through memory once: 16 KiB of f32, which stays in a first-level cache or in the
/// registers of one thread block.
pub const TILE: usize = 4096;

/// Elements a program should work on at least, so that a processor starts it at no cost in comparison.
pub const WORK: usize = 16384;

/// A kernel's name without what tells its sizes and types: what all kernels of one function of this library have in common.
/// Names begin with words without digits.
pub fn family(name: &str) -> &str {
    let mut end = 0;
    for word in name.split_inclusive('_') {
        if word.contains(|c: char| c.is_ascii_digit()) {
            break;
        }
        end += word.len();
    }
    name[..end].trim_end_matches('_')
}

/// Part of a kernel name that stands for an element type.
fn tag(elem: Elem) -> &'static str {
    match elem {
        Elem::F32 => "f32",
        Elem::Bf16 => "bf16",
        Elem::F16 => "f16",
        Elem::I32 => "i32",
        Elem::Index => "index",
        Elem::Bool => "bool",
    }
}

/// Part of a kernel name that stands for a number: the shortest decimal that reads back the same, as an identifier.
fn number(value: f64) -> String {
    format!("{value:e}").replace('-', "m").replace('.', "p")
}

/// A 64-bit FNV-1a hash, for the names of kernels whose specification is too long to spell out.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Splits the first grid axis into row-major indices of `counts`; all dimensions go to that axis because the others
/// are short on some machines.
fn grid_indices(b: &mut Builder, counts: &[usize]) -> Vec<ValueId> {
    let mut rest = b.program_id(0);
    let mut indices = Vec::with_capacity(counts.len());
    for (i, count) in counts.iter().enumerate().rev() {
        let is_first = i == 0;
        if is_first {
            indices.push(rest);
        } else if *count == 1 {
            indices.push(b.index(0));
        } else {
            let size = b.index(*count);
            indices.push(b.rem(rest, size));
            rest = b.div(rest, size);
        }
    }
    indices.reverse();
    indices
}

/// Length of what is left of `total` from `start`: the bound of an axis, or nothing if blocks of `block` divide it.
fn bound(b: &mut Builder, total: usize, start: ValueId, block: usize) -> Option<ValueId> {
    if total.is_multiple_of(block) {
        return None;
    }
    let end = b.index(total);
    Some(b.sub(end, start))
}

/// Whether numbers are at least `low` and below `high`, place by place.
fn between(b: &mut Builder, numbers: ValueId, low: ValueId, high: ValueId) -> ValueId {
    let (above, below) = (b.compare(Compare::Ge, numbers, low), b.compare(Compare::Lt, numbers, high));
    b.binary(Binary::And, above, below)
}

/// Whether a vector of truth values holds at places below what is left of a [`bound`].
fn among(b: &mut Builder, places: ValueId, left: Option<ValueId>, holds: ValueId) -> ValueId {
    let Some(left) = left else { return holds };
    let left = b.cast(left, Elem::I32);
    let left = b.splat(left, &b.ty(places).shape.clone());
    let exists = b.compare(Compare::Lt, places, left);
    b.binary(Binary::And, holds, exists)
}

/// Loads the i32 number `at` (Index) of a parameter, as an Index.
fn load_index(b: &mut Builder, param: ParamId, at: ValueId) -> ValueId {
    let number = b.load(param, at, &[], &[]);
    b.cast(number, Elem::Index)
}

/// Loads one f32 from the start of a parameter.
fn load_scalar(b: &mut Builder, param: ParamId) -> ValueId {
    let zero = b.index(0);
    b.load_f32(param, zero, &[], &[])
}
