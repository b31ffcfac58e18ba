//! When numbers that are not finite end a run, and what they leave behind where they do not.

use linc_plan::{ParamState, Role, StateRole};

use super::Trainer;
use crate::error::TrainError;

/// The smallest scale of the loss at which an overflow is not the end: gradients of 1 are beyond f16 by then.
const SMALLEST_SCALE: f32 = 1.0 / 65536.0;

/// Whether a run can go on after a step with this loss and norm of the gradients; `scale` is that of the loss in f16.
///
/// A gradient that is not finite is what the scale is there to find out, be it that of an overflow in the forward, which
/// the loss shows as well: the step has updated nothing, and the next is another batch at half the scale, as with
/// `torch.amp.GradScaler`. That ends where no scale helps.
pub(super) fn goes_on(loss: f32, grad_norm: f32, scale: Option<f32>) -> bool {
    let skipped = !grad_norm.is_finite() && scale.is_some_and(|scale| scale > SMALLEST_SCALE);
    skipped || (loss.is_finite() && grad_norm.is_finite())
}

impl Trainer {
    /// Clears the gradients that batches of a step added up. The next step multiplies by zero what is there, which is not
    /// zero where it is infinite or no number.
    pub(super) fn forget_gradients(&mut self) -> Result<(), TrainError> {
        if self.update.is_some() {
            let x = &mut self.session.executor;
            let is_gradient = |role: &Role| {
                matches!(role, Role::State(StateRole::OfParam { state: ParamState::Gradient, .. }))
            };
            for gradient in x.tensors(is_gradient) {
                x.clear_tensor(&gradient.name)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::goes_on;

    #[test]
    fn only_what_was_skipped_may_overflow() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        for scale in [None, Some(65536.0), Some(1e-5)] {
            assert!(goes_on(2.0, 1.0, scale));
            assert!(!goes_on(nan, 1.0, scale), "a gradient was applied");
        }
        for (loss, norm) in [(2.0, inf), (2.0, nan), (nan, nan), (inf, inf)] {
            assert!(goes_on(loss, norm, Some(65536.0)) && goes_on(loss, norm, Some(2e-5)));
            assert!(!goes_on(loss, norm, None) && !goes_on(loss, norm, Some(1e-5)));
        }
    }
}
