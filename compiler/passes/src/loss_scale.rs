//! Dynamic loss scaling for f16, as graph: the rules and numbers of `torch.amp.GradScaler`, so that a step needs nothing
//! from the host, and a graph of launches can replay it.
//!
//! f16 has no numbers below 6e-8, so the backward starts from `scale` instead of 1. The norm of the gradients says whether
//! one overflowed; then nothing is updated and the scale is halved. The gradients stay scaled: the factor that clips them
//! divides by the scale as well.
//!
//! States, all f32 scalars; in a checkpoint they are the optimizer's:
//!
//! | state | contents |
//! |---|---|
//! | `loss_scale.scale` | the scale of the next step; 0, as states begin, stands for the initial one |
//! | `loss_scale.good_steps` | steps since the scale last changed |
//! | `loss_scale.skipped_steps` | steps that updated nothing |
//!
//! A skipped step is none of the optimizer's, as in PyTorch: AdamW corrects its bias for the input `step` less the skipped
//! steps. The learning rate is that of the input, as with PyTorch's schedulers, which go on whatever the scaler does.

use linc_ir::{BinaryOp, Graph, NodeId, Op, StateRole, TensorType, Value};

use crate::error::PassError;

/// Name of the output with the scale that the step used.
pub const LOSS_SCALE: &str = "loss_scale";
/// Name of the output with the number of steps skipped so far, this one included.
pub const SKIPPED_STEPS: &str = "skipped_steps";
/// The name of the state with the scale.
pub const SCALE_STATE: &str = "loss_scale.scale";
const GOOD_STEPS_STATE: &str = "loss_scale.good_steps";
const SKIPPED_STEPS_STATE: &str = "loss_scale.skipped_steps";
/// The names of all states.
pub const STATES: [&str; 3] = [SCALE_STATE, GOOD_STEPS_STATE, SKIPPED_STEPS_STATE];

/// The largest scale; the next would be infinite.
const LARGEST: f64 = (1u128 << 127) as f64;

/// How the scale changes. All factors are powers of two, so that scaling never rounds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LossScale {
    /// The scale of the first step.
    pub initial: f64,
    /// What a good interval multiplies it by.
    pub growth: f64,
    /// What an overflow multiplies it by.
    pub backoff: f64,
    /// Good steps in a row until it grows.
    pub interval: u32,
}

impl Default for LossScale {
    fn default() -> Self {
        LossScale { initial: 65536.0, growth: 2.0, backoff: 0.5, interval: 2000 }
    }
}

/// The scale of this step, in a graph.
pub struct Scaling {
    settings: LossScale,
    state: NodeId,
    /// f32 scalar.
    scale: Value,
}

/// What the optimizer needs of a step with scaled gradients; all f32 scalars.
pub struct Guard {
    /// Norm of the gradients without scale.
    pub norm: Value,
    /// What divides a gradient by the scale when it is multiplied with it.
    pub unscale: Value,
    /// The optimizer's number of the step.
    pub step: Value,
    /// 1 to update, 0 to skip.
    pub update: Value,
}

impl Scaling {
    /// Reads the scale.
    ///
    /// # Errors
    /// [`PassError::Ir`] on a malformed graph.
    pub fn new(graph: &mut Graph, settings: LossScale) -> Result<Self, PassError> {
        let outer = graph.set_scope("loss_scale");
        let (state, saved) = read(graph, SCALE_STATE)?;
        // saved + initial · (saved is 0): exact, since one of the two is 0.
        let (zero, one, initial) =
            (constant(graph, 0.0)?, constant(graph, 1.0)?, constant(graph, settings.initial)?);
        let known = binary(graph, BinaryOp::Greater, saved, zero)?;
        let fresh = binary(graph, BinaryOp::Sub, one, known)?;
        let initial = binary(graph, BinaryOp::Mul, fresh, initial)?;
        let scale = binary(graph, BinaryOp::Add, saved, initial)?;
        graph.set_scope(outer);
        Ok(Scaling { settings, state, scale })
    }

    /// What the backward starts from: the scale, times `share` (f32 scalar) where the loss is that part of the step's.
    ///
    /// # Errors
    /// [`PassError::Ir`] on a malformed graph.
    pub fn seed(&self, graph: &mut Graph, share: Option<Value>) -> Result<Value, PassError> {
        let Some(share) = share else { return Ok(self.scale) };
        let outer = graph.set_scope("loss_scale");
        let seed = binary(graph, BinaryOp::Mul, self.scale, share)?;
        graph.set_scope(outer);
        Ok(seed)
    }

    /// Decides by the norm of the scaled gradients whether step number `step` updates, and updates the states.
    ///
    /// # Errors
    /// [`PassError::Ir`] on a malformed graph.
    pub fn guard(&self, graph: &mut Graph, norm: Value, step: Value) -> Result<Guard, PassError> {
        use BinaryOp::{Add, Div, Greater, Min, Mul, Sub};
        let outer = graph.set_scope("loss_scale");
        let LossScale { growth, backoff, interval, .. } = self.settings;
        let one = constant(graph, 1.0)?;
        let update = is_finite(graph, norm)?;

        let (good_state, good) = read(graph, GOOD_STEPS_STATE)?;
        let good = binary(graph, Add, good, one)?;
        let good = binary(graph, Mul, good, update)?;
        let almost = constant(graph, f64::from(interval) - 0.5)?;
        let grows = binary(graph, Greater, good, almost)?;
        let stays = binary(graph, Sub, one, grows)?;
        let good = binary(graph, Mul, good, stays)?;

        // backoff, 1 or growth.
        let (low, rest, more) =
            (constant(graph, backoff)?, constant(graph, 1.0 - backoff)?, constant(graph, growth - 1.0)?);
        let rest = binary(graph, Mul, update, rest)?;
        let more = binary(graph, Mul, grows, more)?;
        let factor = binary(graph, Add, low, rest)?;
        let factor = binary(graph, Add, factor, more)?;
        let largest = constant(graph, LARGEST / growth)?;
        let scale = binary(graph, Min, self.scale, largest)?;
        let scale = binary(graph, Mul, scale, factor)?;

        let (skipped_state, before) = read(graph, SKIPPED_STEPS_STATE)?;
        let skips = binary(graph, Sub, one, update)?;
        let skipped = binary(graph, Add, before, skips)?;
        for (state, value) in [(self.state, scale), (good_state, good), (skipped_state, skipped)] {
            graph.updates.push((state, value));
        }
        graph.outputs.push((LOSS_SCALE.into(), self.scale));
        graph.outputs.push((SKIPPED_STEPS.into(), skipped));

        let unscale = binary(graph, Div, one, self.scale)?;
        let norm = binary(graph, Mul, norm, unscale)?;
        let step = binary(graph, Sub, step, before)?;
        graph.set_scope(outer);
        Ok(Guard { norm, unscale, step, update })
    }
}

/// 1 for a norm that is a number, 0 for infinity and NaN: a step whose gradients are not finite updates nothing, and the
/// weights are as they were when the host sees it.
pub(crate) fn is_finite(graph: &mut Graph, norm: Value) -> Result<Value, PassError> {
    // A sum of squares that reaches the largest f32 has overflowed long before.
    let largest = constant(graph, f64::from(f32::MAX))?;
    binary(graph, BinaryOp::Greater, largest, norm)
}

/// A state, and what it holds.
fn read(graph: &mut Graph, name: &str) -> Result<(NodeId, Value), PassError> {
    let role = StateRole::LossScale;
    let node = graph.add(Op::State { name: name.into(), ty: TensorType::f32([]), role }, &[])?;
    Ok((node, Value { node, port: 0 }))
}

fn constant(graph: &mut Graph, value: f64) -> Result<Value, PassError> {
    Ok(graph.push(Op::Constant { value, ty: TensorType::f32([]) }, &[])?)
}

fn binary(graph: &mut Graph, op: BinaryOp, a: Value, b: Value) -> Result<Value, PassError> {
    Ok(graph.push(Op::Binary(op), &[a, b])?)
}
