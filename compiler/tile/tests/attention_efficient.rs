//! Linear attention kernels against float64 loops, on keys that break unchecked chunk references.

use crate::attention_support::efficient::Case;
use crate::attention_support::{HeadLayout, Machine, Problem, Reference, by_turns, floor_of, tolerance_of};
use linc_cases::Random;
use linc_cases::operands::Keys;
use linc_tile::library::attention::HeadShape;
use linc_tile::library::attention::efficient::{
    efficient_attention_backward, efficient_attention_forward, efficient_bidirectional_backward,
    efficient_bidirectional_out, efficient_bidirectional_state,
};

/// out, dq, dk, dv of the kernels.
fn run(machine: Machine, case: Case, problem: &Problem) -> [Vec<f64>; 4] {
    let Case { shape, causal, chunk, .. } = case;
    let HeadShape { batch, seq, heads, kv_heads, head_dim: dim } = shape;
    let forward = case.forward(machine);
    let q = machine.input(&shape, heads, &problem.q);
    let k = machine.input(&shape, kv_heads, &problem.k);
    let v = machine.input(&shape, kv_heads, &problem.v);
    let dout = machine.input(&shape, heads, &problem.dout);
    let states = batch * kv_heads * if causal { seq.div_ceil(chunk) } else { 1 };
    let out = machine.output(&shape, heads);
    let (ell, state) = (machine.plain_output(states * dim), machine.plain_output(states * dim * dim));
    let (out, ell, state) = if causal {
        let mut buffers = [q.clone(), k.clone(), v.clone(), out, ell, state];
        machine.run_apart(&efficient_attention_forward(&forward), &mut buffers, &problem.positions);
        let [_, _, _, out, ell, state] = buffers;
        (out, ell, state)
    } else {
        let mut buffers = [k.clone(), v.clone(), ell, state];
        machine.run(&efficient_bidirectional_state(&forward), &mut buffers);
        let [_, _, ell, state] = buffers;
        let mut buffers = [q.clone(), state, out];
        machine.run(&efficient_bidirectional_out(&forward), &mut buffers);
        let [_, state, out] = buffers;
        (out, ell, state)
    };

    let backward = case.backward(machine);
    let kernel = if causal {
        efficient_attention_backward(&backward)
    } else {
        efficient_bidirectional_backward(&backward)
    };
    let (dq, dk, dv) =
        (machine.output(&shape, heads), machine.output(&shape, kv_heads), machine.output(&shape, kv_heads));
    let mut buffers = [q, k, v, ell, state, dout, dq, dk, dv];
    machine.run_apart(&kernel, &mut buffers, &problem.positions);
    [
        machine.read(&shape, heads, &out),
        machine.read(&shape, heads, &buffers[6]),
        machine.read(&shape, kv_heads, &buffers[7]),
        machine.read(&shape, kv_heads, &buffers[8]),
    ]
}

fn check(machine: Machine, case: Case, problem: &Problem, tolerance: f64, what: &str) {
    case.check(machine, problem, &run(machine, case, problem), tolerance, what);
}

#[test]
fn every_length() {
    for seq in [1, 63, 64, 65, 130, 200] {
        for causal in [false, true] {
            for chunk in [16, 64] {
                let case = Case::new([seq, 2, 1, 16], causal, chunk);
                let problem = Problem::new(case.shape, Keys::Normal, seq as u64);
                // One token has dq = 0, the difference of terms that are 100 times the natural scale.
                let tolerance = if seq == 1 { 1e-5 } else { 2e-6 };
                check(Machine::F32, case, &problem, tolerance, "normal keys");
            }
        }
    }
}

#[test]
fn every_head_size_and_group() {
    for (heads, kv_heads, head_dim) in [(2, 2, 32), (4, 1, 16), (4, 2, 64), (1, 1, 128), (3, 1, 24)] {
        for causal in [false, true] {
            let case = Case::new([100, heads, kv_heads, head_dim], causal, 64);
            check(Machine::F32, case, &Problem::new(case.shape, Keys::Normal, 5), 3e-6, "normal keys");
        }
    }
}

#[test]
fn every_family_of_keys() {
    for keys in Keys::ALL {
        for chunk in [16, 64] {
            for (seq, causal) in [(130, true), (128, true), (130, false)] {
                let case = Case::new([seq, 2, 1, 16], causal, chunk);
                let problem = Problem::new(case.shape, keys, 10);
                check(Machine::F32, case, &problem, tolerance_of(keys), &format!("{keys:?}"));
                check(Machine::F64, case, &problem, 1e-11, &format!("{keys:?}"));
            }
        }
    }
}

#[test]
fn documents_see_nothing_of_each_other() {
    for keys in Keys::ALL {
        for chunk in [16, 64] {
            for seq in [130, 192, 230] {
                let case = Case::new([seq, 2, 1, 16], true, chunk);
                let (case, problem) = case.apart(Problem::new(case.shape, keys, 10));
                check(Machine::F32, case, &problem, tolerance_of(keys), &format!("{keys:?}"));
                check(Machine::F64, case, &problem, 1e-11, &format!("{keys:?}"));
            }
        }
    }
    for (heads, kv_heads, head_dim) in [(4, 2, 64), (1, 1, 128), (3, 1, 24)] {
        let case = Case::new([100, heads, kv_heads, head_dim], true, 64);
        let (case, problem) = case.apart(Problem::new(case.shape, Keys::Normal, 5));
        check(Machine::F32, case, &problem, 3e-6, "normal keys");
    }
}

#[test]
fn documents_in_narrow_types() {
    for machine in [Machine::BF16, Machine::F16] {
        for keys in [Keys::Normal, Keys::Uniform(10.0), Keys::Spike] {
            let case = Case::new([200, 2, 1, 32], true, 64);
            let (case, mut problem) = case.apart(Problem::new(case.shape, keys, 12));
            problem.round_to(machine.elem);
            let results = run(machine, case, &problem);
            case.check_naive(machine, &problem, &results, floor_of(keys), &format!("{keys:?}"));
        }
    }
}

#[test]
fn hard_keys_at_full_size() {
    for keys in [Keys::Uniform(100.0), Keys::Ramp(100.0), Keys::Steps] {
        let case = Case::new([130, 2, 1, 64], true, 64);
        check(
            Machine::F32,
            case,
            &Problem::new(case.shape, keys, 11),
            tolerance_of(keys),
            &format!("{keys:?}"),
        );
    }
}

#[test]
fn errors_do_not_add_up_over_many_chunks() {
    let case = Case::new([1500, 1, 1, 8], true, 16);
    for keys in [Keys::Normal, Keys::Uniform(10.0)] {
        check(Machine::F32, case, &Problem::new(case.shape, keys, 15), 5e-6, &format!("{keys:?}"));
    }
}

#[test]
fn temperature_scales_queries_and_keys() {
    for causal in [false, true] {
        for keys in [Keys::Normal, Keys::Uniform(100.0)] {
            let mut case = Case::new([100, 2, 1, 16], causal, 64);
            case.temperature = 2.5;
            let problem = Problem::new(case.shape, keys, 12);
            check(Machine::F32, case, &problem, 4.0 * tolerance_of(keys), &format!("{keys:?}"));
            check(Machine::F64, case, &problem, 1e-11, &format!("{keys:?}"));
        }
    }
}

#[test]
fn bf16_tensors() {
    for causal in [false, true] {
        let case = Case::new([100, 4, 2, 32], causal, 64);
        let mut problem = Problem::new(case.shape, Keys::Normal, 9);
        problem.round_to(Machine::BF16.elem);
        check(Machine::BF16, case, &problem, 1.5e-2, "normal keys");
    }
}

#[test]
fn f16_is_safe_for_any_keys() {
    for (i, keys) in Keys::ALL.into_iter().enumerate() {
        for causal in by_turns(&[false, true], i) {
            let case = Case::new([150, 4, 2, 32], causal, 64);
            let mut problem = Problem::new(case.shape, keys, 9);
            problem.round_to(Machine::F16.elem);
            let results = run(Machine::F16, case, &problem);
            case.check_naive(Machine::F16, &problem, &results, floor_of(keys), &format!("{keys:?}"));
        }
    }
}

#[test]
fn the_saved_logsumexp_does_not_drift() {
    let shape = HeadShape { batch: 1, seq: 50_000, heads: 1, kv_heads: 1, head_dim: 8 };
    let machine = Machine { layout: HeadLayout::Packed, ..Machine::F32 };
    let case = Case { shape, causal: true, chunk: 64, temperature: 1.0, whole: false, documents: false };
    let k = Random::new(13).normals(shape.seq * 8, 1.0);
    let zeros = vec![0.0; shape.seq * 8];
    let chunks = shape.seq.div_ceil(64);
    let mut buffers = [
        machine.input(&shape, 1, &zeros),
        machine.input(&shape, 1, &k),
        machine.input(&shape, 1, &zeros),
        machine.output(&shape, 1),
        machine.plain_output(chunks * 8),
        machine.plain_output(chunks * 64),
    ];
    machine.run(&efficient_attention_forward(&case.forward(machine)), &mut buffers);
    let ell = buffers[4].to_f64();
    assert!(ell[..8].iter().all(|x| *x == 0.0), "the first chunk has no keys before it");
    let mut sums = [0.0; 8];
    let mut worst: f64 = 0.0;
    for (t, key) in k.chunks(8).enumerate() {
        for d in 0..8 {
            if t > 0 && t % 64 == 0 {
                worst = worst.max((ell[t / 64 * 8 + d] - f64::ln(sums[d])).abs());
            }
            sums[d] += f64::from(key[d]).exp();
        }
    }
    // One unit in the last place at ln 50000 is 9.5e-7.
    assert!(worst < 3e-6, "drift {worst:.1e}");
}

#[test]
fn reference_gradients_agree_with_central_differences() {
    let shape = HeadShape { batch: 1, seq: 5, heads: 2, kv_heads: 1, head_dim: 8 };
    let problem = Problem::new(shape, Keys::Normal, 14);
    type Forward = fn(&Problem, bool) -> Reference;
    let forwards: [Forward; 2] = [|p, causal| p.linear(causal, 1.5), |p, causal| p.softmax(causal, 0.5)];
    for forward in forwards {
        for causal in [false, true] {
            let reference = forward(&problem, causal);
            let loss = |p: &Problem| -> f64 {
                forward(p, causal).out.iter().zip(&p.dout).map(|(o, g)| o * f64::from(*g)).sum()
            };
            type Field = fn(&mut Problem) -> &mut Vec<f32>;
            let fields: [(Field, &[f64]); 3] =
                [(|p| &mut p.q, &reference.dq), (|p| &mut p.k, &reference.dk), (|p| &mut p.v, &reference.dv)];
            for (field, gradient) in fields {
                for (i, expected) in gradient.iter().enumerate().step_by(7) {
                    let mut moved = problem.clone();
                    let (mut ends, mut losses) = ([0.0; 2], [0.0; 2]);
                    for (side, step) in [(0, 2e-3), (1, -2e-3)] {
                        field(&mut moved)[i] = field(&mut problem.clone())[i] + step;
                        ends[side] = f64::from(field(&mut moved)[i]);
                        losses[side] = loss(&moved);
                    }
                    let slope = (losses[0] - losses[1]) / (ends[0] - ends[1]);
                    assert!((slope - expected).abs() < 2e-5, "{slope} but {expected}");
                }
            }
        }
    }
}
