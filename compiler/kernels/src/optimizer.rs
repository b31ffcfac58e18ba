//! Updates of parameters to kernels. To add an optimizer: its arms in [`update`] and [`flops`].

use linc_ir::UpdateOp;
use linc_tile::library::optimizer::{AdamWKernelSpec, adamw};

use crate::KernelError;
use crate::context::Lowering;

/// The launch that updates one vector of parameters and its states.
pub(crate) fn update(l: &mut Lowering<'_>, op: &UpdateOp) -> Result<(), KernelError> {
    let (numel, g) = (l.shape(l.operands[0]).numel(), l.elem(l.operands[1])?);
    let guarded = op.is_guarded(l.operands.len());
    let kernel = match op {
        UpdateOp::AdamW(spec) => adamw(&AdamWKernelSpec {
            numel,
            beta1: spec.beta1,
            beta2: spec.beta2,
            eps: spec.eps,
            weight_decay: spec.weight_decay,
            g,
            guarded,
        }),
    };
    let args = l.places(&l.operands);
    l.launch(kernel, args);
    Ok(())
}

/// Floating-point operations of the update of so many parameters.
pub(crate) fn flops(op: &UpdateOp, numel: usize) -> usize {
    match op {
        UpdateOp::AdamW(_) => 14 * numel,
    }
}
