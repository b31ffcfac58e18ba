//! Rotary embedding: layouts, start, inverse.

use linc_tile::Elem;
use linc_tile::library::rope::{Positions, RopeSpec, rope};

use super::harness::{Data, SENTINEL, assert_close, floats, random, round, run, unit};

fn table(len: usize, half: usize) -> Vec<f32> {
    let angle = |p: usize, i: usize| p as f64 * 10000f64.powf(-(i as f64) / half as f64);
    let pair = |p, i| [angle(p, i).cos() as f32, angle(p, i).sin() as f32];
    (0..len).flat_map(|p| (0..half).flat_map(move |i| pair(p, i))).collect()
}

/// Elements from the first to one past the last of a strided tensor.
fn extent(spec: &RopeSpec, strides: [usize; 3]) -> usize {
    (spec.batch - 1) * strides[0] + (spec.seq - 1) * strides[1] + (spec.heads - 1) * strides[2] + spec.dim
}

/// Each sequence starts two positions behind the one before it, from `start` on; of tokens, each third one at `start`.
fn check(spec: &RopeSpec, start: i32) {
    let position = |b: usize, n: usize| match spec.positions {
        Positions::FromZero => n as i32,
        Positions::FromStart => start + (2 * b + n) as i32,
        Positions::OfTokens => start + 2 * b as i32 + (n % 3) as i32,
    };
    let what = format!("{spec:?} start {start}");
    let half = spec.dim / 2;
    let angles = table(spec.table_len, half);
    let x: Vec<f32> = random(extent(spec, spec.x_strides), 1).into_iter().map(|v| round(v, spec.x)).collect();
    let y_len = extent(spec, spec.y_strides);
    let mut expected = vec![f64::from(SENTINEL); y_len];
    for b in 0..spec.batch {
        for n in 0..spec.seq {
            for h in 0..spec.heads {
                let at = |s: [usize; 3]| b * s[0] + n * s[1] + h * s[2];
                let (from, to) = (at(spec.x_strides), at(spec.y_strides));
                for i in 0..half {
                    let pos = position(b, n) as usize;
                    let angle = |part: usize| {
                        let row = angles.get((pos * half + i) * 2 + part);
                        f64::from(*row.unwrap_or(&0.0))
                    };
                    let sign = if spec.inverse { -1.0 } else { 1.0 };
                    let (cos, sin) = (angle(0), sign * angle(1));
                    let (even, odd) = (f64::from(x[from + 2 * i]), f64::from(x[from + 2 * i + 1]));
                    expected[to + 2 * i] = even * cos - odd * sin;
                    expected[to + 2 * i + 1] = even * sin + odd * cos;
                }
            }
        }
    }
    let mut args = vec![Data::of(spec.x, &x), Data::f32(&angles)];
    let tokens = match spec.positions {
        Positions::FromZero => 0,
        Positions::FromStart => 1,
        Positions::OfTokens => spec.seq,
    };
    if tokens > 0 {
        let given = (0..spec.batch * tokens).map(|at| position(at / tokens, at % tokens));
        args.push(Data::i32(&given.collect::<Vec<i32>>()));
    }
    args.push(Data::of(spec.y, &vec![SENTINEL; y_len]));
    let out = run(&rope(spec), args);
    let tolerance = unit(spec.y, 1e-6);
    assert_close(&floats(out.last().expect("y")), &expected, 1e-6, tolerance, &what);
}

/// `[batch, seq, heads, dim]`, dense.
fn spec(batch: usize, seq: usize, heads: usize, dim: usize) -> RopeSpec {
    let strides = [seq * heads * dim, heads * dim, dim];
    RopeSpec {
        batch,
        seq,
        heads,
        dim,
        x: Elem::F32,
        x_strides: strides,
        y: Elem::F32,
        y_strides: strides,
        table_len: seq,
        block: 7,
        positions: Positions::FromZero,
        inverse: false,
    }
}

#[test]
fn dense_layouts() {
    for (batch, seq, heads, dim) in [
        (1, 1, 1, 2),
        (2, 3, 2, 6),
        (1, 65, 3, 64),
        (2, 63, 9, 64),
        (1, 257, 1, 2),
        (2, 300, 3, 64),
        (1, 1, 5, 64),
        (1, 40, 70, 128),
    ] {
        for inverse in [false, true] {
            check(&RopeSpec { inverse, table_len: seq + 3, ..spec(batch, seq, heads, dim) }, 0);
        }
        for elem in [Elem::F32, Elem::Bf16, Elem::F16] {
            check(&RopeSpec { x: elem, y: elem, ..spec(batch, seq, heads, dim) }, 0);
        }
    }
}

#[test]
fn part_of_a_joint_projection_to_heads_first() {
    for (seq, heads) in [(65, 2), (33, 9)] {
        let (dim, width) = (64, 3 * heads * 64);
        let spec = RopeSpec {
            x_strides: [seq * width, width, dim],
            y_strides: [heads * seq * dim, dim, seq * dim],
            ..spec(2, seq, heads, dim)
        };
        check(&spec, 0);
    }
}

#[test]
fn start_position() {
    for (seq, heads) in [(1, 4), (1, 32), (5, 2), (5, 40)] {
        let from = |batch, positions| RopeSpec { positions, table_len: 17, ..spec(batch, seq, heads, 16) };
        for start in [0, 7, 12] {
            check(&from(2, Positions::FromStart), start);
            check(&from(2, Positions::OfTokens), start);
        }
        // Positions 15, 16, then past the end of the table.
        for positions in [Positions::FromStart, Positions::OfTokens] {
            check(&from(1, positions), 15);
            check(&from(1, positions), 20);
        }
    }
}

#[test]
fn inverse_turns_back() {
    let there = spec(2, 65, 3, 32);
    let x = random(2 * 65 * 3 * 32, 1);
    let angles = Data::f32(&table(65, 16));
    let blank = Data::f32(&vec![SENTINEL; x.len()]);
    let out = run(&rope(&there), vec![Data::f32(&x), angles.clone(), blank.clone()]);
    let back = RopeSpec { inverse: true, ..there };
    let out = run(&rope(&back), vec![Data::f32(&floats(&out[2])), angles, blank]);
    let expected: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
    assert_close(&floats(&out[2]), &expected, 1e-6, 1e-6, "there and back");
}
