//! Every kernel of the library at odd sizes, with operands and the tolerance of its results.

use linc_tile::interp::Buffer;
use linc_tile::library::attention::HeadShape;
use linc_tile::library::attention::efficient::{
    EfficientForwardSpec, efficient_attention_backward, efficient_attention_forward,
    efficient_bidirectional_backward, efficient_bidirectional_out, efficient_bidirectional_state,
};
use linc_tile::library::attention::softmax::{
    Round, SoftmaxForwardSpec, softmax_attention_backward, softmax_attention_delta, softmax_attention_dkdv,
    softmax_attention_dq, softmax_attention_forward,
};
use linc_tile::library::copy::{CopySpec, copy};
use linc_tile::library::fill::{FillSpec, fill};
use linc_tile::library::loss::{
    CountTargetsSpec, CrossEntropyRowsSpec, CrossEntropySpec, MeanNllSpec, count_targets, cross_entropy,
    cross_entropy_grad, cross_entropy_rows, log_probs, mean_nll,
};
use linc_tile::library::norm::{RmsNormGradSpec, RmsNormSpec, rms_norm, rms_norm_grad};
use linc_tile::library::optimizer::{AdamWKernelSpec, Decay, adamw};
use linc_tile::library::parts::{PartsReduction, ReducePartsSpec, reduce_parts};
use linc_tile::library::pointwise::{
    PointBinary, PointInput, PointOutput, PointStep, PointUnary, PointwiseSpec, pointwise,
};
use linc_tile::library::reduce::{
    NormFinishSpec, SumMiddleSpec, SumOfSquaresSpec, norm_finish, sum_middle, sum_of_squares,
};
use linc_tile::library::rope::{Positions, RopeSpec, rope};
use linc_tile::{Elem, Kernel};

use crate::operands::{Operands, positions};
use crate::{Case, inputs, reference};

/// Errors of single precision, and one unit in the last place of the narrow types besides.
pub(crate) fn tolerance(elem: Elem) -> (f64, f64) {
    match elem {
        Elem::Bf16 => (2e-2, 1.6e-2),
        Elem::F16 => (2.5e-3, 2e-3),
        Elem::F32 | Elem::I32 | Elem::Index | Elem::Bool => (1e-4, 1e-4),
    }
}

pub(crate) const ELEMS: [Elem; 3] = [Elem::F32, Elem::Bf16, Elem::F16];

/// Elements of each buffer: more than any kernel here needs.
pub(crate) const LEN: usize = 30_000;

fn all(kernels: Vec<(Kernel, Elem)>) -> Vec<Case> {
    let case = |(seed, (kernel, elem)): (usize, (Kernel, Elem))| {
        let buffers = inputs(&kernel, LEN, 5, seed as u64 + 1);
        Case::new(&kernel, &buffers, tolerance(elem))
    };
    kernels.into_iter().enumerate().map(case).collect()
}

/// Norms and their gradients.
pub fn norms() -> Vec<Case> {
    let mut kernels = vec![];
    let mut cases = vec![];
    for (rows, d) in [(1, 1), (3, 63), (65, 65), (9, 130), (257, 3), (2, 5001)] {
        for elem in ELEMS {
            for residual in [false, true] {
                let (x, w, y) = (elem, Elem::F32, elem);
                let spec = RmsNormSpec { rows, d, eps: 1e-5, x_stride: d + 3, x, w, y, residual };
                kernels.push((rms_norm(&spec), elem));
                let (dy, dx) = (elem, elem);
                let spec =
                    RmsNormGradSpec { rows, d, eps: 1e-5, blocks: 3, x_stride: d, x, w, dy, dx, residual };
                kernels.push((rms_norm_grad(&spec), elem));
            }
        }
    }
    cases.extend(all(kernels));
    cases
}

/// Fused pointwise regions with every kind of operand.
pub fn pointwise_programs() -> Vec<Case> {
    use PointStep::{Binary, Const, Input, RoundBf16, RoundF16, Unary};
    let mut kernels = vec![];
    let mut cases = vec![];
    for (rows, cols) in [(1, 1), (7, 64), (33, 35), (3, 4099), (1, 9000)] {
        for elem in ELEMS {
            let dense = PointInput { elem, row_stride: cols, col_stride: 1 };
            let steps = vec![
                Input(0),
                Unary(PointUnary::Silu, 0),
                Input(1),
                Binary(PointBinary::Mul, 1, 2),
                Const(0.5),
                Binary(PointBinary::Greater, 3, 4),
                Unary(PointUnary::Tanh, 3),
                Binary(PointBinary::Add, 5, 6),
                Binary(PointBinary::Mask, 7, 5),
                if elem == Elem::F16 { RoundF16(8) } else { RoundBf16(8) },
                Unary(PointUnary::Relu, 8),
                Unary(PointUnary::Exp, 6),
                Binary(PointBinary::Div, 10, 11),
            ];
            let outputs = [3, 9, 12].map(|step| PointOutput { step, elem, row_stride: cols }).to_vec();
            for second in [
                dense.clone(),
                PointInput { elem, row_stride: 0, col_stride: 1 },
                PointInput { elem, row_stride: 1, col_stride: 0 },
                PointInput { elem, row_stride: 0, col_stride: 0 },
                PointInput { elem, row_stride: 1, col_stride: rows },
            ] {
                let inputs = vec![dense.clone(), second];
                let (steps, outputs) = (steps.clone(), outputs.clone());
                let spec = PointwiseSpec { rows, cols, inputs, steps, outputs, block: 4096 };
                kernels.push((pointwise(&spec), if elem == Elem::F16 { elem } else { Elem::Bf16 }));
            }
        }
    }
    cases.extend(all(kernels));
    cases
}

/// Strided copies and fills.
pub fn copies_and_fills() -> Vec<Case> {
    let mut kernels = vec![];
    let mut cases = vec![];
    for elem in ELEMS {
        let shapes: [(&[usize], &[usize], &[usize]); 4] = [
            (&[7, 33], &[33, 1], &[1, 7]),
            (&[3, 5, 65], &[65, 195, 1], &[325, 65, 1]),
            (&[70, 70], &[1, 100], &[75, 1]),
            (&[5, 9], &[0, 1], &[9, 1]),
        ];
        for (shape, src, dst) in shapes {
            let spec = CopySpec {
                shape: shape.to_vec(),
                src: Elem::F32,
                src_offset: 3,
                src_strides: src.to_vec(),
                dst: elem,
                dst_offset: 5,
                dst_strides: dst.to_vec(),
            };
            kernels.push((copy(&spec), elem));
        }
        let spec = FillSpec { rows: 13, cols: 77, offset: 9, row_stride: 80, elem, value: -1.5 };
        kernels.push((fill(&spec), elem));
    }
    cases.extend(all(kernels));
    cases
}

/// Sums and norms.
pub fn reductions() -> Vec<Case> {
    let mut kernels = vec![];
    let mut cases = vec![];
    for elem in ELEMS {
        for (outer, mid, inner) in [(1, 100, 1), (3, 17, 33), (2, 130, 65), (5, 1, 7)] {
            kernels.push((
                sum_middle(&SumMiddleSpec { outer, mid, inner, x: elem, y: Elem::F32, strip: 16 }),
                elem,
            ));
        }
        for numel in [1, 4097, 20_000] {
            let spec = SumOfSquaresSpec { numel, x: elem };
            kernels.push((sum_of_squares(&spec), elem));
            let kernel = norm_finish(&NormFinishSpec { partials: spec.partials() });
            let mut buffers = inputs(&kernel, LEN, 5, 1);
            // Sums of squares are not negative.
            if let Buffer::F32(partials) = &mut buffers[0] {
                partials.iter_mut().for_each(|x| *x = x.abs());
            }
            cases.push(Case::new(&kernel, &buffers, tolerance(elem)));
        }
    }
    for (parts, numel, by) in [
        (1, 7, PartsReduction::Sum),
        (2, 4097, PartsReduction::Sum),
        (5, 33, PartsReduction::Sum),
        (3, 65, PartsReduction::Max),
    ] {
        kernels.push((reduce_parts(&ReducePartsSpec { parts, numel, by }), Elem::F32));
    }
    cases.extend(all(kernels));
    cases
}

/// Rotary embeddings.
pub fn ropes() -> Vec<Case> {
    let mut kernels = vec![];
    let mut cases = vec![];
    for elem in ELEMS {
        for (seq, heads, dim) in [(5, 3, 8), (17, 8, 64), (1, 4, 16), (65, 1, 32)] {
            for (positions, inverse) in
                [(Positions::FromZero, false), (Positions::FromStart, true), (Positions::OfTokens, false)]
            {
                let strides = [seq * heads * dim, heads * dim, dim];
                let spec = RopeSpec {
                    batch: 2,
                    seq,
                    heads,
                    dim,
                    x: elem,
                    x_strides: strides,
                    y: elem,
                    y_strides: strides,
                    table_len: seq + 2,
                    block: 3,
                    positions,
                    inverse,
                };
                kernels.push((rope(&spec), elem));
            }
        }
    }
    cases.extend(all(kernels));
    cases
}

/// Losses, AdamW.
pub fn losses_and_optimizer() -> Vec<Case> {
    let mut kernels = vec![];
    let mut cases = vec![];
    for elem in ELEMS {
        for (rows, vocab, block) in
            [(1, 5, (8, 512)), (13, 33, (4, 64)), (5, 5000, (8, 512)), (3, 4100, (4, 256))]
        {
            for in_place_gradient in [false, true] {
                let spec = CrossEntropyRowsSpec { rows, vocab, logits: elem, in_place_gradient, block };
                kernels.push((cross_entropy_rows(&spec), elem));
            }
            let spec = CrossEntropySpec { rows, vocab, logits: elem, block };
            kernels.push((cross_entropy(&spec), elem));
            kernels.push((cross_entropy_grad(&spec), elem));
            kernels.push((log_probs(&spec), elem));
        }
        let updates = [None, Some(1.0), Some(0.0)];
        let decays = [Decay::Decoupled, Decay::Gradient];
        for (update, decay) in updates.into_iter().flat_map(|update| decays.map(|decay| (update, decay))) {
            let spec = AdamWKernelSpec {
                numel: 9001,
                beta1: 0.9,
                beta2: 0.95,
                eps: 1e-8,
                weight_decay: 0.1,
                decay,
                g: elem,
                guarded: update.is_some(),
            };
            // Second moments and steps are positive.
            let kernel = adamw(&spec);
            let mut buffers = inputs(&kernel, 9001, 5, 3);
            for k in [3, 5] {
                if let Buffer::F32(v) = &mut buffers[k] {
                    v.iter_mut().for_each(|x| *x = x.abs() + 0.5);
                }
            }
            if let Some(update) = update {
                buffers[7] = Buffer::F32(vec![update]);
            }
            cases.push(Case::new(&kernel, &buffers, tolerance(elem)));
        }
    }
    for tokens in [1, 100] {
        kernels.push((count_targets(&CountTargetsSpec { tokens }), Elem::F32));
        kernels.push((mean_nll(&MeanNllSpec { tokens }), Elem::F32));
    }
    cases.extend(all(kernels));
    cases
}

/// Attentions that nothing divides.
pub(crate) fn shapes() -> Vec<HeadShape> {
    [(1, 1, 1, 1, 8), (2, 63, 2, 1, 16), (1, 65, 4, 2, 24), (1, 130, 1, 1, 32)]
        .into_iter()
        .map(|(batch, seq, heads, kv_heads, head_dim)| HeadShape { batch, seq, heads, kv_heads, head_dim })
        .collect()
}

/// Operands with the positions of tokens in documents, if the kernel takes them.
fn in_documents(kernel: &Kernel, shape: &HeadShape, mut buffers: Vec<Buffer>) -> Vec<Buffer> {
    if let Some(at) = kernel.params.iter().position(|param| param.name == "positions") {
        buffers[at] = Buffer::I32(positions(shape));
    }
    buffers
}

/// Softmax attention, forward and backward.
pub fn softmax_attention() -> Vec<Case> {
    let mut cases = vec![];
    for (seed, shape) in shapes().into_iter().enumerate() {
        for elem in ELEMS {
            for (causal, documents) in [(false, false), (true, false), (true, true)] {
                let layout = Operands::contiguous(elem, shape);
                let spec = SoftmaxForwardSpec { documents, ..layout.softmax(causal, 0.25, (32, 16)) };
                let forward = softmax_attention_forward(&spec);
                let operands = in_documents(&forward, &shape, inputs(&forward, LEN, 5, seed as u64 + 7));
                cases.push(Case::new(&forward, &operands, tolerance(elem)));
                let saved = reference(&forward, &operands);
                let spec = layout.softmax_gradients(&spec);
                let of = |name: &str| {
                    forward.params.iter().position(|param| param.name == name).expect("a tensor")
                };
                let [q, k, v, out, lse] = ["q", "k", "v", "out", "lse"].map(|name| saved[of(name)].clone());
                let dout = operands[of("out")].clone();
                let joined = (elem == Elem::F32)
                    .then(|| softmax_attention_backward(&spec, Round { ranges: 1, round: 0 }));
                let kernels = [
                    softmax_attention_delta(&spec),
                    softmax_attention_dq(&spec),
                    softmax_attention_dkdv(&spec),
                ];
                for kernel in kernels.into_iter().chain(joined) {
                    let named = |name: &str| match name {
                        "q" => Some(q.clone()),
                        "k" => Some(k.clone()),
                        "v" => Some(v.clone()),
                        "out" => Some(out.clone()),
                        "lse" => Some(lse.clone()),
                        "dout" => Some(dout.clone()),
                        _ => None,
                    };
                    let mut buffers = in_documents(&kernel, &shape, inputs(&kernel, LEN, 5, 11));
                    for (param, buffer) in kernel.params.iter().zip(&mut buffers) {
                        if let Some(given) = named(&param.name) {
                            *buffer = given;
                        }
                    }
                    cases.push(Case::new(&kernel, &buffers, tolerance(elem)));
                }
            }
        }
    }
    cases
}

/// Linear attention, causal and not, with keys that leave the fast path.
pub fn efficient_attention() -> Vec<Case> {
    let mut cases = vec![];
    for (seed, shape) in shapes().into_iter().enumerate() {
        for elem in ELEMS {
            // Keys far apart take the way around the range check.
            for (temperature, chunk, documents) in
                [(1.0, 16, false), (1.0, 64, false), (40.0, 32, false), (1.0, 64, true), (40.0, 32, true)]
            {
                let layout = Operands::contiguous(elem, shape);
                let forward = EfficientForwardSpec { documents, ..layout.linear(chunk, temperature) };
                let backward = layout.linear_gradients(&forward, false);
                let rough = temperature > 1.0;
                let tolerance = if rough { (5e-2, 2e-2) } else { tolerance(elem) };
                // 40 times differences of rounded numbers.
                let of_gradients = if rough && elem != Elem::F32 { (1e-1, 2e-2) } else { tolerance };

                let kernel = efficient_attention_forward(&forward);
                let operands = in_documents(&kernel, &shape, inputs(&kernel, LEN, 5, seed as u64 + 3));
                cases.push(Case::new(&kernel, &operands, tolerance));
                let saved = reference(&kernel, &operands);
                let kernel = efficient_attention_backward(&backward);
                let mut buffers = in_documents(&kernel, &shape, inputs(&kernel, LEN, 5, 11));
                // Behind the positions, if there are some.
                let shift = usize::from(documents);
                for (to, from) in [(0, 0), (1, 1), (2, 2), (3, 4 + shift), (4, 5 + shift)] {
                    buffers[to] = saved[from].clone();
                }
                cases.push(Case::new(&kernel, &buffers, of_gradients));
                if documents {
                    continue;
                }

                let kernel = efficient_bidirectional_state(&forward);
                let operands = inputs(&kernel, LEN, 5, seed as u64 + 4);
                cases.push(Case::new(&kernel, &operands, tolerance));
                let state = reference(&kernel, &operands);
                let kernel = efficient_bidirectional_out(&forward);
                let mut buffers = inputs(&kernel, LEN, 5, 12);
                for (i, param) in kernel.params.iter().enumerate() {
                    if param.name == "state" {
                        buffers[i] = state[3].clone();
                    }
                }
                cases.push(Case::new(&kernel, &buffers, tolerance));
                let kernel = efficient_bidirectional_backward(&backward);
                let mut buffers = inputs(&kernel, LEN, 5, 13);
                for (to, from) in [(1, 0), (2, 1), (3, 2), (4, 3)] {
                    buffers[to] = state[from].clone();
                }
                cases.push(Case::new(&kernel, &buffers, of_gradients));
            }
        }
    }
    cases
}
