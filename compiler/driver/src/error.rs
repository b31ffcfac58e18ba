//! Why a model does not compile.

use linc_ir::IrError;
use linc_kernels::KernelError;
use linc_lang::Diagnostics;
use linc_passes::PassError;
use thiserror::Error;

/// A model, a setting, or the compiler itself is at fault.
#[derive(Debug, Error)]
pub enum CompileError {
    /// Errors in the model's files.
    #[error(transparent)]
    Model(#[from] Diagnostics),
    /// A pass refuses.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// No kernel exists.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A code generator refuses a kernel.
    #[error(transparent)]
    Codegen(#[from] linc_codegen_cpu::CodegenError),
    /// As above, for GPUs.
    #[error(transparent)]
    Cuda(#[from] linc_codegen_cuda::CodegenError),
    /// The plan breaks a rule that the runtime relies on: a bug.
    #[error("internal error in the plan: {0}")]
    Plan(#[from] linc_plan::validate::Invalid),
    /// A pass broke the graph: a bug, named with its pass.
    #[error("internal error: the graph after pass {pass} is malformed: {error}")]
    Malformed {
        /// As `--dump` and `--disable-pass` name it.
        pass: String,
        /// What is wrong.
        error: IrError,
    },
}
