//! Strided copies and fills.

use linc_tile::Elem;
use linc_tile::library::copy::{CopySpec, copy};
use linc_tile::library::fill::{FillSpec, fill};

use super::harness::{Data, SENTINEL, assert_equal, floats, run};

/// Runs a copy into a destination of sentinels and compares with plain loops, untouched elements included.
fn check(spec: &CopySpec, src_len: usize, dst_len: usize) {
    let src: Vec<f32> = (0..src_len).map(|i| i as f32).collect();
    let mut expected = vec![SENTINEL; dst_len];
    let count: usize = spec.shape.iter().product();
    for flat in 0..count {
        let (mut rest, mut from, mut to) = (flat, spec.src_offset, spec.dst_offset);
        for axis in (0..spec.shape.len()).rev() {
            let i = rest % spec.shape[axis];
            rest /= spec.shape[axis];
            from += i * spec.src_strides[axis];
            to += i * spec.dst_strides[axis];
        }
        expected[to] = src[from];
    }
    let out = run(&copy(spec), vec![Data::f32(&src), Data::f32(&vec![SENTINEL; dst_len])]);
    assert_equal(&floats(&out[1]), &expected, &format!("{spec:?}"));
}

fn f32_copy(shape: &[usize], src: (usize, &[usize]), dst: (usize, &[usize])) -> CopySpec {
    CopySpec {
        shape: shape.to_vec(),
        src: Elem::F32,
        src_offset: src.0,
        src_strides: src.1.to_vec(),
        dst: Elem::F32,
        dst_offset: dst.0,
        dst_strides: dst.1.to_vec(),
    }
}

#[test]
fn contiguous() {
    for n in [1, 3, 63, 65, 257, 4096, 4097, 10000] {
        check(&f32_copy(&[n], (0, &[1]), (0, &[1])), n, n);
        check(&f32_copy(&[n, 3], (0, &[3, 1]), (0, &[3, 1])), 3 * n, 3 * n);
    }
}

#[test]
fn transposed_matrix() {
    for (rows, cols) in [(1, 1), (1, 65), (3, 5), (63, 65), (65, 257), (3, 5000), (5000, 3), (130, 129)] {
        check(&f32_copy(&[rows, cols], (0, &[cols, 1]), (0, &[1, rows])), rows * cols, rows * cols);
    }
}

#[test]
fn permuted_axes_of_four() {
    let shape = [2, 7, 3, 5];
    let src = [105, 15, 5, 1];
    let count: usize = shape.iter().product();
    for perm in [[0, 2, 1, 3], [3, 2, 1, 0], [0, 1, 3, 2], [1, 3, 0, 2], [2, 0, 3, 1]] {
        // Output axis i is input axis perm[i], the output dense.
        let mut dst = [0; 4];
        let mut stride = 1;
        for i in (0..4).rev() {
            dst[perm[i]] = stride;
            stride *= shape[perm[i]];
        }
        check(&f32_copy(&shape, (0, &src), (0, &dst)), count, count);
    }
    let heads = [3, 65, 4, 63];
    let src = [65 * 4 * 63, 4 * 63, 63, 1];
    let dst = [4 * 65 * 63, 63, 65 * 63, 1];
    let count: usize = heads.iter().product();
    check(&f32_copy(&heads, (0, &src), (0, &dst)), count, count);
}

#[test]
fn slice_pad_and_broadcast() {
    // Columns 2..65 of [63, 257], then the same into columns 5..68 of [63, 100].
    check(&f32_copy(&[63, 63], (2, &[257, 1]), (0, &[63, 1])), 63 * 257, 63 * 63);
    check(&f32_copy(&[63, 63], (2, &[257, 1]), (5, &[100, 1])), 63 * 257, 63 * 100);
    // A vector repeated over rows, a column over columns, a number over all.
    check(&f32_copy(&[65, 257], (0, &[0, 1]), (0, &[257, 1])), 257, 65 * 257);
    check(&f32_copy(&[65, 257], (0, &[1, 0]), (0, &[257, 1])), 65, 65 * 257);
    check(&f32_copy(&[65, 257], (1, &[0, 0]), (0, &[257, 1])), 2, 65 * 257);
    check(&f32_copy(&[1, 1, 1], (4, &[9, 9, 9]), (3, &[2, 2, 2])), 5, 6);
}

#[test]
fn element_types() {
    let values: Vec<f32> = (0..300).map(|i| 1.0 + i as f32 / 1024.0).collect();
    let spec = |src, dst| CopySpec { src, dst, ..f32_copy(&[20, 15], (0, &[15, 1]), (0, &[1, 20])) };
    let rounded: Vec<f32> = values.iter().map(|x| half::bf16::from_f32(*x).to_f32()).collect();
    let mut expected = vec![0.0; 300];
    for i in 0..20 {
        for j in 0..15 {
            expected[j * 20 + i] = rounded[i * 15 + j];
        }
    }
    let zeros = vec![0.0; 300];
    let down = run(&copy(&spec(Elem::F32, Elem::Bf16)), vec![Data::f32(&values), Data::bf16(&zeros)]);
    assert_equal(&floats(&down[1]), &expected, "f32 to bf16");
    let up = run(&copy(&spec(Elem::Bf16, Elem::F32)), vec![Data::bf16(&values), Data::f32(&zeros)]);
    assert_equal(&floats(&up[1]), &expected, "bf16 to f32");
    let same = run(&copy(&spec(Elem::Bf16, Elem::Bf16)), vec![Data::bf16(&values), Data::bf16(&zeros)]);
    assert_equal(&floats(&same[1]), &expected, "bf16 to bf16");
    let ids: Vec<i32> = (0..300).collect();
    let out = run(&copy(&spec(Elem::I32, Elem::I32)), vec![Data::i32(&ids), Data::i32(&[0; 300])]);
    let expected: Vec<f32> = (0..300).map(|k| ((k % 20) * 15 + k / 20) as f32).collect();
    assert_equal(&floats(&out[1]), &expected, "i32");
}

#[test]
fn fills() {
    for (rows, cols, offset, row_stride, value) in [
        (1, 1, 0, 1, 0.0),
        (1, 257, 3, 257, -1.5),
        (1, 9000, 0, 9000, 1e-5),
        (65, 63, 2, 100, 3.0),
        (100, 65, 0, 65, 0.25),
        (100, 65, 0, 70, 0.25),
        (3, 5000, 1, 5003, 2.0),
    ] {
        let len = offset + (rows - 1) * row_stride + cols + 3;
        let mut expected = vec![SENTINEL; len];
        for i in 0..rows {
            for j in 0..cols {
                expected[offset + i * row_stride + j] = value as f32;
            }
        }
        let spec = FillSpec { rows, cols, offset, row_stride, elem: Elem::F32, value };
        let out = run(&fill(&spec), vec![Data::f32(&vec![SENTINEL; len])]);
        assert_equal(&floats(&out[0]), &expected, &format!("{spec:?}"));
    }
    let spec = FillSpec { rows: 1, cols: 65, offset: 0, row_stride: 65, elem: Elem::Bf16, value: 0.3 };
    let out = run(&fill(&spec), vec![Data::bf16(&[0.0; 65])]);
    assert_equal(&floats(&out[0]), &[half::bf16::from_f32(0.3).to_f32(); 65], "bf16");
    let spec = FillSpec { elem: Elem::I32, value: -7.0, ..spec };
    let out = run(&fill(&spec), vec![Data::i32(&[0; 65])]);
    assert_equal(&floats(&out[0]), &[-7.0; 65], "i32");
}
