//! Attention that goes on from a cache or a recurrent state: one token, and blocks of a prompt.

use linc_tile::interp::Buffer;
use linc_tile::library::attention::efficient::{
    EfficientDecodeSpec, efficient_decode, efficient_prefill, efficient_prefill_out, efficient_prefill_prefix,
};
use linc_tile::library::attention::softmax::{
    SoftmaxDecodeSpec, SoftmaxPrefillSpec, append_to_cache, softmax_decode, softmax_decode_merge,
    softmax_decode_parts, softmax_prefill,
};
use linc_tile::library::attention::{HeadShape, HeadStrides};
use linc_tile::{Elem, Kernel};

use crate::library::{ELEMS, LEN, tolerance};
use crate::operands::Operands;
use crate::{Case, inputs};

/// One token at a time.
pub fn tokens() -> Vec<Case> {
    let mut cases = vec![];
    for elem in ELEMS {
        for (batch, seq, heads, kv_heads, head_dim, block_h, block_k) in
            [(1, 40, 2, 1, 16, 2, 16), (2, 65, 6, 2, 8, 3, 16), (1, 96, 8, 2, 64, 16, 32)]
        {
            let shape = HeadShape { batch, seq, heads, kv_heads, head_dim };
            let wide = HeadStrides::contiguous(1, heads, head_dim);
            let narrow = HeadStrides::contiguous(1, kv_heads, head_dim);
            let (q, k, v, out) = (wide, narrow, narrow, wide);
            let scale = 0.3;
            let spec = SoftmaxDecodeSpec {
                elem,
                cache_elem: elem,
                shape,
                scale,
                block_h,
                block_k,
                range: 32,
                q,
                k,
                v,
                out,
            };
            for pos in [0, 15, 39] {
                for kernel in
                    [softmax_decode(&spec), softmax_decode_parts(&spec), softmax_decode_merge(&spec)]
                {
                    let buffers = named(&kernel, shape.batch, 5, &[("pos", pos)]);
                    cases.push(Case::new(&kernel, &buffers, tolerance(elem)));
                }
            }
            let shape = HeadShape { seq: 1, ..shape };
            for width in [head_dim, 8] {
                let spec =
                    EfficientDecodeSpec { elem, shape, temperature: 1.0, block_h, width, q, k, v, out };
                let kernel = efficient_decode(&spec);
                for pos in [0, 7] {
                    cases.push(Case::new(
                        &kernel,
                        &named(&kernel, batch, 3, &[("pos", pos)]),
                        tolerance(elem),
                    ));
                }
            }
        }
    }
    cases
}

/// Blocks of a prompt: the first, and later ones.
pub fn prompts() -> Vec<Case> {
    let mut cases = vec![];
    let shape = |batch, seq, heads, kv_heads, head_dim| HeadShape { batch, seq, heads, kv_heads, head_dim };
    for elem in ELEMS {
        for (shape, chunk, len, positions) in [
            // Whole tiles of the main path, and a shape that nothing divides.
            (shape(1, 64, 4, 2, 64), 64, 192, [0, 128]),
            (shape(2, 37, 6, 2, 24), 16, 90, [0, 53]),
        ] {
            let layout = Operands::contiguous(elem, shape);
            let forward = layout.softmax(true, 0.3, (chunk, chunk));
            let spec = SoftmaxPrefillSpec { forward, len };
            for pos in positions {
                for kernel in [append_to_cache(&spec), softmax_prefill(&spec)] {
                    let buffers = named(&kernel, shape.batch, 5, &[("pos", pos)]);
                    cases.push(Case::new(&kernel, &buffers, tolerance(elem)));
                }
            }
            // Keys far apart take the way around the range check.
            for (temperature, within) in [(1.0, tolerance(elem)), (40.0, (5e-2, 2e-2))] {
                let spec = layout.linear(chunk, temperature);
                for pos in positions {
                    for kernel in [
                        efficient_prefill(&spec),
                        efficient_prefill_prefix(&spec),
                        efficient_prefill_out(&spec),
                    ] {
                        cases.push(Case::new(
                            &kernel,
                            &named(&kernel, shape.batch, 6, &[("pos", pos)]),
                            within,
                        ));
                    }
                }
            }
        }
    }
    cases
}

/// Random operands for `batch` sequences but for numbers that matter; sums of weights are positive.
fn named(kernel: &Kernel, batch: usize, seed: u64, numbers: &[(&str, i32)]) -> Vec<Buffer> {
    let mut buffers = inputs(kernel, LEN, 5, seed);
    for (param, buffer) in kernel.params.iter().zip(&mut buffers) {
        if param.name == "slot" {
            // The other way round than the sequences, of which no more are read than there are.
            *buffer = Buffer::I32((0..batch as i32).rev().collect());
        }
        if let Some((_, number)) = numbers.iter().find(|(name, _)| *name == param.name) {
            *buffer = Buffer::I32(vec![*number; 4]);
        }
        if let (true, Buffer::F32(sums)) =
            (matches!(param.name.as_str(), "z" | "sum") && param.elem == Elem::F32, buffer)
        {
            sums.iter_mut().for_each(|sum| *sum = sum.abs() + 0.5);
        }
    }
    buffers
}
