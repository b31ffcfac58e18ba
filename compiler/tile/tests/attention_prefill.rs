//! A prompt in blocks, with a ragged last one, against causal attention over the whole sequence.

use crate::attention_support::{Machine, Problem, error, tolerance_of};
use linc_cases::operands::Keys;
use linc_tile::Elem;
use linc_tile::interp::Buffer;
use linc_tile::library::attention::HeadShape;
use linc_tile::library::attention::efficient::{
    efficient_attention_chunk_states, efficient_prefill, efficient_prefill_out, efficient_prefill_prefix,
};
use linc_tile::library::attention::softmax::{SoftmaxPrefillSpec, append_to_cache, softmax_prefill};

/// Slots of states: one more than sequences.
const SLOTS: usize = 3;

/// Position and slots of sequences: those are the other way round, behind one that nobody has.
fn places(batch: usize, pos: usize) -> [Buffer; 2] {
    [Buffer::I32(vec![pos as i32; batch]), Buffer::I32((1..=batch as i32).rev().collect())]
}

/// What stands behind the last token: nobody may see it.
const BEYOND: f32 = 77.0;
/// The same in keys that linear attention sees: they weigh nothing.
const NO_KEY: f32 = -6e4;

/// Tokens from `from` on of `data` `[B, N, heads, D]`, as many as `block` has; `beyond` where there are none.
fn part(
    shape: &HeadShape,
    block: &HeadShape,
    heads: usize,
    data: &[f32],
    from: usize,
    beyond: f32,
) -> Vec<f32> {
    let width = heads * shape.head_dim;
    let row = |b: usize, t: usize| (b * shape.seq + t) * width;
    (0..shape.batch)
        .flat_map(|b| (from..from + block.seq).map(move |t| (b, t)))
        .flat_map(|(b, t)| match t < shape.seq {
            true => data[row(b, t)..row(b, t) + width].to_vec(),
            false => vec![beyond; width],
        })
        .collect()
}

/// A prompt on its way through blocks.
struct Prompt {
    machine: Machine,
    problem: Problem,
    block: HeadShape,
    reference: Vec<f64>,
    tolerance: f64,
}

impl Prompt {
    /// q, k, v of the block; keys that do not exist are `no_key`.
    fn fresh(&self, from: usize, no_key: f32) -> [Buffer; 3] {
        let (shape, block) = (&self.problem.shape, &self.block);
        let Problem { q, k, v, .. } = &self.problem;
        [(shape.heads, q, BEYOND), (shape.kv_heads, k, no_key), (shape.kv_heads, v, BEYOND)].map(
            |(heads, data, beyond)| {
                self.machine.input(block, heads, &part(shape, block, heads, data, from, beyond))
            },
        )
    }

    fn starts(&self) -> impl Iterator<Item = usize> + use<> {
        (0..self.problem.shape.seq).step_by(self.block.seq)
    }

    /// Compares the outputs of tokens that exist. Those of the others mean nothing, but are finite.
    fn compare(&self, out: &Buffer, from: usize) {
        let shape = &self.problem.shape;
        let width = shape.heads * shape.head_dim;
        let out = self.machine.read(&self.block, shape.heads, out);
        let exist = self.block.seq.min(shape.seq - from);
        let (mut found, mut expected, mut others) = (vec![], vec![], vec![]);
        for (b, rows) in out.chunks(self.block.seq * width).enumerate() {
            found.extend_from_slice(&rows[..exist * width]);
            others.extend_from_slice(&rows[exist * width..]);
            let at = (b * shape.seq + from) * width;
            expected.extend_from_slice(&self.reference[at..at + exist * width]);
        }
        let e = error(&found, &expected, 0.0);
        let tolerance = self.tolerance;
        assert!(
            e <= tolerance,
            "from {from}: error {e:.2e} > {tolerance:.0e} for {shape:?} on {:?}",
            self.machine
        );
        assert!(others.iter().all(|x| x.is_finite()), "{others:?}");
    }
}

fn softmax_blocks(machine: Machine, shape: HeadShape, tokens: usize, tile: (usize, usize), tolerance: f64) {
    let HeadShape { batch, heads, kv_heads, head_dim: dim, .. } = shape;
    let mut problem = Problem::new(shape, Keys::Normal, 31);
    problem.round_to(machine.elem);
    let scale = (dim as f64).powf(-0.5);
    let reference = problem.softmax(true, scale).out;
    let block = HeadShape { seq: tokens, ..shape };
    let len = shape.seq.next_multiple_of(tokens) + 3;
    let forward = machine.operands(block).softmax(true, scale, tile);
    let spec = SoftmaxPrefillSpec { forward, len };
    let (append, attend) = (append_to_cache(&spec), softmax_prefill(&spec));
    let prompt = Prompt { machine, problem, block, reference, tolerance };
    // What a cache holds beyond the position must not matter.
    let mut caches =
        [0, 1].map(|_| machine.buffer(machine.elem, &vec![f64::NAN; SLOTS * len * kv_heads * dim]));
    for from in prompt.starts() {
        let [q, k, v] = prompt.fresh(from, BEYOND);
        let [kcache, vcache] = caches;
        let [pos, slot] = places(batch, from);
        let mut buffers = [k, v, kcache, vcache, pos, slot];
        machine.run(&append, &mut buffers);
        let [_, _, kcache, vcache, pos, slot] = buffers;
        let mut buffers = [q, kcache, vcache, pos, slot, machine.output(&block, heads)];
        machine.run(&attend, &mut buffers);
        let [_, kcache, vcache, _, _, out] = buffers;
        prompt.compare(&out, from);
        caches = [kcache, vcache];
    }
    for (cache, data) in caches.iter().zip([&prompt.problem.k, &prompt.problem.v]) {
        let (cache, row) = (cache.to_f64(), kv_heads * dim);
        for (i, x) in data.iter().enumerate() {
            let (b, rest) = (i / (shape.seq * row), i % (shape.seq * row));
            assert_eq!(cache[(batch - b) * len * row + rest], f64::from(*x), "element {i} of a cache");
        }
        let beyond = (SLOTS * len - batch * shape.seq.next_multiple_of(tokens)) * row;
        assert_eq!(cache.iter().filter(|x| x.is_nan()).count(), beyond, "written behind the block");
    }
}

/// Tokens of a block and of a chunk, and whether chunks are computed in parallel.
#[derive(Clone, Copy)]
struct Sizes {
    tokens: usize,
    chunk: usize,
    chunked: bool,
}

fn linear_blocks(machine: Machine, shape: HeadShape, sizes: Sizes, keys: Keys, tolerance: f64) {
    let Sizes { tokens, chunk, chunked } = sizes;
    let HeadShape { batch, heads, kv_heads, head_dim: dim, .. } = shape;
    let temperature = 2.0;
    let mut problem = Problem::new(shape, keys, 32);
    problem.round_to(machine.elem);
    let reference = problem.linear(true, temperature).out;
    let block = HeadShape { seq: tokens, ..shape };
    let spec = machine.operands(block).linear(chunk, temperature);
    let prompt = Prompt { machine, problem, block, reference, tolerance };
    // At position 0 the old state must not matter.
    let states = |count: usize| {
        let vector = machine.buffer(Elem::F32, &vec![f64::NAN; kv_heads * dim * count]);
        let matrix = machine.buffer(Elem::F32, &vec![f64::NAN; kv_heads * dim * dim * count]);
        (vector, matrix)
    };
    let (vector, matrix) = states(SLOTS);
    let mut state = [vector.clone(), vector, matrix];
    for from in prompt.starts() {
        let [q, k, v] = prompt.fresh(from, NO_KEY);
        let [m, z, t] = state;
        let ([pos, slot], out) = (places(batch, from), machine.output(&block, heads));
        if chunked {
            let (ell, saved) = states(batch * tokens.div_ceil(chunk));
            let mut buffers = [k, v, ell, saved];
            machine.run(&efficient_attention_chunk_states(&spec), &mut buffers);
            let [k, v, ell, saved] = buffers;
            let mut buffers = [ell, saved, m, z, t, pos, slot];
            machine.run(&efficient_prefill_prefix(&spec), &mut buffers);
            let [ell, saved, m, z, t, pos, _] = buffers;
            let mut buffers = [q, k, v, ell, saved, pos, out];
            machine.run(&efficient_prefill_out(&spec), &mut buffers);
            prompt.compare(&buffers[6], from);
            state = [m, z, t];
        } else {
            let mut buffers = [q, k, v, m, z, t, pos, slot, out];
            machine.run(&efficient_prefill(&spec), &mut buffers);
            let [_, _, _, m, z, t, _, _, out] = buffers;
            prompt.compare(&out, from);
            state = [m, z, t];
        }
    }
    for state in state.map(|state| state.to_f64()) {
        let (nobodys, theirs) = state.split_at(state.len() / SLOTS * (SLOTS - batch));
        assert!(theirs.iter().all(|x| x.is_finite()), "{keys:?} on {machine:?}");
        assert!(nobodys.iter().all(|x| x.is_nan()), "written into a slot of no sequence");
    }
}

#[test]
fn softmax_prefill_is_causal_attention() {
    for (heads, kv_heads, tokens, tile) in [
        (1, 1, 16, (16, 16)),
        (4, 2, 24, (16, 16)),
        (4, 1, 16, (8, 32)),
        (2, 2, 64, (16, 8)),
        (4, 2, 10, (32, 16)),
    ] {
        let shape = HeadShape { batch: 2, seq: 53, heads, kv_heads, head_dim: 16 };
        softmax_blocks(Machine::F32, shape, tokens, tile, 2e-6);
        softmax_blocks(Machine::F64, shape, tokens, tile, 1e-11);
        softmax_blocks(Machine::BF16, shape, tokens, tile, 1.5e-2);
        softmax_blocks(Machine::F16, shape, tokens, tile, 1.9e-3);
    }
}

#[test]
fn efficient_prefill_is_causal_attention() {
    for (heads, kv_heads, tokens, chunk) in
        [(1, 1, 16, 16), (4, 2, 24, 8), (4, 1, 16, 32), (2, 2, 64, 16), (4, 2, 10, 16), (2, 1, 40, 4)]
    {
        for chunked in [false, true] {
            let sizes = Sizes { tokens, chunk, chunked };
            let shape = HeadShape { batch: 2, seq: 53, heads, kv_heads, head_dim: 16 };
            for keys in Keys::ALL {
                linear_blocks(Machine::F32, shape, sizes, keys, 2.0 * tolerance_of(keys));
                linear_blocks(Machine::F16, shape, sizes, keys, 3e-3);
            }
            linear_blocks(Machine::F64, shape, sizes, Keys::Steps, 1e-11);
            linear_blocks(Machine::BF16, shape, sizes, Keys::Normal, 1e-2);
        }
    }
}
