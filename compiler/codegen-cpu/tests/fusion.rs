//! What must not be copied or split: seen from the primitives that a function calls and the loops it has.

use linc_codegen_cpu::{CpuCodegenOptions, CpuKernel, Primitive, compile};
use linc_tile::{Binary, Builder, Elem, Kernel, Mode, Unary, ValueId};

fn compiled(kernel: &Kernel) -> CpuKernel {
    compile(kernel, CpuCodegenOptions { fma: true }).expect("the kernel compiles")
}

/// Branches back to an earlier block.
fn loops(compiled: &CpuKernel) -> usize {
    compiled.text().lines().filter(|line| line.trim_start().starts_with("brif")).count()
}

#[test]
fn a_pointwise_chain_with_loads_and_stores_is_one_loop() {
    let mut b = Builder::new("chain", [4, 1, 1]);
    let x = b.param("x", Elem::F32, Mode::Read);
    let y = b.param("y", Elem::Bf16, Mode::ReadWrite);
    let z = b.param("z", Elem::F32, Mode::Write);
    let pid = b.program_id(0);
    let at = b.scale_index(pid, 1024);
    let axes = [(1, None)];
    let p = b.load(x, at, &[1024], &axes);
    let q = b.load_f32(y, at, &[1024], &axes);
    let sum = b.add(p, q);
    let root = b.unary(Unary::Sqrt, sum);
    b.store(y, at, root, &axes);
    let scaled = b.scale(p, 3.0);
    let last = b.binary(Binary::Max, scaled, root);
    b.store(z, at, last, &axes);
    let compiled = compiled(&b.finish());
    assert_eq!(compiled.externals, []);
    assert_eq!(loops(&compiled), 1);
    assert!(compiled.scratch_bytes <= 64, "nothing is kept: {} bytes", compiled.scratch_bytes);
}

#[test]
fn a_common_bound_cuts_the_loop_instead_of_copying() {
    let mut b = Builder::new("ragged", [4, 1, 1]);
    let x = b.param("x", Elem::F32, Mode::Read);
    let y = b.param("y", Elem::F32, Mode::Write);
    let pid = b.program_id(0);
    let at = b.scale_index(pid, 1024);
    let end = b.index(4000);
    let left = b.sub(end, at);
    let axes = [(1, Some(left))];
    let p = b.load(x, at, &[1024], &axes);
    let p = b.unary(Unary::Abs, p);
    b.store(y, at, p, &axes);
    assert_eq!(compiled(&b.finish()).externals, []);
}

#[test]
fn a_carried_accumulator_is_updated_in_place() {
    let mut b = Builder::new("carried", [1, 1, 1]);
    let x = b.param("x", Elem::F32, Mode::Read);
    let y = b.param("y", Elem::F32, Mode::Write);
    let (zero, end) = (b.index(0), b.index(256));
    let axes = [(32, None), (1, None)];
    let start = b.full(0.0, &[32, 32]);
    let done = b.for_loop(zero, end, 32, &[start], |b, k, carried| {
        let at = b.scale_index(k, 32);
        let tile = b.load(x, at, &[32, 32], &axes);
        let faded = b.scale(carried[0], 0.5);
        vec![b.dot(tile, false, tile, true, Some(faded))]
    });
    b.store(y, zero, done[0], &axes);
    let compiled = compiled(&b.finish());
    // No copy into, around or out of the loop; the operands are read from memory.
    assert_eq!(compiled.externals, [Primitive::Dot, Primitive::Store32]);
    let one = 32 * 32 * 4 + 64;
    let pack = Primitive::dot_pack_bytes(32, 32, 32);
    assert!(compiled.scratch_bytes <= 64 + 2 * one + pack + 64, "one tile is kept");
}

#[test]
fn two_carried_tiles_that_swap_are_copied() {
    let mut b = Builder::new("swap", [1, 1, 1]);
    let x = b.param("x", Elem::F32, Mode::Read);
    let y = b.param("y", Elem::F32, Mode::Write);
    let (zero, end, far) = (b.index(0), b.index(3), b.index(64));
    let axes = [(1, None)];
    let p = b.load(x, zero, &[64], &axes);
    let q = b.load(x, far, &[64], &axes);
    let done = b.for_loop(zero, end, 1, &[p, q], |_, _, carried| vec![carried[1], carried[0]]);
    b.store(y, zero, done[0], &axes);
    assert!(compiled(&b.finish()).externals.contains(&Primitive::Load32));
}

#[test]
fn a_tile_with_a_vector_along_an_axis_is_a_primitive() {
    let axes = [(16, None), (1, None)];
    let externals = |f: &dyn Fn(&mut Builder, [ValueId; 3]) -> ValueId| {
        let mut b = Builder::new("with_vector", [1, 1, 1]);
        let x = b.param("x", Elem::F32, Mode::Read);
        let y = b.param("y", Elem::F32, Mode::Read);
        let v = b.param("v", Elem::F32, Mode::Read);
        let z = b.param("z", Elem::F32, Mode::Write);
        let zero = b.index(0);
        let [x, y] = [x, y].map(|tile| b.load(tile, zero, &[8, 16], &axes));
        let v = b.load(v, zero, &[8], &axes[1..]);
        let v = b.expand_cols(v, 16);
        let result = f(&mut b, [x, y, v]);
        // Read twice, so that it is kept.
        let product = b.dot(result, true, result, false, None);
        b.store(z, zero, product, &axes);
        compiled(&b.finish()).externals
    };
    let first = |f| externals(f).first().copied();
    assert_eq!(first(&|b, [x, _, v]| b.mul(x, v)), Some(Primitive::Scale));
    assert_eq!(
        first(&|b, [x, y, v]| {
            let difference = b.sub(x, v);
            b.mul(y, difference)
        }),
        Some(Primitive::ScaledDifference)
    );
    // The vector is subtracted from.
    assert_eq!(
        first(&|b, [x, y, v]| {
            let difference = b.sub(v, x);
            b.mul(y, difference)
        }),
        Some(Primitive::Dot)
    );
}
