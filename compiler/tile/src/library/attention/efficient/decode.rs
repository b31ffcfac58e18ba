//! One token of each sequence of a batch in efficient attention, in O(1): the recurrent state, and a step.
//!
//! A program serves one sequence and key/value head with all query heads of its group as the rows of one tile, and updates
//! its state in place, number `slot` of S. Position and slot are numbers in memory, so one kernel serves every step.

use super::feature_softmax::{softmax_rows, temper};
use super::state::StoredState;
use crate::builder::Builder;
use crate::ir::{Elem, Kernel, Mode, ValueId};
use crate::library::attention::common::{
    GroupTile, HeadRows, HeadShape, HeadStrides, Places, scale_rows, strides_tag,
};
use crate::library::{number, tag};

/// What [`efficient_decode`] computes and how.
#[derive(Clone, PartialEq, Debug)]
pub struct EfficientDecodeSpec {
    /// Element type of q, k, v, out; the state is f32.
    pub elem: Elem,
    /// Sizes; `seq` is 1.
    pub shape: HeadShape,
    /// Multiplier of q and k before their softmaxes.
    pub temperature: f64,
    /// Rows of the query tile, at least the group; more only where a machine's matrix product needs them.
    pub block_h: usize,
    /// Features of values that are done at once, a divisor of D: what of the state a program holds.
    pub width: usize,
    /// Strides of q `[B, 1, H, D]`.
    pub q: HeadStrides,
    /// Of k `[B, 1, G, D]`.
    pub k: HeadStrides,
    /// Of v `[B, 1, G, D]`.
    pub v: HeadStrides,
    /// Of the output `[B, 1, H, D]`.
    pub out: HeadStrides,
}

/// `(q, k, v, m [S, G, D], z [S, G, D], t [S, G, D, D], pos [B], slot [B]) -> out`: one token of causal linear attention in the
/// unnormalised recurrent form `m' = max(m, k)`, `z' = z e^(m−m') + e^(k−m')`, `t' = t e^(m−m') + e^(k−m') vᵀ`,
/// `out = (softmax(q) / z') t'`, in place; at `pos` 0 the old m, z, t are ignored.
pub fn efficient_decode(spec: &EfficientDecodeSpec) -> Kernel {
    let EfficientDecodeSpec { block_h: rows, width, .. } = *spec;
    let HeadShape { batch, kv_heads, head_dim: dim, .. } = spec.shape;
    let name = format!(
        "efficient_decode_{}_{}_t{}_h{rows}_v{width}_{}",
        tag(spec.elem),
        spec.shape.tag(),
        number(spec.temperature),
        strides_tag(&[spec.q, spec.k, spec.v, spec.out]),
    );
    spec.shape.check(&name);
    assert!(dim.is_multiple_of(width), "{name}: {width} of {dim} features");
    let mut b = Builder::new(name, [kv_heads, batch, 1]);
    let q = b.param("q", spec.elem, Mode::Read);
    let k = b.param("k", spec.elem, Mode::Read);
    let v = b.param("v", spec.elem, Mode::Read);
    let state = ["m", "z", "t"].map(|name| b.param(name, Elem::F32, Mode::ReadWrite));
    let places = Places::params(&mut b);
    let out = b.param("out", spec.elem, Mode::Write);
    let (kv_head, batch) = (b.program_id(0), b.program_id(1));
    let zero = b.index(0);
    let (pos, slot) = places.load(&mut b, batch);
    let k = HeadRows::new(&mut b, k, spec.k, dim, batch, kv_head);
    let v = HeadRows::new(&mut b, v, spec.v, dim, batch, kv_head);
    let key = k.load_row(&mut b, zero);
    let key = temper(&mut b, key, spec.temperature);

    let state = StoredState::new(&mut b, state, &spec.shape, slot, kv_head);
    let (old_m, old_z) = state.load_sums(&mut b, pos, |_| key);
    let m = b.max(old_m, key);
    let decay = b.sub(old_m, m);
    let decay = b.exp(decay);
    let fresh = b.sub(key, m);
    let fresh = b.exp(fresh);
    let z = b.fma(old_z, decay, fresh);
    state.store_sums(&mut b, m, z);

    let group = GroupTile::new(&mut b, &spec.shape, rows, batch, kv_head);
    let q = group.load(&mut b, q, spec.q);
    let q = b.cast(q, Elem::F32);
    let p = softmax_rows(&mut b, q, spec.temperature);
    let z_rows = b.expand_rows(z, rows);
    let p = b.div(p, z_rows);
    let each = |b: &mut Builder, first: ValueId| {
        let state = state.values(b, first, width);
        let old = state.load_values(b, pos);
        let value = v.features(b, first, width).load_row(b, zero);
        let kept = scale_rows(b, old, decay);
        let column = b.expand_cols(fresh, width);
        let row = b.expand_rows(value, dim);
        let t = b.fma(column, row, kept);
        state.store_values(b, t);
        let result = b.dot(p, false, t, false, None);
        group.store_features(b, out, spec.out, first, result);
    };
    if width == dim {
        each(&mut b, zero);
    } else {
        let end = b.index(dim);
        b.for_loop(zero, end, width, &[], |b, first, _| {
            each(b, first);
            vec![]
        });
    }
    b.finish()
}
