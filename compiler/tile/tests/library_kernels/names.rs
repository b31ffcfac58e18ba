//! Every kernel is well-formed, reads back from its text, and has a name that stands for its specification.

use std::collections::{BTreeMap, BTreeSet};

use linc_tile::library::copy::{CopySpec, copy};
use linc_tile::library::embedding::{
    EmbeddingGradSpec, EmbeddingSpec, SortedEmbeddingGradSpec, embedding, embedding_grad,
    embedding_grad_sorted,
};
use linc_tile::library::family;
use linc_tile::library::fill::{FillSpec, fill};
use linc_tile::library::loss::{
    CountTargetsSpec, CrossEntropyRowsSpec, CrossEntropySpec, MeanNllSpec, count_targets, cross_entropy,
    cross_entropy_grad, cross_entropy_rows, log_probs, mean_nll,
};
use linc_tile::library::norm::{RmsNormGradSpec, RmsNormSpec, rms_norm, rms_norm_grad};
use linc_tile::library::optimizer::{AdamWKernelSpec, Decay, adamw};
use linc_tile::library::parts::{PartsReduction, ReducePartsSpec, reduce_parts};
use linc_tile::library::pointwise::{
    PointBinary, PointInput, PointOutput, PointStep, PointwiseSpec, pointwise,
};
use linc_tile::library::reduce::{
    NormFinishSpec, SumMiddleSpec, SumOfSquaresSpec, norm_finish, sum_middle, sum_of_squares,
};
use linc_tile::library::rope::{Positions, RopeSpec, rope};
use linc_tile::library::sort::{SortKeysSpec, SortedRangesSpec, sort_keys, sort_pass, sorted_ranges};
use linc_tile::{Elem, Kernel, parse, verify};

/// All kernels at one size.
fn kernels(rows: usize, cols: usize, elem: Elem) -> Vec<Kernel> {
    let mut all = vec![];
    for stride in [0, cols] {
        let input = |row_stride| PointInput { elem, row_stride, col_stride: 1 };
        all.push(pointwise(&PointwiseSpec {
            rows,
            cols,
            inputs: vec![input(cols), input(stride)],
            steps: vec![PointStep::Input(0), PointStep::Input(1), PointStep::Binary(PointBinary::Add, 0, 1)],
            outputs: vec![PointOutput { step: 2, elem, row_stride: cols }],
            block: 4096,
        }));
    }
    for dst_strides in [vec![cols, 1], vec![1, rows]] {
        all.push(copy(&CopySpec {
            shape: vec![rows, cols],
            src: elem,
            src_offset: 0,
            src_strides: vec![cols, 1],
            dst: Elem::F32,
            dst_offset: 3,
            dst_strides,
        }));
    }
    for value in [0.0, -1.5] {
        all.push(fill(&FillSpec { rows, cols, offset: 0, row_stride: cols + 1, elem, value }));
    }
    all.push(sum_middle(&SumMiddleSpec {
        outer: 2,
        mid: rows,
        inner: cols,
        x: elem,
        y: Elem::F32,
        strip: 16,
    }));
    all.push(sum_middle(&SumMiddleSpec {
        outer: rows,
        mid: cols,
        inner: 1,
        x: elem,
        y: Elem::F32,
        strip: 16,
    }));
    all.push(sum_of_squares(&SumOfSquaresSpec { numel: rows * cols, x: elem }));
    for residual in [false, true] {
        for eps in [1e-5, 1e-6] {
            let (w, y) = (Elem::F32, elem);
            let x_stride = cols + 1;
            all.push(rms_norm(&RmsNormSpec { rows, d: cols, eps, x_stride, x: elem, w, y, residual }));
            let (dy, dx, blocks) = (elem, elem, 64);
            all.push(rms_norm_grad(&RmsNormGradSpec {
                rows,
                d: cols,
                eps,
                blocks,
                x_stride,
                x: elem,
                w,
                dy,
                dx,
                residual,
            }));
        }
    }
    let all_positions = [Positions::FromZero, Positions::FromStart, Positions::OfTokens];
    for ((heads, inverse), positions) in
        [(2, false), (64, true)].into_iter().flat_map(|at| all_positions.map(|p| (at, p)))
    {
        let dim = 2 * cols;
        let strides = [rows * heads * dim, heads * dim, dim];
        all.push(rope(&RopeSpec {
            batch: 2,
            seq: rows,
            heads,
            dim,
            x: elem,
            x_strides: strides,
            y: elem,
            y_strides: strides,
            table_len: rows,
            block: 4,
            positions,
            inverse,
        }));
    }
    let (tokens, vocab, d) = (rows, cols, cols);
    all.push(embedding(&EmbeddingSpec { tokens, d, vocab, table: elem, y: elem }));
    all.push(embedding_grad(&EmbeddingGradSpec { tokens, d, vocab, dy: elem, block: (8, 512), scan: 64 }));
    let (block, batch) = ((8, 512), 4);
    all.push(embedding_grad_sorted(&SortedEmbeddingGradSpec { tokens, d, vocab, dy: elem, block, batch }));
    let block = (4, 64);
    for in_place_gradient in [false, true] {
        all.push(cross_entropy_rows(&CrossEntropyRowsSpec {
            rows,
            vocab,
            logits: elem,
            in_place_gradient,
            block,
        }));
    }
    all.push(cross_entropy(&CrossEntropySpec { rows, vocab, logits: elem, block }));
    all.push(cross_entropy_grad(&CrossEntropySpec { rows, vocab, logits: elem, block }));
    all.push(log_probs(&CrossEntropySpec { rows, vocab, logits: elem, block }));
    let (beta1, beta2, eps, weight_decay) = (0.9, 0.95, 1e-8, 0.1);
    all.push(adamw(&AdamWKernelSpec {
        numel: rows * cols,
        beta1,
        beta2,
        eps,
        weight_decay,
        decay: Decay::Decoupled,
        g: elem,
        guarded: false,
    }));
    if elem == Elem::F32 {
        all.push(norm_finish(&NormFinishSpec { partials: rows }));
        for by in [PartsReduction::Sum, PartsReduction::Max] {
            all.push(reduce_parts(&ReducePartsSpec { parts: rows, numel: cols, by }));
        }
        all.push(count_targets(&CountTargetsSpec { tokens }));
        for radix in [2, 3] {
            let keys = SortKeysSpec { tokens, vocab, radix };
            all.push(sort_keys(&keys));
            all.extend(keys.passes(64).iter().map(sort_pass));
            all.push(sorted_ranges(&SortedRangesSpec { tokens, vocab, block: radix }));
        }
        all.push(mean_nll(&MeanNllSpec { tokens }));
    }
    all
}

#[test]
fn all_kernels_are_valid_and_read_back() {
    for (rows, cols) in [(1, 1), (3, 65), (257, 63), (2048, 512), (7, 128_256)] {
        for elem in [Elem::F32, Elem::Bf16, Elem::F16] {
            for kernel in kernels(rows, cols, elem) {
                verify(&kernel).unwrap_or_else(|error| panic!("{error}\n{kernel}"));
                let text = kernel.to_string();
                let again = parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
                assert_eq!(again.to_string(), text);
            }
        }
    }
}

#[test]
fn families_are_names_without_sizes_and_types() {
    for (name, expected) in [
        ("rms_norm_grad_2048x2048_p64_s2048_eps1em5", "rms_norm_grad"),
        ("cross_entropy_rows_grad_64x128256_bf16", "cross_entropy_rows_grad"),
        ("count_targets_8", "count_targets"),
        ("fill", "fill"),
    ] {
        assert_eq!(family(name), expected);
    }
    let families = |rows, cols, elem| {
        kernels(rows, cols, elem).iter().map(|kernel| family(&kernel.name).to_string()).collect::<Vec<_>>()
    };
    assert_eq!(families(3, 65, Elem::F32), families(2048, 512, Elem::F32));
}

#[test]
fn names_stand_for_specifications() {
    let mut texts = BTreeMap::new();
    for (rows, cols) in [(3, 65), (65, 3), (257, 63), (2048, 512)] {
        let list = || [Elem::F32, Elem::Bf16, Elem::F16].map(|elem| kernels(rows, cols, elem)).concat();
        // Different specifications, different names.
        let names: BTreeSet<String> = list().into_iter().map(|kernel| kernel.name).collect();
        assert_eq!(names.len(), list().len());
        // Equal names, equal texts, among sizes too.
        for kernel in list().into_iter().chain(list()) {
            let text = kernel.to_string();
            let first = texts.entry(kernel.name).or_insert_with(|| text.clone());
            assert_eq!(*first, text);
        }
    }
}
