//! Naive float64 attention, straight from the definitions, and what the attention tests share.
#![allow(unreachable_pub, reason = "the tests are one program")]

pub mod efficient;

use linc_cases::Random;
use linc_cases::operands::{Keys, Operands};
use linc_tile::interp::{Buffer, Precision, RunOptions, run};
use linc_tile::library::attention::{HeadShape, HeadStrides};
use linc_tile::{Elem, Kernel};

/// All values where everything is asked for, else one of them, by turns.
pub fn by_turns<T: Copy>(values: &[T], turn: usize) -> impl Iterator<Item = T> {
    let some = if linc_cases::exhaustive() { values } else { &values[turn % values.len()..][..1] };
    some.iter().copied()
}

/// Error of the f32 kernel relative to the natural scale that is still rounding: at |K| ~ 100 one unit in the last place
/// of K itself is 7.6e-6.
pub fn tolerance_of(keys: Keys) -> f64 {
    match keys {
        Keys::Normal => 2e-6,
        Keys::Uniform(limit) if limit <= 10.0 => 2e-6,
        Keys::Uniform(_) | Keys::Ramp(_) | Keys::Steps | Keys::Spike => 2e-5,
    }
}

/// What [`efficient::Case::check_naive`] allows for f16 in any case: where one key has all the weight, dk is the
/// difference of equal numbers, which the naive computation rounds alike.
pub fn floor_of(keys: Keys) -> f64 {
    match keys {
        Keys::Spike => 2f64.powi(-14),
        Keys::Normal | Keys::Uniform(_) | Keys::Ramp(_) | Keys::Steps => 0.0,
    }
}

/// Operands of one attention, contiguous `[B, N, heads, D]`.
#[derive(Clone)]
pub struct Problem {
    pub shape: HeadShape,
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
    pub dout: Vec<f32>,
    /// Positions of tokens in their documents, `[B, N]`; none where a sequence is one document.
    pub positions: Vec<i32>,
}

/// Results, contiguous.
pub struct Reference {
    pub out: Vec<f64>,
    /// `[B, H, N]`, softmax attention only.
    pub lse: Vec<f64>,
    pub dq: Vec<f64>,
    pub dk: Vec<f64>,
    pub dv: Vec<f64>,
    /// Natural scale of dq and dk: `max |V·G|` / 100. Where a softmax saturates both are differences of such terms.
    pub natural: f64,
}

impl Problem {
    pub fn new(shape: HeadShape, keys: Keys, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let HeadShape { batch, seq, heads, kv_heads, head_dim } = shape;
        let (large, small) = (batch * seq * heads * head_dim, batch * seq * kv_heads * head_dim);
        let k = (0..small)
            .map(|i| {
                let t = i / (kv_heads * head_dim) % seq;
                keys.draw(&mut random, t, seq, i % head_dim) as f32
            })
            .collect();
        Problem {
            shape,
            q: random.normals(large, 2.0),
            k,
            v: random.normals(small, 1.0),
            dout: random.normals(large, 1.0),
            positions: vec![],
        }
    }

    /// The same with documents of these lengths in turn, in each sequence from another one on.
    pub fn apart(self, lengths: &[usize]) -> Self {
        let HeadShape { batch, seq, .. } = self.shape;
        let positions = (0..batch).flat_map(|b| {
            let lengths = lengths.iter().cycle().skip(b);
            lengths.flat_map(|length| 0..*length as i32).take(seq).collect::<Vec<i32>>()
        });
        Problem { positions: positions.collect(), ..self }
    }

    /// The first token that token `t` of sequence `b` sees.
    fn first(&self, b: usize, t: usize) -> usize {
        self.positions.get(b * self.shape.seq + t).map_or(0, |position| t - *position as usize)
    }

    /// Rounds all operands to numbers of the type.
    pub fn round_to(&mut self, elem: Elem) {
        for x in [&mut self.q, &mut self.k, &mut self.v, &mut self.dout] {
            let values: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
            let stored = Buffer::from_f64(elem, &values).expect("a float type");
            *x = stored.to_f64().iter().map(|x| *x as f32).collect();
        }
    }

    /// Position of feature 0 of `(batch, token, head)`.
    fn at(&self, heads: usize, batch: usize, token: usize, head: usize) -> usize {
        ((batch * self.shape.seq + token) * heads + head) * self.shape.head_dim
    }

    fn row(&self, x: &[f32], heads: usize, batch: usize, token: usize, head: usize, factor: f64) -> Vec<f64> {
        let at = self.at(heads, batch, token, head);
        x[at..at + self.shape.head_dim].iter().map(|x| f64::from(*x) * factor).collect()
    }

    /// Runs `body(b, h, q rows, k rows, v rows, dout rows)` for every query head.
    fn each_head(
        &self,
        factor: f64,
        mut body: impl FnMut(usize, usize, &[Vec<f64>], &[Vec<f64>], &[Vec<f64>], &[Vec<f64>]),
    ) {
        let HeadShape { batch, seq, heads, kv_heads, .. } = self.shape;
        for b in 0..batch {
            for h in 0..heads {
                let g = h / (heads / kv_heads);
                let rows = |x: &[f32], heads, head, factor| -> Vec<Vec<f64>> {
                    (0..seq).map(|t| self.row(x, heads, b, t, head, factor)).collect()
                };
                let q = rows(&self.q, heads, h, factor);
                let k = rows(&self.k, kv_heads, g, factor);
                let v = rows(&self.v, kv_heads, g, 1.0);
                let dout = rows(&self.dout, heads, h, 1.0);
                body(b, h, &q, &k, &v, &dout);
            }
        }
    }

    fn empty(&self) -> Reference {
        Reference {
            out: vec![0.0; self.q.len()],
            lse: vec![0.0; self.shape.batch * self.shape.heads * self.shape.seq],
            dq: vec![0.0; self.q.len()],
            dk: vec![0.0; self.k.len()],
            dv: vec![0.0; self.v.len()],
            natural: 0.0,
        }
    }

    /// Softmax attention and its gradients.
    pub fn softmax(&self, causal: bool, scale: f64) -> Reference {
        let HeadShape { seq, heads, kv_heads, head_dim: dim, .. } = self.shape;
        let mut result = self.empty();
        self.each_head(1.0, |b, h, q, k, v, dout| {
            let g = h / (heads / kv_heads);
            for t in 0..seq {
                let end = if causal { t + 1 } else { seq };
                let first = self.first(b, t);
                let scores: Vec<f64> = k[first..end].iter().map(|k| dot(&q[t], k) * scale).collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
                let lse = max + sum.ln();
                result.lse[(b * heads + h) * seq + t] = lse;
                let p: Vec<f64> = scores.iter().map(|s| (s - lse).exp()).collect();
                let dp: Vec<f64> = v[first..end].iter().map(|v| dot(&dout[t], v)).collect();
                result.natural = dp.iter().fold(result.natural, |a, x| a.max(x.abs() * 1e-2));
                let delta = dot(&p, &dp);
                let at = self.at(heads, b, t, h);
                for s in first..end {
                    let p = p[s - first];
                    let ds = p * (dp[s - first] - delta) * scale;
                    let at_s = self.at(kv_heads, b, s, g);
                    for d in 0..dim {
                        result.out[at + d] += p * v[s][d];
                        result.dq[at + d] += ds * k[s][d];
                        result.dk[at_s + d] += ds * q[t][d];
                        result.dv[at_s + d] += p * dout[t][d];
                    }
                }
            }
        });
        result
    }

    /// Linear attention and its gradients.
    pub fn linear(&self, causal: bool, temperature: f64) -> Reference {
        self.naive_linear(causal, temperature, &|x| x)
    }

    /// Linear attention and its gradients as whoever does not know better computes them: all pairs of tokens, with what
    /// multiplies something else rounded by `r`, and all sums exact.
    pub fn naive_linear(&self, causal: bool, temperature: f64, r: &dyn Fn(f64) -> f64) -> Reference {
        let HeadShape { seq, heads, kv_heads, head_dim: dim, .. } = self.shape;
        let mut result = self.empty();
        self.each_head(temperature, |b, h, q, k, v, dout| {
            let g = h / (heads / kv_heads);
            // Maximum and sum of the column softmax of the keys seen so far.
            let (mut max, mut sum) = (vec![f64::NEG_INFINITY; dim], vec![0.0; dim]);
            let mut seen = 0;
            for t in 0..seq {
                let end = if causal { t + 1 } else { seq };
                let p: Vec<f64> = softmax(&q[t]).iter().map(|p| r(*p)).collect();
                let first = self.first(b, t);
                if first == t && causal {
                    (max, sum) = (vec![f64::NEG_INFINITY; dim], vec![0.0; dim]);
                }
                for key in &k[seen..end] {
                    for d in 0..dim {
                        let larger = max[d].max(key[d]);
                        sum[d] = sum[d] * (max[d] - larger).exp() + (key[d] - larger).exp();
                        max[d] = larger;
                    }
                }
                seen = end;
                let lse: Vec<f64> = max.iter().zip(&sum).map(|(max, sum)| max + sum.ln()).collect();
                let w: Vec<Vec<f64>> = k[first..end]
                    .iter()
                    .map(|k| (0..dim).map(|d| r((k[d] - lse[d]).exp())).collect())
                    .collect();
                let vg: Vec<f64> = v[first..end].iter().map(|v| r(dot(v, &dout[t]))).collect();
                result.natural = vg.iter().fold(result.natural, |a, x| a.max(x.abs() * 1e-2));
                let mut dp = vec![0.0; dim];
                for (w, vg) in w.iter().zip(&vg) {
                    for d in 0..dim {
                        dp[d] += w[d] * vg;
                    }
                }
                dp.iter_mut().for_each(|x| *x = r(*x));
                let delta = dot(&p, &dp);
                let at = self.at(heads, b, t, h);
                for d in 0..dim {
                    result.dq[at + d] = temperature * p[d] * (dp[d] - delta);
                }
                for s in first..end {
                    let at_s = self.at(kv_heads, b, s, g);
                    let (w, vg) = (&w[s - first], vg[s - first]);
                    let a = r(dot(&p, w));
                    for d in 0..dim {
                        result.out[at + d] += a * v[s][d];
                        result.dv[at_s + d] += a * dout[t][d];
                        result.dk[at_s + d] += temperature * w[d] * (r(p[d] * vg) - r(p[d] * dp[d]));
                    }
                }
            }
        });
        result
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn softmax(x: &[f64]) -> Vec<f64> {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let e: Vec<f64> = x.iter().map(|x| (x - max).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|e| e / sum).collect()
}

/// `max |a − b| / max(max |b|, floor)`; infinite if anything is not finite.
pub fn error(a: &[f64], b: &[f64], floor: f64) -> f64 {
    assert_eq!(a.len(), b.len());
    let scale = b.iter().fold(floor, |m, x| m.max(x.abs()));
    a.iter().zip(b).fold(0.0, |worst, (a, b)| {
        let difference = (a - b).abs();
        if difference.is_finite() { f64::max(worst, difference) } else { f64::INFINITY }
    }) / scale
}

/// What outputs hold before a kernel runs, exact in every element type.
const UNTOUCHED: f64 = -128.0;

/// How a test runs kernels.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Element type of the tensors.
    pub elem: Elem,
    /// Arithmetic of the interpreter.
    pub precision: Precision,
    /// Memory layout of the `[B, N, heads, D]` tensors.
    pub layout: HeadLayout,
}

impl Machine {
    /// f32 tensors and arithmetic.
    pub const F32: Machine =
        Machine { elem: Elem::F32, precision: Precision::F32, layout: HeadLayout::Sliced };
    /// f64 tensors and arithmetic.
    pub const F64: Machine =
        Machine { elem: Elem::F32, precision: Precision::Exact, layout: HeadLayout::Packed };
    /// bf16 tensors, f32 accumulation.
    pub const BF16: Machine =
        Machine { elem: Elem::Bf16, precision: Precision::F32, layout: HeadLayout::Packed };
    /// f16 tensors, f32 accumulation.
    pub const F16: Machine = Machine { elem: Elem::F16, ..Machine::BF16 };

    /// The tensors of an attention in this machine's element type and layout.
    pub fn operands(&self, shape: HeadShape) -> Operands {
        let strides = |heads| self.layout.strides(&shape, heads);
        Operands { elem: self.elem, shape, query: strides(shape.heads), key: strides(shape.kv_heads) }
    }

    /// A buffer of an element type.
    pub fn buffer(&self, elem: Elem, values: &[f64]) -> Buffer {
        match self.precision {
            Precision::F32 => Buffer::from_f64(elem, values).expect("a float type"),
            Precision::F64 | Precision::Exact => Buffer::F64(values.to_vec()),
        }
    }

    /// A `[B, N, heads, D]` operand with NaN in the gaps.
    pub fn input(&self, shape: &HeadShape, heads: usize, data: &[f32]) -> Buffer {
        let data: Vec<f64> = data.iter().map(|x| f64::from(*x)).collect();
        self.buffer(self.elem, &self.layout.scatter(shape, heads, &data, f64::NAN))
    }

    /// A `[B, N, heads, D]` result before it is written.
    pub fn output(&self, shape: &HeadShape, heads: usize) -> Buffer {
        self.buffer(self.elem, &vec![UNTOUCHED; self.layout.length(shape, heads)])
    }

    /// A contiguous f32 result before it is written.
    pub fn plain_output(&self, count: usize) -> Buffer {
        self.buffer(Elem::F32, &vec![UNTOUCHED; count])
    }

    /// The elements of a result; panics if the kernel wrote into a gap.
    pub fn read(&self, shape: &HeadShape, heads: usize, buffer: &Buffer) -> Vec<f64> {
        self.layout.gather(shape, heads, &buffer.to_f64(), UNTOUCHED)
    }

    /// Runs a kernel in a scrambled order with the race check on, after checking that its text form round-trips.
    pub fn run(&self, kernel: &Kernel, buffers: &mut [Buffer]) {
        let text = kernel.to_string();
        let parsed = linc_tile::parse(&text).unwrap_or_else(|e| panic!("{}: {e}", kernel.name));
        assert_eq!(parsed.to_string(), text, "{}: the text form changes", kernel.name);
        let options = RunOptions { precision: self.precision, order: 7, check_races: true, poison: false };
        run(kernel, buffers, &options).unwrap_or_else(|e| panic!("{}: {e}", kernel.name));
    }

    /// The same with positions of tokens in documents in their place among the parameters, where a kernel takes them.
    pub fn run_apart(&self, kernel: &Kernel, buffers: &mut [Buffer], positions: &[i32]) {
        let Some(at) = kernel.params.iter().position(|param| param.name == "positions") else {
            assert!(positions.is_empty() || !kernel.name.contains("documents"), "{}", kernel.name);
            return self.run(kernel, buffers);
        };
        let mut all = buffers.to_vec();
        all.insert(at, Buffer::I32(positions.to_vec()));
        self.run(kernel, &mut all);
        all.remove(at);
        buffers.clone_from_slice(&all);
    }
}

/// How a test lays a `[B, N, heads, D]` tensor out in memory.
#[derive(Clone, Copy, Debug)]
pub enum HeadLayout {
    /// Contiguous.
    Packed,
    /// As a slice of a wider buffer: gaps between heads, tokens and sequences.
    Sliced,
}

impl HeadLayout {
    pub fn strides(self, shape: &HeadShape, heads: usize) -> HeadStrides {
        let HeadShape { seq, head_dim: dim, .. } = *shape;
        match self {
            HeadLayout::Packed => HeadStrides::contiguous(seq, heads, dim),
            HeadLayout::Sliced => {
                let (head, token) = (dim + 3, heads * (dim + 3) + 5);
                HeadStrides { head, seq: token, batch: seq * token + 7 }
            }
        }
    }

    /// The tensor in memory, `gap` in the gaps.
    pub fn scatter(self, shape: &HeadShape, heads: usize, data: &[f64], gap: f64) -> Vec<f64> {
        let mut memory = vec![gap; self.length(shape, heads)];
        self.positions(shape, heads, |from, at| {
            memory[at..at + shape.head_dim].copy_from_slice(&data[from..from + shape.head_dim]);
        });
        memory
    }

    /// The tensor out of memory; panics if a gap is not `gap` any more.
    pub fn gather(self, shape: &HeadShape, heads: usize, memory: &[f64], gap: f64) -> Vec<f64> {
        let mut rest = memory.to_vec();
        let mut data = vec![0.0; shape.batch * shape.seq * heads * shape.head_dim];
        self.positions(shape, heads, |to, at| {
            data[to..to + shape.head_dim].copy_from_slice(&memory[at..at + shape.head_dim]);
            rest[at..at + shape.head_dim].fill(gap);
        });
        assert!(rest.iter().all(|x| x.to_bits() == gap.to_bits()), "a kernel wrote outside its tensor");
        data
    }

    fn length(self, shape: &HeadShape, heads: usize) -> usize {
        let strides = self.strides(shape, heads);
        (shape.batch - 1) * strides.batch
            + (shape.seq - 1) * strides.seq
            + (heads - 1) * strides.head
            + shape.head_dim
    }

    fn positions(self, shape: &HeadShape, heads: usize, mut visit: impl FnMut(usize, usize)) {
        let strides = self.strides(shape, heads);
        for b in 0..shape.batch {
            for t in 0..shape.seq {
                for h in 0..heads {
                    let packed = ((b * shape.seq + t) * heads + h) * shape.head_dim;
                    visit(packed, b * strides.batch + t * strides.seq + h * strides.head);
                }
            }
        }
    }
}
