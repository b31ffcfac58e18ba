//! AdamW over several steps.

use linc_tile::Elem;
use linc_tile::library::optimizer::{AdamWKernelSpec, Decay, adamw};

use super::harness::{Data, assert_close, assert_equal, floats, random, round, run};

#[test]
fn several_steps() {
    for (numel, g_elem) in
        [(1, Elem::F32), (3, Elem::F32), (65, Elem::Bf16), (257, Elem::F32), (9001, Elem::F32)]
    {
        let spec = AdamWKernelSpec {
            numel,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            decay: Decay::Decoupled,
            g: g_elem,
            guarded: false,
        };
        let (lr, clip) = (0.003f32, 0.7f32);
        let start = random(numel, 1);
        let (mut p, mut m, mut v) = (start.clone(), vec![0.0f32; numel], vec![0.0f32; numel]);
        let mut p64: Vec<f64> = start.iter().map(|x| f64::from(*x)).collect();
        let (mut m64, mut v64) = (vec![0.0f64; numel], vec![0.0f64; numel]);
        for step in 1..=4 {
            let g: Vec<f32> = random(numel, 10 + step).into_iter().map(|x| round(x, g_elem)).collect();
            let args = vec![
                Data::f32(&p),
                Data::of(g_elem, &g),
                Data::f32(&m),
                Data::f32(&v),
                Data::f32(&[lr]),
                Data::f32(&[step as f32]),
                Data::f32(&[clip]),
            ];
            let out = run(&adamw(&spec), args);
            (p, m, v) = (floats(&out[0]), floats(&out[2]), floats(&out[3]));
            let (lr, clip) = (f64::from(lr), f64::from(clip));
            for i in 0..numel {
                let g = clip * f64::from(g[i]);
                p64[i] *= 1.0 - lr * spec.weight_decay;
                m64[i] = spec.beta1 * m64[i] + (1.0 - spec.beta1) * g;
                v64[i] = spec.beta2 * v64[i] + (1.0 - spec.beta2) * g * g;
                let correction1 = 1.0 - spec.beta1.powi(step as i32);
                let correction2 = 1.0 - spec.beta2.powi(step as i32);
                p64[i] -= lr / correction1 * m64[i] / (v64[i].sqrt() / correction2.sqrt() + spec.eps);
            }
            let what = format!("{spec:?} step {step}");
            assert_close(&p, &p64, 1e-6, 1e-6, &what);
            assert_close(&m, &m64, 1e-6, 1e-5, &what);
            assert_close(&v, &v64, 1e-7, 1e-5, &what);
        }
    }
}

/// Neither an infinite gradient nor anything made of one gets into what a skipped update leaves.
#[test]
fn a_guarded_update_can_be_skipped() {
    let numel = 5000;
    let spec = |guarded| AdamWKernelSpec {
        numel,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        decay: Decay::Decoupled,
        g: Elem::F32,
        guarded,
    };
    let (p, m) = (random(numel, 1), random(numel, 2));
    let v: Vec<f32> = random(numel, 3).into_iter().map(f32::abs).collect();
    let args = |g: &[f32], step: f32, clip: f32| {
        let scalars = [0.01, step, clip].map(|x| Data::f32(&[x]));
        let mut args = vec![Data::f32(&p), Data::f32(g), Data::f32(&m), Data::f32(&v)];
        args.extend(scalars);
        args
    };
    // 0 · ∞ is NaN.
    let mut skipped = args(&vec![f32::INFINITY; numel], 0.0, 0.0);
    skipped.push(Data::f32(&[0.0]));
    let out = run(&adamw(&spec(true)), skipped);
    for (index, before) in [(0, &p), (2, &m), (3, &v)] {
        assert_equal(&floats(&out[index]), before, "a skipped update");
    }
    let g = random(numel, 4);
    let mut updated = args(&g, 3.0, 0.5);
    updated.push(Data::f32(&[1.0]));
    let (guarded, plain) = (run(&adamw(&spec(true)), updated), run(&adamw(&spec(false)), args(&g, 3.0, 0.5)));
    for index in [0, 2, 3] {
        assert_equal(&floats(&guarded[index]), &floats(&plain[index]), "a guarded update");
    }
}

/// With m = β1ᵗ-corrected to 1 and v likewise, the update is exactly lr: the bias corrections alone decide, and a plain
/// difference 1 − βᵗ in f32 would be wrong by 6e-5 at β = 0.999, step 1.
#[test]
fn bias_corrections_are_accurate() {
    for (beta1, beta2) in [(0.9, 0.999), (0.9, 0.95), (0.0, 0.99999), (0.5, 0.0), (0.95, 0.9999)] {
        for step in [1.0f64, 2.0, 3.0, 10.0, 100.0, 5000.0, 100_000.0, 1e6] {
            let spec = AdamWKernelSpec {
                numel: 1,
                beta1,
                beta2,
                eps: 0.0,
                weight_decay: 0.0,
                decay: Decay::Decoupled,
                g: Elem::F32,
                guarded: false,
            };
            // Moments after the update: β1·m + (1−β1)·g with g = 0.
            let (m, v) = (0.75f32, 0.5f32);
            let args = vec![
                Data::f32(&[0.0]),
                Data::f32(&[1.0]),
                Data::f32(&[m]),
                Data::f32(&[v]),
                Data::f32(&[1.0]),
                Data::f32(&[step as f32]),
                Data::f32(&[1.0]),
            ];
            let out = run(&adamw(&spec), args);
            let m = beta1 * f64::from(m) + (1.0 - beta1);
            let v = beta2 * f64::from(v) + (1.0 - beta2);
            let (c1, c2) = (-(step * beta1.ln()).exp_m1(), -(step * beta2.ln()).exp_m1());
            let expected = -m / c1 / (v.sqrt() / c2.sqrt());
            assert_close(&floats(&out[0]), &[expected], 0.0, 1.5e-6, &format!("{beta1} {beta2} {step}"));
        }
    }
}
