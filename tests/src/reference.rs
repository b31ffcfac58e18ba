//! The interpreter as the reference: random bindings for a graph, a loss worked out by hand, distances.

use std::collections::{BTreeMap, BTreeSet};

use linc_driver::names::{GRAD_NORM, LEARNING_RATE, LOSS_SCALE_STATE, SLOT, STEP, TARGETS};
use linc_ir::interp::{Bindings, Data, Real, Results, Tensor};
use linc_ir::{DType, EfficientOp, Graph, Init, KindOp, NodeId, Op, ParamState, StateRole};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Learning rate of every reference step.
pub const RATE: f64 = 0.01;

/// Values for the inputs, parameters and states of a graph, each an f32 number so that every precision starts from the
/// same. Parameters are of a size at which no gradient vanishes. Every fifth target is not counted, if there are more
/// than one. Moments start at zero unless `warm`, then as if after some steps.
pub fn bindings(graph: &Graph, vocab: usize, seed: u64, warm: bool) -> Bindings<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut bindings = Bindings::new();
    // States that are sums of exponentials.
    let decodes = graph
        .nodes()
        .filter(|id| matches!(graph.op(*id), Op::Kind(KindOp::Efficient(EfficientOp::Decode(_)))));
    let sums: BTreeSet<NodeId> = decodes.map(|id| graph.operands(id)[4].node).collect();
    for id in graph.nodes() {
        let mut uniform = |low: f64, high: f64, n: usize| -> Vec<f64> {
            (0..n).map(|_| f64::from(rng.random_range(low..high) as f32)).collect()
        };
        let (name, ty, values) = match graph.op(id) {
            Op::Input { name, ty } if ty.dtype == DType::I32 => {
                let n = ty.shape.numel();
                if name == SLOT {
                    bindings.insert(name.clone(), Tensor::int([n], (0..n as i32).rev().collect()));
                    continue;
                }
                let mut ids: Vec<i32> = (0..n).map(|_| rng.random_range(0..vocab as i32)).collect();
                if name == TARGETS {
                    ids.iter_mut().skip(1).step_by(5).for_each(|id| *id = -1);
                }
                bindings.insert(name.clone(), Tensor::int(ty.shape.clone(), ids));
                continue;
            }
            Op::Input { name, ty } if name == STEP => (name, ty, vec![3.0]),
            Op::Input { name, ty } if name == LEARNING_RATE => (name, ty, vec![f64::from(RATE as f32)]),
            Op::Input { name, ty } => (name, ty, uniform(-1.0, 1.0, ty.shape.numel())),
            Op::Param { name, ty, init: Init::Ones } => (name, ty, uniform(0.7, 1.3, ty.shape.numel())),
            Op::Param { name, ty, .. } => (name, ty, uniform(-0.5, 0.5, ty.shape.numel())),
            // Small enough for gradients of random weights; the counts begin at 0.
            Op::State { name, ty, .. } if name == LOSS_SCALE_STATE => (name, ty, vec![16.0]),
            Op::State { role: StateRole::LossScale, .. } => continue,
            Op::State { name, ty, role } if warm => {
                let squares = matches!(role, StateRole::OfParam { state: ParamState::SecondMoment, .. });
                let positive = squares || sums.contains(&id);
                let (low, high) = if positive { (0.05, 0.2) } else { (-0.1, 0.1) };
                (name, ty, uniform(low, high, ty.shape.numel()))
            }
            _ => continue,
        };
        bindings.insert(name.clone(), Tensor::float(ty.shape.clone(), values));
    }
    bindings
}

/// Mean cross-entropy of logits `[.., vocab]`; negative targets do not count.
pub fn cross_entropy(logits: &[f64], targets: &[i32], vocab: usize) -> f64 {
    let rows = logits.chunks(vocab).zip(targets).filter(|(_, target)| **target >= 0);
    let row = |(logits, target): (&[f64], &i32)| {
        let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|x| (x - max).exp()).sum();
        max + sum.ln() - logits[*target as usize]
    };
    let losses: Vec<f64> = rows.map(row).collect();
    losses.iter().sum::<f64>() / losses.len().max(1) as f64
}

/// Outputs and updates by name, in double precision.
pub fn doubles<T: Real>(results: &Results<T>) -> BTreeMap<String, Vec<f64>> {
    let all = results.outputs.iter().chain(&results.updates);
    all.map(|(name, tensor)| (name.clone(), tensor.doubles())).collect()
}

/// The gradients that AdamW saw, by parameter: the first moment after a step from zero, unclipped.
pub fn gradients(results: &BTreeMap<String, Vec<f64>>) -> BTreeMap<&str, Vec<f64>> {
    let clip = (1.0 / results[GRAD_NORM][0].max(f64::MIN_POSITIVE)).min(1.0);
    let moments = results.iter().filter_map(|(name, m)| Some((name.strip_suffix(".exp_avg")?, m)));
    moments.map(|(name, m)| (name, m.iter().map(|m| m / (0.1 * clip)).collect())).collect()
}

/// The same bindings in single precision.
pub fn single(bindings: &Bindings<f64>) -> Bindings<f32> {
    let tensor = |tensor: &Tensor<f64>| match &tensor.data {
        Data::Float(x) => Tensor::float(tensor.shape.clone(), x.iter().map(|x| *x as f32).collect()),
        Data::Int(x) => Tensor::int(tensor.shape.clone(), x.clone()),
    };
    bindings.iter().map(|(name, x)| (name.clone(), tensor(x))).collect()
}

/// Euclidean length.
pub fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// Length of the difference; infinite if the lengths or one element do not compare.
pub fn distance(a: &[f64], b: &[f64]) -> f64 {
    let difference: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    if a.len() != b.len() || difference.iter().any(|d| d.is_nan()) {
        f64::INFINITY
    } else {
        norm(&difference)
    }
}
