//! Attention kernels in chains, forward before backward, with operands of a given distribution.

use linc_tile::interp::{Buffer, Precision, RunOptions, run};
use linc_tile::library::attention::HeadShape;
use linc_tile::library::attention::efficient::{
    EfficientForwardSpec, efficient_attention_chunk_grads, efficient_attention_chunk_states,
    efficient_attention_delta, efficient_attention_grads, efficient_attention_out,
    efficient_attention_prefix, efficient_attention_suffix, needs_delta,
};
use linc_tile::library::attention::softmax::{
    SoftmaxForwardSpec, softmax_attention_delta, softmax_attention_dkdv, softmax_attention_dq,
    softmax_attention_forward,
};
use linc_tile::{Elem, Kernel, Mode};

use crate::Random;
use crate::operands::{Keys, Operands, positions};

/// A kernel with operands, its exact results, and those of the interpreter in the kernel's own precision.
#[derive(Clone, Debug)]
pub struct Measured {
    /// A program of the library.
    pub kernel: Kernel,
    /// Operands, and what results hold before.
    pub buffers: Vec<Buffer>,
    /// All buffers afterwards, computed without rounding.
    pub exact: Vec<Vec<f64>>,
    /// All buffers afterwards, rounded where the kernel rounds.
    pub rounded: Vec<Buffer>,
}

/// Size of what is added up to a result, a part of that of the operands. Of one token all gradients of softmax cancel.
const TERMS: f64 = 0.25;

impl Measured {
    /// Runs the kernel on the interpreter, exactly and as it is.
    pub fn of(kernel: Kernel, buffers: Vec<Buffer>) -> Measured {
        let mut rounded = buffers.clone();
        let options = RunOptions { poison: true, ..RunOptions::default() };
        run(&kernel, &mut rounded, &options).unwrap_or_else(|e| panic!("{e}\n{kernel}"));
        let mut exact: Vec<Buffer> = buffers
            .iter()
            .map(|b| if let Buffer::I32(_) = b { b.clone() } else { Buffer::F64(b.to_f64()) })
            .collect();
        let options = RunOptions { precision: Precision::Exact, ..options };
        run(&kernel, &mut exact, &options).unwrap_or_else(|e| panic!("{e}\n{kernel}"));
        Measured { kernel, buffers, exact: exact.iter().map(Buffer::to_f64).collect(), rounded }
    }

    /// Results whose error is more than twice that of the rounded computation, in words. The errors are root mean
    /// squares; some millionths of the result's own size, or of its terms' where they cancel, are allowed in any case,
    /// since functions and order of sums differ.
    pub fn worse(&self, actual: &[Buffer]) -> Vec<String> {
        let rms = |values: &[f64]| (values.iter().map(|x| x * x).sum::<f64>() / values.len() as f64).sqrt();
        let error = |values: Vec<f64>, exact: &[f64]| {
            rms(&values.iter().zip(exact).map(|(a, b)| a - b).collect::<Vec<f64>>())
        };
        let mut worse = vec![];
        for (i, param) in self.kernel.params.iter().enumerate() {
            if param.mode == Mode::Read {
                continue;
            }
            let exact = &self.exact[i];
            let allowed = 2.0 * error(self.rounded[i].to_f64(), exact) + 2e-6 * rms(exact).max(TERMS);
            let found = error(actual[i].to_f64(), exact);
            if found.is_nan() || found > allowed {
                let (kernel, name) = (&self.kernel.name, &param.name);
                worse.push(format!("{kernel}: the error of {name} is {found:e}, allowed {allowed:e}"));
            }
        }
        worse
    }
}

/// Makes operands of one attention, and remembers tensors by name from kernel to kernel.
pub struct Chain {
    shape: HeadShape,
    keys: Keys,
    random: Random,
    known: Vec<(String, Buffer)>,
}

impl Chain {
    /// A chain whose operands depend on `seed`.
    pub fn new(shape: HeadShape, keys: Keys, seed: u64) -> Chain {
        Chain { shape, keys, random: Random::new(seed), known: vec![] }
    }

    /// Elements of a parameter, by its name.
    fn len(&self, name: &str, states: usize) -> usize {
        let HeadShape { batch, seq, heads, kv_heads, head_dim } = self.shape;
        let per_state = batch * kv_heads * states * head_dim;
        match name {
            "q" | "out" | "dout" | "dq" => batch * seq * heads * head_dim,
            "k" | "v" | "dk" | "dv" | "dk_part" => batch * seq * kv_heads * head_dim,
            "lse" | "delta" => batch * heads * seq,
            "ell" | "rho" => per_state,
            "state" | "d" => per_state * head_dim,
            other => panic!("a tensor called {other}"),
        }
    }

    /// Runs a kernel on what is known so far; its results are known afterwards.
    pub fn run(&mut self, kernel: Kernel, states: usize) -> Measured {
        let mut buffers = vec![];
        for param in &kernel.params {
            let known = self.known.iter().find(|(name, _)| *name == param.name);
            buffers.push(match known {
                Some((_, buffer)) => buffer.clone(),
                None => self.fresh(&param.name, param.elem, param.mode, states),
            });
        }
        let measured = Measured::of(kernel, buffers);
        for (param, (before, after)) in
            measured.kernel.params.iter().zip(measured.buffers.iter().zip(&measured.rounded))
        {
            let value = if param.mode == Mode::Read { before } else { after };
            self.known.retain(|(name, _)| *name != param.name);
            self.known.push((param.name.clone(), value.clone()));
        }
        measured
    }

    fn fresh(&mut self, name: &str, elem: Elem, mode: Mode, states: usize) -> Buffer {
        if name == "positions" {
            return Buffer::I32(positions(&self.shape));
        }
        let len = self.len(name, states);
        let (seq, row) = (self.shape.seq, self.shape.kv_heads * self.shape.head_dim);
        let values: Vec<f64> = (0..len)
            .map(|i| match name {
                _ if mode == Mode::Write => 0.0,
                "k" => self.keys.draw(&mut self.random, i / row % seq, seq, i % self.shape.head_dim),
                _ => self.random.normal(),
            })
            .collect();
        Buffer::from_f64(elem, &values).expect("attention works on floats")
    }
}

/// Softmax attention: forward, delta, dq, dkdv.
pub fn softmax(
    shape: HeadShape,
    elem: Elem,
    causal: bool,
    blocks: (usize, usize),
    seed: u64,
) -> Vec<Measured> {
    softmax_of(shape, elem, (causal, false), blocks, seed)
}

/// The same, causal, of documents that are kept apart.
pub fn softmax_apart(shape: HeadShape, elem: Elem, blocks: (usize, usize), seed: u64) -> Vec<Measured> {
    softmax_of(shape, elem, (true, true), blocks, seed)
}

fn softmax_of(
    shape: HeadShape,
    elem: Elem,
    (causal, documents): (bool, bool),
    blocks: (usize, usize),
    seed: u64,
) -> Vec<Measured> {
    let mut chain = Chain::new(shape, Keys::Normal, seed);
    let operands = Operands::contiguous(elem, shape);
    let forward = operands.softmax(causal, (shape.head_dim as f64).powf(-0.5), blocks);
    let forward = SoftmaxForwardSpec { documents, ..forward };
    let backward = operands.softmax_gradients(&forward);
    let kernels = [
        softmax_attention_forward(&forward),
        softmax_attention_delta(&backward),
        softmax_attention_dq(&backward),
        softmax_attention_dkdv(&backward),
    ];
    kernels.into_iter().map(|kernel| chain.run(kernel, 1)).collect()
}

/// Linear attention with a program for each chunk: states, prefix, out; then the gradients.
pub fn linear(shape: HeadShape, elem: Elem, keys: Keys, temperature: f64, seed: u64) -> Vec<Measured> {
    linear_of(shape, elem, keys, (temperature, false), seed)
}

/// The same of documents that are kept apart.
pub fn linear_apart(shape: HeadShape, elem: Elem, keys: Keys, temperature: f64, seed: u64) -> Vec<Measured> {
    linear_of(shape, elem, keys, (temperature, true), seed)
}

fn linear_of(
    shape: HeadShape,
    elem: Elem,
    keys: Keys,
    (temperature, documents): (f64, bool),
    seed: u64,
) -> Vec<Measured> {
    const CHUNK: usize = 64;
    let mut chain = Chain::new(shape, keys, seed);
    let operands = Operands::contiguous(elem, shape);
    let forward = EfficientForwardSpec { documents, ..operands.linear(CHUNK, temperature) };
    // Both ways of large heads.
    let backward = operands.linear_gradients(&forward, !seed.is_multiple_of(3));
    let mut kernels = vec![
        efficient_attention_chunk_states(&forward),
        efficient_attention_prefix(&forward),
        efficient_attention_out(&forward),
    ];
    if needs_delta(&backward) {
        kernels.push(efficient_attention_delta(&backward));
    }
    kernels.push(efficient_attention_chunk_grads(&backward));
    kernels.push(efficient_attention_suffix(&backward));
    kernels.push(efficient_attention_grads(&backward));
    kernels.into_iter().map(|kernel| chain.run(kernel, shape.seq.div_ceil(CHUNK))).collect()
}
