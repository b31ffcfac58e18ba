//! AdamW (arXiv 1711.05101) and Adam in the order of operations that PyTorch uses.

use crate::builder::Builder;
use crate::ir::{Compare, Elem, Kernel, Mode, ParamId, Unary, ValueId};
use crate::library::{TILE, bound, load_scalar, number, tag};

/// How weights decay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decay {
    /// By themselves: AdamW.
    Decoupled,
    /// As a part of the gradient: Adam.
    Gradient,
}

/// One update of a dense parameter.
#[derive(Clone, PartialEq, Debug)]
pub struct AdamWKernelSpec {
    /// Number of elements.
    pub numel: usize,
    /// Decay of the first moment, in [0, 1).
    pub beta1: f64,
    /// Decay of the second moment, in [0, 1).
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Share of the parameter that it loses in a step, or that is added to its gradient.
    pub weight_decay: f64,
    /// How it is applied; [`Decay::Decoupled`] multiplies it by the learning rate.
    pub decay: Decay,
    /// Element type of the gradient; parameter and moments are f32.
    pub g: Elem,
    /// Whether there is an operand that says if anything is updated.
    pub guarded: bool,
}

/// Parameters: p, g, m, v, lr, step, clip, \[update\]. `p`, `m`, `v` are updated in place; `lr`, `step` (from 1), `clip` and
/// `update` are one f32 each. If `update` is 0 nothing is read of the rest, so that no NaN among it can get anywhere.
///
/// `g ← clip·g; p ← p·(1 − lr·weight_decay); m ← m + (1−β1)(g − m); v ← β2·v + (1−β2)g²;`
/// `p ← p − lr/(1−β1^step) · m/(√v/√(1−β2^step) + eps)`; with [`Decay::Gradient`], `g ← clip·g + weight_decay·p` instead and no
/// other decay.
pub fn adamw(spec: &AdamWKernelSpec) -> Kernel {
    let numel = spec.numel;
    let size = numel.min(TILE);
    let mut b = Builder::new(name(spec), [numel.div_ceil(size), 1, 1]);
    let p = b.param("p", Elem::F32, Mode::ReadWrite);
    let g = b.param("g", spec.g, Mode::Read);
    let m = b.param("m", Elem::F32, Mode::ReadWrite);
    let v = b.param("v", Elem::F32, Mode::ReadWrite);
    let lr = b.param("lr", Elem::F32, Mode::Read);
    let step = b.param("step", Elem::F32, Mode::Read);
    let clip = b.param("clip", Elem::F32, Mode::Read);

    let pointers = Pointers { p, g, m, v, lr, step, clip };
    if spec.guarded {
        let update = b.param("update", Elem::F32, Mode::Read);
        let (update, zero) = (load_scalar(&mut b, update), b.float(0.0));
        let update = b.compare(Compare::Ne, update, zero);
        let run = |b: &mut Builder| {
            pointers.update(b, spec);
            vec![]
        };
        b.if_else(update, run, |_| vec![]);
    } else {
        pointers.update(&mut b, spec);
    }
    b.finish()
}

/// The parameters of the kernel.
struct Pointers {
    p: ParamId,
    g: ParamId,
    m: ParamId,
    v: ParamId,
    lr: ParamId,
    step: ParamId,
    clip: ParamId,
}

impl Pointers {
    /// Updates one block of elements.
    fn update(&self, b: &mut Builder, spec: &AdamWKernelSpec) {
        let Pointers { p, g, m, v, lr, step, clip } = *self;
        let size = spec.numel.min(TILE);
        let (lr, step, clip) = (load_scalar(b, lr), load_scalar(b, step), load_scalar(b, clip));
        let correction1 = one_minus_power(b, spec.beta1, step);
        let correction2 = one_minus_power(b, spec.beta2, step);
        let rate = b.div(lr, correction1);
        let root2 = b.unary(Unary::Sqrt, correction2);
        let (one, decay) = (b.float(1.0), b.scale(lr, spec.weight_decay));
        let keep = b.sub(one, decay);
        let shape = [size];
        let [clip, rate, root2, keep] = [clip, rate, root2, keep].map(|scalar| b.splat(scalar, &shape));

        let block = b.program_id(0);
        let start = b.scale_index(block, size);
        let axes = [(1, bound(b, spec.numel, start, size))];
        let gradient = b.load_f32(g, start, &shape, &axes);
        let gradient = b.mul(gradient, clip);
        let gradient = match spec.decay {
            Decay::Decoupled => gradient,
            Decay::Gradient => {
                let value = b.load(p, start, &shape, &axes);
                let share = b.full(spec.weight_decay, &shape);
                b.fma(value, share, gradient)
            }
        };

        let first = b.load(m, start, &shape, &axes);
        let change = b.sub(gradient, first);
        let new_share = b.full(1.0 - spec.beta1, &shape);
        let first = b.fma(change, new_share, first);
        b.store(m, start, first, &axes);

        let second = b.load(v, start, &shape, &axes);
        let second = b.scale(second, spec.beta2);
        let square = b.mul(gradient, gradient);
        let new_share = b.full(1.0 - spec.beta2, &shape);
        let second = b.fma(square, new_share, second);
        b.store(v, start, second, &axes);

        let root = b.unary(Unary::Sqrt, second);
        let root = b.div(root, root2);
        let eps = b.full(spec.eps, &shape);
        let denominator = b.add(root, eps);
        let direction = b.div(first, denominator);
        let value = b.load(p, start, &shape, &axes);
        let value = match spec.decay {
            Decay::Decoupled => b.mul(value, keep),
            Decay::Gradient => value,
        };
        let update = b.mul(rate, direction);
        let value = b.sub(value, update);
        b.store(p, start, value, &axes);
    }
}

fn name(spec: &AdamWKernelSpec) -> String {
    format!(
        "{}_{}_b{}_b{}_eps{}_wd{}_{}{}",
        match spec.decay {
            Decay::Decoupled => "adamw",
            Decay::Gradient => "adam",
        },
        spec.numel,
        number(spec.beta1),
        number(spec.beta2),
        number(spec.eps),
        number(spec.weight_decay),
        tag(spec.g),
        if spec.guarded { "_guarded" } else { "" }
    )
}

/// `1 − beta^step`, to a few units in the last place also where the power is close to 1 and the plain difference loses
/// most of its digits: there `−expm1(y)` with `y = step·ln beta` as a series.
fn one_minus_power(b: &mut Builder, beta: f64, step: ValueId) -> ValueId {
    /// Terms of the series; enough for 1e-9 where it is used.
    const TERMS: u32 = 9;
    const NEAR: f64 = 0.5;
    let y = b.scale(step, beta.ln());
    // expm1(y) = y(1 + y/2(1 + y/3(1 + ...))), from the inside out.
    let one = b.float(1.0);
    let mut series = one;
    for i in (2..=TERMS).rev() {
        let part = b.scale(y, 1.0 / f64::from(i));
        series = b.fma(part, series, one);
    }
    let series = b.mul(y, series);
    let series = b.unary(Unary::Neg, series);
    let power = b.exp(y);
    let plain = b.sub(one, power);
    let (size, limit) = (b.unary(Unary::Abs, y), b.float(NEAR));
    let near = b.compare(Compare::Lt, size, limit);
    b.select(near, series, plain)
}
