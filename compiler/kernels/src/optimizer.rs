//! Updates of parameters to kernels. To add an optimizer: its arms in [`update`] and [`flops`].

use linc_ir::{AdamSpec, AdamWSpec, UpdateOp};
use linc_tile::library::optimizer::{AdamWKernelSpec, Decay, adamw};

use crate::KernelError;
use crate::context::Lowering;

/// The launch that updates one vector of parameters and its states.
pub(crate) fn update(l: &mut Lowering<'_>, op: &UpdateOp) -> Result<(), KernelError> {
    let (numel, g) = (l.shape(l.operands[0]).numel(), l.elem(l.operands[1])?);
    let guarded = op.is_guarded(l.operands.len());
    let adam = |numbers: &AdamWSpec, decay| {
        adamw(&AdamWKernelSpec {
            numel,
            beta1: numbers.beta1,
            beta2: numbers.beta2,
            eps: numbers.eps,
            weight_decay: numbers.weight_decay,
            decay,
            g,
            guarded,
        })
    };
    let kernel = match op {
        UpdateOp::AdamW(spec) => adam(spec, Decay::Decoupled),
        UpdateOp::Adam(AdamSpec(numbers)) => adam(numbers, Decay::Gradient),
    };
    let args = l.places(&l.operands);
    l.launch(kernel, args);
    Ok(())
}

/// Floating-point operations of the update of so many parameters.
pub(crate) fn flops(op: &UpdateOp, numel: usize) -> usize {
    match op {
        UpdateOp::AdamW(_) | UpdateOp::Adam(_) => 14 * numel,
    }
}
