//! What the ranks of a run share.

use linc_ir::interp::{Tensor, eval};
use linc_ir::{ExchangeOp, Op, Reduction};
use linc_tile::interp::{Buffer, RunOptions};
use linc_tile::library::parts::{PartsReduction, ReducePartsSpec, reduce_parts};

/// Sums over ranks have one order: the interpreter's is the kernels' (and the devices', which take it from there).
#[test]
fn parts_are_added_in_the_order_of_the_interpreter() {
    const NUMEL: usize = 3;
    let number = |i: usize| ((i * 2_654_435_761 % 1013) as f32 - 500.0) * 1.1f32.powi((i % 60) as i32 - 30);
    for parts in 1..=33 {
        let x: Vec<f32> = (0..parts * NUMEL).map(number).collect();
        let op = Op::from(ExchangeOp::ReduceParts { parts, reduction: Reduction::Sum });
        let expected = eval(&op, &[&Tensor::float([x.len()], x.clone())]).unwrap_or_else(|e| panic!("{e}"));
        let kernel = reduce_parts(&ReducePartsSpec { parts, numel: NUMEL, by: PartsReduction::Sum });
        let mut buffers = [Buffer::F32(x), Buffer::F32(vec![0.0; NUMEL])];
        linc_tile::interp::run(&kernel, &mut buffers, &RunOptions::default())
            .unwrap_or_else(|e| panic!("{e}"));
        let Buffer::F32(found) = &buffers[1] else { panic!("floats") };
        assert_eq!(expected[0].floats(), Some(&found[..]), "{parts} parts");
    }
}
