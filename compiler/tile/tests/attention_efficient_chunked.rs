//! The chunk-parallel kernels of linear attention against float64 loops, on the same keys as the others.

use crate::attention_support::efficient::Case;
use crate::attention_support::{Machine, Problem, by_turns, floor_of, tolerance_of};
use linc_cases::operands::Keys;
use linc_tile::interp::Buffer;
use linc_tile::library::attention::HeadShape;
use linc_tile::library::attention::efficient::{
    efficient_attention_chunk_grads, efficient_attention_chunk_states, efficient_attention_delta,
    efficient_attention_forward, efficient_attention_grads, efficient_attention_out,
    efficient_attention_prefix, efficient_attention_suffix, needs_delta, takes_delta,
};

/// A problem in the buffers of a machine.
struct Operands {
    q: Buffer,
    k: Buffer,
    v: Buffer,
    dout: Buffer,
    positions: Vec<i32>,
}

impl Operands {
    fn new(machine: Machine, problem: &Problem) -> Self {
        let shape = &problem.shape;
        let HeadShape { heads, kv_heads, .. } = *shape;
        Operands {
            q: machine.input(shape, heads, &problem.q),
            k: machine.input(shape, kv_heads, &problem.k),
            v: machine.input(shape, kv_heads, &problem.v),
            dout: machine.input(shape, heads, &problem.dout),
            positions: problem.positions.clone(),
        }
    }
}

/// `[ell, state]` before each chunk.
fn states(machine: Machine, case: Case, x: &Operands) -> [Buffer; 2] {
    let HeadShape { batch, seq, kv_heads, head_dim: dim, .. } = case.shape;
    let count = batch * kv_heads * seq.div_ceil(case.chunk) * dim;
    let spec = case.forward(machine);
    let mut buffers =
        [x.k.clone(), x.v.clone(), machine.plain_output(count), machine.plain_output(count * dim)];
    machine.run_apart(&efficient_attention_chunk_states(&spec), &mut buffers, &x.positions);
    let [_, _, ell, state] = buffers;
    let mut buffers = [ell, state];
    machine.run_apart(&efficient_attention_prefix(&spec), &mut buffers, &x.positions);
    buffers
}

/// out, dq, dk, dv of the kernels.
fn run(machine: Machine, case: Case, problem: &Problem) -> [Vec<f64>; 4] {
    let Case { shape, chunk, .. } = case;
    let HeadShape { batch, seq, heads, kv_heads, head_dim: dim } = shape;
    let x = Operands::new(machine, problem);
    let [ell, state] = states(machine, case, &x);
    let out = machine.output(&shape, heads);
    let mut buffers = [x.q, x.k, x.v, ell, state, out];
    machine.run_apart(&efficient_attention_out(&case.forward(machine)), &mut buffers, &x.positions);
    let [q, k, v, ell, state, out] = buffers;

    let spec = case.backward(machine);
    let count = batch * kv_heads * seq.div_ceil(chunk) * dim;
    let mut operands = vec![q, k, v, ell, state, x.dout];
    if takes_delta(&spec) {
        operands.push(machine.plain_output(batch * heads * seq));
    }
    if needs_delta(&spec) {
        machine.run_apart(&efficient_attention_delta(&spec), &mut operands, &x.positions);
    }
    operands.push(machine.output(&shape, heads));
    operands.push(machine.plain_output(count * dim));
    operands.push(machine.plain_output(count));
    operands.push(machine.plain_output(batch * seq * kv_heads * dim));
    machine.run_apart(&efficient_attention_chunk_grads(&spec), &mut operands, &x.positions);
    let [dq, d, rho, part] = operands.split_off(operands.len() - 4).try_into().expect("four results");
    let [q, k, v, ell, _, dout] = operands.into_iter().take(6).collect::<Vec<_>>().try_into().expect("six");
    let mut buffers = [ell, d, rho];
    machine.run_apart(&efficient_attention_suffix(&spec), &mut buffers, &x.positions);
    let [ell, d, rho] = buffers;
    let (dk, dv) = (machine.output(&shape, kv_heads), machine.output(&shape, kv_heads));
    let mut buffers = [q, k, v, ell, dout, d, rho, part, dk, dv];
    machine.run_apart(&efficient_attention_grads(&spec), &mut buffers, &x.positions);
    [
        machine.read(&shape, heads, &out),
        machine.read(&shape, heads, &dq),
        machine.read(&shape, kv_heads, &buffers[8]),
        machine.read(&shape, kv_heads, &buffers[9]),
    ]
}

fn check(machine: Machine, case: Case, keys: Keys, tolerance: f64) {
    let mut problem = Problem::new(case.shape, keys, 10);
    problem.round_to(machine.elem);
    case.check(machine, &problem, &run(machine, case, &problem), tolerance, &format!("{keys:?}"));
}

#[test]
fn every_length() {
    for seq in [1, 63, 64, 65, 200, 257] {
        for chunk in [16, 64] {
            // One token has dq = 0, the difference of terms that are 100 times the natural scale.
            let tolerance = if seq == 1 { 1e-5 } else { 2e-6 };
            check(Machine::F32, Case::new([seq, 2, 1, 16], true, chunk), Keys::Normal, tolerance);
        }
    }
}

#[test]
fn every_head_size_and_group() {
    for (heads, kv_heads, dim) in
        [(1, 1, 24), (2, 2, 32), (2, 1, 40), (4, 1, 64), (4, 2, 96), (2, 1, 128), (1, 1, 136)]
    {
        check(Machine::F32, Case::new([100, heads, kv_heads, dim], true, 64), Keys::Normal, 3e-6);
    }
}

#[test]
fn every_family_of_keys() {
    for keys in Keys::ALL {
        for chunk in [16, 64] {
            for seq in [130, 128] {
                let case = Case::new([seq, 2, 1, 16], true, chunk);
                check(Machine::F32, case, keys, tolerance_of(keys));
                check(Machine::F64, case, keys, 1e-11);
            }
        }
    }
}

fn check_apart(machine: Machine, case: Case, keys: Keys, tolerance: f64) {
    let (case, mut problem) = case.apart(Problem::new(case.shape, keys, 10));
    problem.round_to(machine.elem);
    let results = run(machine, case, &problem);
    if machine.elem == linc_tile::Elem::F32 {
        case.check(machine, &problem, &results, tolerance, &format!("{keys:?}"));
    } else {
        case.check_naive(machine, &problem, &results, tolerance, &format!("{keys:?}"));
    }
}

#[test]
fn documents_see_nothing_of_each_other() {
    for keys in Keys::ALL {
        for chunk in [16, 64] {
            for seq in [130, 192, 230] {
                let case = Case::new([seq, 2, 1, 16], true, chunk);
                // Steps lead higher in longer sequences, where numbers are coarser.
                let coarser = if keys == Keys::Steps { 2.0 } else { 1.0 };
                check_apart(Machine::F32, case, keys, coarser * tolerance_of(keys));
                check_apart(Machine::F64, case, keys, 1e-11);
            }
        }
    }
    for (heads, kv_heads, head_dim) in [(4, 2, 96), (2, 1, 128), (1, 1, 136)] {
        check_apart(Machine::F32, Case::new([200, heads, kv_heads, head_dim], true, 64), Keys::Normal, 3e-6);
    }
    // More chunks than a walk loads at once.
    check_apart(Machine::F32, Case::new([600, 1, 1, 8], true, 16), Keys::Uniform(10.0), 3e-6);
}

#[test]
fn documents_in_narrow_types() {
    for (machine, whole) in narrow_machines() {
        for keys in [Keys::Normal, Keys::Uniform(10.0), Keys::Spike] {
            for dim in [32, 128] {
                let case = Case { whole, ..Case::new([200, 2, 1, dim], true, 64) };
                check_apart(machine, case, keys, floor_of(keys));
            }
        }
    }
}

#[test]
fn hard_keys_at_full_size() {
    for (i, keys) in [Keys::Uniform(100.0), Keys::Ramp(100.0), Keys::Steps].into_iter().enumerate() {
        for dim in by_turns(&[64, 128], i) {
            check(Machine::F32, Case::new([130, 2, 1, dim], true, 64), keys, tolerance_of(keys));
        }
    }
}

/// Blocks of one head on either path: the first features have hard keys, the others normal ones.
#[test]
fn blocks_decide_alone() {
    let case = Case::new([130, 2, 1, 128], true, 64);
    let mut problem = Problem::new(case.shape, Keys::Normal, 3);
    for (i, key) in problem.k.iter_mut().enumerate() {
        if i % 128 < 64 {
            *key *= 30.0;
        }
    }
    for (machine, tolerance) in [(Machine::F32, 2e-5), (Machine::F64, 1e-11)] {
        case.check(machine, &problem, &run(machine, case, &problem), tolerance, "mixed keys");
    }
}

/// Both narrow types, with and without the promise of whole tiles.
fn narrow_machines() -> impl Iterator<Item = (Machine, bool)> {
    [Machine::BF16, Machine::F16].into_iter().flat_map(|m| [(m, true), (m, false)])
}

/// dQ is the difference of a block's dP and of the sum that another kernel makes of all blocks: where P is nearly 1, little
/// is left of it unless both take the same path.
#[test]
fn a_block_takes_one_path_in_all_kernels() {
    for (i, (machine, whole)) in narrow_machines().enumerate() {
        for (j, dim) in [96, 128].into_iter().enumerate() {
            for peak in by_turns(&[8.0, 20.0], i + j) {
                let case = Case { whole, ..Case::new([130, 2, 1, dim], true, 64) };
                let mut problem = Problem::new(case.shape, Keys::Normal, 3);
                for (i, key) in problem.k.iter_mut().enumerate() {
                    if i % dim < 32 {
                        *key *= 30.0;
                    }
                }
                for (i, query) in problem.q.iter_mut().enumerate() {
                    *query = 2.0 * *query + if i % dim == dim - 20 { peak } else { 0.0 };
                }
                problem.round_to(machine.elem);
                let results = run(machine, case, &problem);
                case.check_naive(machine, &problem, &results, 0.0, &format!("a peak of {peak}"));
            }
        }
    }
}

#[test]
fn errors_do_not_add_up_over_many_chunks() {
    for keys in [Keys::Normal, Keys::Uniform(10.0)] {
        check(Machine::F32, Case::new([1500, 1, 1, 8], true, 16), keys, 5e-6);
    }
}

#[test]
fn temperature_scales_queries_and_keys() {
    for keys in [Keys::Normal, Keys::Uniform(100.0)] {
        for dim in [16, 72] {
            let mut case = Case::new([100, 2, 1, dim], true, 64);
            case.temperature = 2.5;
            check(Machine::F32, case, keys, 4.0 * tolerance_of(keys));
            check(Machine::F64, case, keys, 1e-11);
        }
    }
}

#[test]
fn bf16_tensors() {
    for (keys, tolerance) in [(Keys::Normal, 1.5e-2), (Keys::Steps, 1.5e-2)] {
        for dim in [32, 128] {
            check(Machine::BF16, Case::new([100, 4, 2, dim], true, 64), keys, tolerance);
        }
    }
}

#[test]
fn f16_is_safe_for_any_keys() {
    for (i, keys) in Keys::ALL.into_iter().enumerate() {
        for dim in by_turns(&[32, 128], i) {
            let case = Case::new([150, 2, 1, dim], true, 64);
            let mut problem = Problem::new(case.shape, keys, 10);
            problem.round_to(Machine::F16.elem);
            let results = run(Machine::F16, case, &problem);
            case.check_naive(Machine::F16, &problem, &results, floor_of(keys), &format!("{keys:?}"));
        }
    }
}

/// One key that is larger than the logsumexp of those before it, in all features at once, by more and more: through the
/// range of the fast path, and out of it.
#[test]
fn f16_at_the_edge_of_its_range() {
    for jump in [4.0, 6.0, 6.5, 6.7, 9.0, 11.0, 14.0] {
        let case = Case::new([130, 2, 1, 128], true, 64);
        let mut problem = Problem::new(case.shape, Keys::Normal, 6);
        for (i, key) in problem.k.iter_mut().enumerate() {
            *key *= 0.1;
            if i / 128 % 130 == 70 {
                *key += 4.16 + jump;
            }
        }
        problem.round_to(Machine::F16.elem);
        let results = run(Machine::F16, case, &problem);
        case.check_naive(Machine::F16, &problem, &results, 0.0, &format!("a jump by {jump}"));
    }
}

/// Both forms save the same: what one of them saved, the other could read.
#[test]
fn the_states_are_those_of_the_walk() {
    let case = Case::new([200, 1, 1, 24], true, 16);
    let machine = Machine::F64;
    let problem = Problem::new(case.shape, Keys::Uniform(10.0), 4);
    let x = Operands::new(machine, &problem);
    let [ell, state] = states(machine, case, &x);
    let HeadShape { batch, seq, kv_heads, head_dim: dim, .. } = case.shape;
    let count = batch * kv_heads * seq.div_ceil(case.chunk) * dim;
    let mut buffers = [
        x.q,
        x.k,
        x.v,
        machine.output(&case.shape, 1),
        machine.plain_output(count),
        machine.plain_output(count * dim),
    ];
    machine.run(&efficient_attention_forward(&case.forward(machine)), &mut buffers);
    for (found, expected) in [(&ell, &buffers[4]), (&state, &buffers[5])] {
        let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-12 * (1.0 + b.abs());
        assert!(found.to_f64().iter().zip(&expected.to_f64()).all(close));
    }
}

/// Large heads in two bytes, in one program and in blocks: chunks smaller and larger than a head, ragged ends, one query
/// head for a key head, temperatures, and one feature that sends the whole head the slow way.
#[test]
fn large_heads_in_one_program() {
    let machines: Vec<(Machine, bool)> = narrow_machines().collect();
    for (i, (dims, chunk, temperature, hard)) in [
        ([130, 2, 1, 128], 16, 1.0, false),
        ([100, 2, 2, 128], 64, 2.5, false),
        ([130, 2, 1, 128], 64, 1.0, true),
        ([150, 2, 1, 72], 128, 1.0, false),
        ([70, 1, 1, 96], 128, 1.0, true),
        ([65, 4, 1, 112], 64, 1.0, false),
    ]
    .into_iter()
    .enumerate()
    {
        for (machine, whole) in by_turns(&machines[..2], i).chain(by_turns(&machines[2..], i / 2)) {
            let case = Case { whole, temperature, ..Case::new(dims, true, chunk) };
            let mut problem = Problem::new(case.shape, Keys::Normal, 11);
            let dim = dims[3];
            if hard {
                problem.k.iter_mut().skip(dim - 1).step_by(dim).for_each(|key| *key *= 30.0);
            }
            problem.round_to(machine.elem);
            let results = run(machine, case, &problem);
            case.check_naive(machine, &problem, &results, 0.0, &format!("hard: {hard}"));
        }
    }
}
