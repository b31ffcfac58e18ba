//! Softmax attention kernels against float64 loops.

use crate::attention_support::{HeadLayout, Machine, Problem, Reference, error};
use linc_cases::operands::Keys;
use linc_tile::Elem;
use linc_tile::library::attention::HeadShape;
use linc_tile::library::attention::softmax::{
    Round, SoftmaxForwardSpec, softmax_attention_backward, softmax_attention_delta, softmax_attention_dkdv,
    softmax_attention_dq, softmax_attention_forward,
};

#[derive(Clone, Copy, Debug)]
struct Case {
    shape: HeadShape,
    causal: bool,
    block_q: usize,
    block_k: usize,
    scale: f64,
}

/// Ranges of the keys and queries of a head, in the kernel that computes all gradients.
const RANGES: [usize; 3] = [1, 2, 5];

/// out, lse, dq, dk, dv of the kernels; of f32 the gradients once more for each of [`RANGES`].
fn run(machine: Machine, case: Case, problem: &Problem) -> Vec<Vec<f64>> {
    let Case { shape, causal, block_q, block_k, scale } = case;
    let HeadShape { batch, seq, heads, kv_heads, .. } = shape;
    let operands = machine.operands(shape);
    let documents = !problem.positions.is_empty();
    let forward = SoftmaxForwardSpec { documents, ..operands.softmax(causal, scale, (block_q, block_k)) };
    let q = machine.input(&shape, heads, &problem.q);
    let k = machine.input(&shape, kv_heads, &problem.k);
    let v = machine.input(&shape, kv_heads, &problem.v);
    let dout = machine.input(&shape, heads, &problem.dout);
    let rows = batch * heads * seq;
    let mut buffers =
        [q.clone(), k.clone(), v.clone(), machine.output(&shape, heads), machine.plain_output(rows)];
    machine.run_apart(&softmax_attention_forward(&forward), &mut buffers, &problem.positions);
    let [_, _, _, out, lse] = buffers;

    let backward = operands.softmax_gradients(&forward);
    let mut buffers = [out.clone(), dout.clone(), machine.plain_output(rows)];
    machine.run_apart(&softmax_attention_delta(&backward), &mut buffers, &[]);
    let [_, _, delta] = buffers;
    let inputs = [q, k, v, dout, lse.clone(), delta];
    let mut buffers = inputs.to_vec();
    buffers.push(machine.output(&shape, heads));
    machine.run_apart(&softmax_attention_dq(&backward), &mut buffers, &problem.positions);
    let dq = machine.read(&shape, heads, &buffers[6]);
    let mut buffers = inputs.to_vec();
    buffers.extend([machine.output(&shape, kv_heads), machine.output(&shape, kv_heads)]);
    machine.run_apart(&softmax_attention_dkdv(&backward), &mut buffers, &problem.positions);
    let mut results = vec![machine.read(&shape, heads, &out), lse.to_f64(), dq];
    results.extend([6, 7].map(|i| machine.read(&shape, kv_heads, &buffers[i])));
    if machine.elem == Elem::F32 {
        let heads = [heads, kv_heads, kv_heads];
        for ranges in RANGES {
            let mut buffers = inputs.to_vec();
            buffers.extend(heads.map(|heads| machine.output(&shape, heads)));
            for round in Round::all(ranges) {
                let kernel = softmax_attention_backward(&backward, round);
                machine.run_apart(&kernel, &mut buffers, &problem.positions);
            }
            let read = heads.iter().zip(&buffers[6..]);
            results.extend(read.map(|(heads, buffer)| machine.read(&shape, *heads, buffer)));
        }
    }
    results
}

fn check(machine: Machine, case: Case, problem: &Problem, tolerance: f64) {
    let Reference { out, lse, dq, dk, dv, natural } = problem.softmax(case.causal, case.scale);
    let results = run(machine, case, problem);
    // dq and dk of a saturated softmax are differences of large terms, times the largest key or query.
    let largest = |x: &[f32]| x.iter().fold(0.0, |m, x| f64::max(m, f64::from(x.abs())));
    let floor_q = natural * case.scale * largest(&problem.k).max(1.0);
    let floor_k = natural * case.scale * largest(&problem.q).max(1.0);
    let references = [(out, 0.0), (lse, 1.0), (dq, floor_q), (dk, floor_k), (dv, 0.0)];
    let names = ["out", "lse", "dq", "dk", "dv"];
    for (i, result) in results.iter().enumerate() {
        // Gradients come again and again.
        let which = if i < 5 { i } else { 2 + (i - 5) % 3 };
        let ((reference, floor), name) = (&references[which], names[which]);
        let e = error(result, reference, *floor);
        assert!(
            e <= tolerance,
            "result {i}, {name}: error {e:.2e} > {tolerance:.0e} for {case:?} on {machine:?}"
        );
    }
}

#[test]
fn rounds_share_the_pairs_that_there_are() {
    for (seq, causal) in [(1, true), (64, false), (130, true), (512, true), (700, true), (700, false)] {
        let case = case([seq, 2, 1, 16], causal, 64, 64);
        let operands = Machine::F32.operands(case.shape);
        let forward = operands.softmax(causal, case.scale, (64, 64));
        let spec = operands.softmax_gradients(&forward);
        for ranges in RANGES {
            let rounds: Vec<Round> = Round::all(ranges).collect();
            let pairs: Vec<usize> = rounds.iter().map(|round| round.pairs(&spec)).collect();
            let all = if causal { seq * (seq + 1) / 2 } else { seq * seq };
            assert_eq!(pairs.iter().sum::<usize>(), all, "{case:?} in {ranges}: {pairs:?}");
            assert_eq!(rounds[0].rows_read(&spec), [seq, seq]);
        }
    }
    // Four ranges of 64 rows: a round without a diagonal sees all of its squares, and one fewer of them each time.
    let case = case([256, 2, 1, 16], true, 64, 64);
    let operands = Machine::F32.operands(case.shape);
    let spec = operands.softmax_gradients(&operands.softmax(true, case.scale, (64, 64)));
    let pairs: Vec<usize> = Round::all(4).map(|round| round.pairs(&spec)).collect();
    assert_eq!(pairs, [4 * 64 * 65 / 2, 3 * 64 * 64, 2 * 64 * 64, 64 * 64]);
    let read: Vec<[usize; 2]> = Round::all(4).map(|round| round.rows_read(&spec)).collect();
    assert_eq!(read, [256, 192, 128, 64].map(|rows| [rows, rows]));
}

fn case([seq, heads, kv_heads, head_dim]: [usize; 4], causal: bool, block_q: usize, block_k: usize) -> Case {
    let shape = HeadShape { batch: 2, seq, heads, kv_heads, head_dim };
    Case { shape, causal, block_q, block_k, scale: (head_dim as f64).powf(-0.5) }
}

#[test]
fn every_length() {
    for seq in [1, 63, 64, 65, 130, 200] {
        for causal in [false, true] {
            let case = case([seq, 2, 1, 16], causal, 64, 64);
            check(Machine::F32, case, &Problem::new(case.shape, Keys::Normal, seq as u64), 3e-6);
        }
    }
}

#[test]
fn documents_see_nothing_of_each_other() {
    let documents: [&[usize]; 4] = [&[1], &[64, 64, 1, 1, 30], &[7, 100, 3], &[500]];
    for (i, (block_q, block_k)) in [(64, 64), (16, 64), (64, 16), (32, 48), (128, 64)].into_iter().enumerate()
    {
        for seq in [1, 65, 128, 230] {
            for lengths in documents {
                let case = case([seq, 2, 1, 16], true, block_q, block_k);
                let problem = Problem::new(case.shape, Keys::Normal, (seq + i) as u64).apart(lengths);
                check(Machine::F32, case, &problem, 3e-6);
            }
        }
    }
    // Scores that differ by thousands from document to document.
    let case = case([200, 4, 2, 32], true, 64, 64);
    for keys in [Keys::Uniform(100.0), Keys::Ramp(100.0), Keys::Steps] {
        let problem = Problem::new(case.shape, keys, 3).apart(&[30, 50, 1, 60]);
        check(Machine::F64, case, &problem, 1e-9);
    }
}

#[test]
fn every_head_size_and_group() {
    for (heads, kv_heads, head_dim) in [(2, 2, 32), (4, 1, 16), (4, 2, 64), (1, 1, 128), (3, 1, 24)] {
        for causal in [false, true] {
            let case = case([100, heads, kv_heads, head_dim], causal, 64, 64);
            check(Machine::F32, case, &Problem::new(case.shape, Keys::Normal, 5), 3e-6);
        }
    }
}

#[test]
fn blocks_of_different_sizes() {
    for (block_q, block_k) in [(16, 16), (16, 64), (64, 16), (32, 48), (128, 64), (64, 128)] {
        for causal in [false, true] {
            for seq in [96, 150] {
                let case = case([seq, 2, 1, 16], causal, block_q, block_k);
                check(Machine::F32, case, &Problem::new(case.shape, Keys::Normal, 6), 3e-6);
            }
        }
    }
}

#[test]
fn exact_in_exact_arithmetic() {
    for causal in [false, true] {
        let case = case([130, 4, 2, 16], causal, 64, 32);
        check(Machine::F64, case, &Problem::new(case.shape, Keys::Uniform(10.0), 7), 1e-12);
    }
}

#[test]
fn saturated_scores() {
    // Scores of several hundred: nothing may overflow, in the ragged block of keys either.
    for causal in [false, true] {
        let mut case = case([70, 2, 2, 16], causal, 64, 64);
        case.scale = 1.0;
        check(Machine::F32, case, &Problem::new(case.shape, Keys::Uniform(100.0), 8), 3e-4);
        check(Machine::F64, case, &Problem::new(case.shape, Keys::Uniform(100.0), 8), 1e-11);
    }
}

#[test]
fn narrow_tensors() {
    for layout in [HeadLayout::Packed, HeadLayout::Sliced] {
        for (machine, tolerance) in [(Machine::BF16, 1.5e-2), (Machine::F16, 1.9e-3)] {
            let machine = Machine { layout, ..machine };
            let case = case([100, 4, 2, 32], true, 64, 64);
            let mut problem = Problem::new(case.shape, Keys::Normal, 9);
            problem.round_to(machine.elem);
            check(machine, case, &problem, tolerance);
        }
    }
}

/// Keys beyond the sequence, whose scores are 0, would have infinite weights beside scores that are all far below.
#[test]
fn very_negative_scores() {
    for (seq, causal) in [(70, false), (71, false), (70, true)] {
        let mut case = case([seq, 1, 1, 16], causal, 64, 64);
        case.scale = 1.0;
        let mut problem = Problem::new(case.shape, Keys::Normal, 8);
        problem.q.iter_mut().for_each(|x| *x = 3.0);
        problem.k.iter_mut().enumerate().for_each(|(i, x)| *x = -3.0 + 0.01 * (i % 7) as f32);
        check(Machine::F32, case, &problem, 3e-4);
    }
}

#[test]
fn equal_specs_give_equal_kernels() {
    let spec = |scale, seq| {
        let shape = HeadShape { batch: 1, seq, heads: 2, kv_heads: 1, head_dim: 16 };
        softmax_attention_forward(&Machine::F64.operands(shape).softmax(true, scale, (64, 64)))
    };
    assert_eq!(spec(0.25, 65), spec(0.25, 65));
    assert_ne!(spec(0.25, 65).name, spec(0.5, 65).name);
    assert_ne!(spec(0.25, 65).name, spec(0.25, 64).name);
}
