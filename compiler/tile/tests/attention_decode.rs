//! Decoding token by token against causal attention over the whole sequence.

use crate::attention_support::{HeadLayout, Machine, Problem, error, tolerance_of};
use linc_cases::operands::Keys;
use linc_tile::Elem;
use linc_tile::interp::Buffer;
use linc_tile::library::attention::efficient::{EfficientDecodeSpec, efficient_decode};
use linc_tile::library::attention::softmax::{
    SoftmaxDecodeSpec, softmax_decode, softmax_decode_merge, softmax_decode_parts,
};
use linc_tile::library::attention::{HeadShape, HeadStrides};

/// One token of `data` `[B, N, heads, D]` as `[B, 1, heads, D]`.
fn token(shape: &HeadShape, heads: usize, data: &[f32], t: usize) -> Vec<f32> {
    let width = heads * shape.head_dim;
    (0..shape.batch)
        .flat_map(|b| &data[(b * shape.seq + t) * width..(b * shape.seq + t + 1) * width])
        .copied()
        .collect()
}

/// q, k, v of token `t`, as buffers.
fn token_inputs(machine: Machine, one: &HeadShape, problem: &Problem, t: usize) -> [Buffer; 3] {
    let shape = &problem.shape;
    let part = |heads, data| machine.input(one, heads, &token(shape, heads, data, t));
    [part(shape.heads, &problem.q), part(shape.kv_heads, &problem.k), part(shape.kv_heads, &problem.v)]
}

/// Compares `[B, 1, H, D]` with token `t` of the reference.
fn compare(machine: Machine, shape: &HeadShape, out: &Buffer, reference: &[f64], t: usize, tolerance: f64) {
    let one = HeadShape { seq: 1, ..*shape };
    let out = machine.read(&one, shape.heads, out);
    let width = shape.heads * shape.head_dim;
    let expected: Vec<f64> = (0..shape.batch)
        .flat_map(|b| &reference[(b * shape.seq + t) * width..(b * shape.seq + t + 1) * width])
        .copied()
        .collect();
    let e = error(&out, &expected, 0.0);
    assert!(e <= tolerance, "token {t}: error {e:.2e} > {tolerance:.0e} for {shape:?} on {machine:?}");
}

/// Slots of states: one more than sequences.
const SLOTS: usize = 3;

/// The slots of sequences: the other way round, behind one that nobody has.
fn slots(batch: usize) -> Vec<i32> {
    (1..=batch as i32).rev().collect()
}

/// Length of the caches, and how they are worked on; all at once if a range is all of it.
#[derive(Clone, Copy)]
struct Caches {
    len: usize,
    range: usize,
    block_h: usize,
}

fn softmax_steps(machine: Machine, shape: HeadShape, caches: Caches, keys: Keys, tolerance: f64) {
    let Caches { len, range, block_h } = caches;
    let HeadShape { batch, seq, heads, kv_heads, head_dim: dim } = shape;
    let mut problem = Problem::new(shape, keys, 21);
    problem.round_to(machine.elem);
    let scale = (dim as f64).powf(-0.5);
    let reference = problem.softmax(true, scale).out;
    let one = HeadShape { seq: 1, ..shape };
    let (wide, narrow) = (machine.layout.strides(&one, heads), machine.layout.strides(&one, kv_heads));
    let spec = SoftmaxDecodeSpec {
        elem: machine.elem,
        cache_elem: machine.elem,
        shape: HeadShape { seq: len, ..shape },
        scale,
        block_h,
        block_k: 8,
        range,
        q: wide,
        k: narrow,
        v: narrow,
        out: wide,
    };
    let parts = batch * heads * len.div_ceil(range);
    let slots = slots(batch);
    // What a cache holds beyond the position must not matter.
    let mut caches =
        [0, 1].map(|_| machine.buffer(machine.elem, &vec![f64::NAN; SLOTS * len * kv_heads * dim]));
    for t in 0..seq {
        let [q, k, v] = token_inputs(machine, &one, &problem, t);
        let [kcache, vcache] = caches;
        let (pos, slot) = (Buffer::I32(vec![t as i32; batch]), Buffer::I32(slots.clone()));
        let out = machine.output(&one, heads);
        let (kcache, vcache, out) = if range == len {
            let mut buffers = [q, k, v, kcache, vcache, pos, slot, out];
            machine.run(&softmax_decode(&spec), &mut buffers);
            let [_, _, _, kcache, vcache, _, _, out] = buffers;
            (kcache, vcache, out)
        } else {
            let [top, sum, acc] =
                [1, 1, dim].map(|width| machine.buffer(Elem::F32, &vec![f64::NAN; parts * width]));
            let mut buffers = [q, kcache, vcache, pos, slot, top, sum, acc];
            machine.run(&softmax_decode_parts(&spec), &mut buffers);
            let [q, kcache, vcache, pos, slot, top, sum, acc] = buffers;
            let mut buffers = [q, k, v, top, sum, acc, pos, slot, kcache, vcache, out];
            machine.run(&softmax_decode_merge(&spec), &mut buffers);
            let [.., kcache, vcache, out] = buffers;
            (kcache, vcache, out)
        };
        compare(machine, &shape, &out, &reference, t, tolerance);
        caches = [kcache, vcache];
    }
    let cache_layout = HeadLayout::Packed;
    let strides = HeadStrides::contiguous(len, kv_heads, dim);
    assert_eq!(cache_layout.strides(&HeadShape { seq: len, ..shape }, kv_heads), strides);
    for (cache, data) in caches.iter().zip([&problem.k, &problem.v]) {
        let cache = cache.to_f64();
        for (i, x) in data.iter().enumerate() {
            let (b, rest) = (i / (seq * kv_heads * dim), i % (seq * kv_heads * dim));
            let slot = slots[b] as usize;
            assert_eq!(cache[slot * strides.batch + rest], f64::from(*x), "element {i} of a cache");
        }
        assert_eq!(cache.iter().filter(|x| x.is_nan()).count(), cache.len() - data.len());
    }
}

fn linear_steps(
    machine: Machine,
    shape: HeadShape,
    (block_h, width): (usize, usize),
    keys: Keys,
    tolerance: f64,
) {
    let HeadShape { batch, seq, heads, kv_heads, head_dim: dim } = shape;
    let temperature = 2.0;
    let mut problem = Problem::new(shape, keys, 22);
    problem.round_to(machine.elem);
    let reference = problem.linear(true, temperature).out;
    let one = HeadShape { seq: 1, ..shape };
    let (wide, narrow) = (machine.layout.strides(&one, heads), machine.layout.strides(&one, kv_heads));
    let kernel = efficient_decode(&EfficientDecodeSpec {
        elem: machine.elem,
        shape: one,
        temperature,
        block_h,
        width,
        q: wide,
        k: narrow,
        v: narrow,
        out: wide,
    });
    // At position 0 the old state must not matter.
    let vector = machine.buffer(Elem::F32, &vec![f64::NAN; SLOTS * kv_heads * dim]);
    let matrix = machine.buffer(Elem::F32, &vec![f64::NAN; SLOTS * kv_heads * dim * dim]);
    let mut state = [vector.clone(), vector, matrix];
    for t in 0..seq {
        let [q, k, v] = token_inputs(machine, &one, &problem, t);
        let [m, z, sums] = state;
        let (pos, slot) = (Buffer::I32(vec![t as i32; batch]), Buffer::I32(slots(batch)));
        let mut buffers = [q, k, v, m, z, sums, pos, slot, machine.output(&one, heads)];
        machine.run(&kernel, &mut buffers);
        let [_, _, _, m, z, sums, _, _, out] = buffers;
        compare(machine, &shape, &out, &reference, t, tolerance);
        state = [m, z, sums];
    }
}

#[test]
fn softmax_decode_is_causal_attention() {
    for (heads, kv_heads, block_h) in [(1, 1, 1), (4, 2, 2), (4, 1, 4), (4, 2, 16)] {
        for range in [40, 16, 1] {
            let shape = HeadShape { batch: 2, seq: 37, heads, kv_heads, head_dim: 16 };
            let caches = Caches { len: 40, range, block_h };
            softmax_steps(Machine::F32, shape, caches, Keys::Normal, 2e-6);
            softmax_steps(Machine::F64, shape, caches, Keys::Uniform(100.0), 1e-11);
            softmax_steps(Machine::F16, shape, caches, Keys::Normal, 1.9e-3);
        }
    }
}

#[test]
fn efficient_decode_is_causal_attention() {
    for (heads, kv_heads, block_h, width) in [(1, 1, 1, 16), (4, 2, 2, 8), (4, 1, 16, 4)] {
        let shape = HeadShape { batch: 2, seq: 37, heads, kv_heads, head_dim: 16 };
        for keys in Keys::ALL {
            linear_steps(Machine::F32, shape, (block_h, width), keys, 2.0 * tolerance_of(keys));
        }
        linear_steps(Machine::F64, shape, (block_h, width), Keys::Steps, 1e-11);
        linear_steps(Machine::BF16, shape, (block_h, width), Keys::Normal, 1e-2);
        linear_steps(Machine::F16, shape, (block_h, width), Keys::Normal, 1.3e-3);
    }
}
