//! Why a model does not compile.

use linc_ir::IrError;
use linc_kernels::KernelError;
use linc_lang::Diagnostics;
use linc_passes::PassError;
use thiserror::Error;

const MIB: f64 = (1 << 20) as f64;

/// A model, a setting, or the compiler itself is at fault.
#[derive(Debug, Error)]
pub enum CompileError {
    /// Errors in the model's files.
    #[error(transparent)]
    Model(#[from] Diagnostics),
    /// A number that replaces one of the model file is refused.
    #[error("{}", in_short(errors))]
    Override {
        /// Its dotted key.
        key: String,
        /// What is wrong with it.
        errors: Diagnostics,
    },
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
    /// The step does not fit the memory that it may take, whatever it computes again.
    #[error(
        "a training step of batch {batch} x {seq} takes {:.2} MiB even where all that can be is computed again, and the \
         memory budget is {:.2} MiB\n  help: raise the memory budget, or lower the batch size, the length of sequences or the model's size",
        *least as f64 / MIB,
        *limit as f64 / MIB
    )]
    Budget {
        /// Sequences of a batch.
        batch: usize,
        /// Tokens of a sequence.
        seq: usize,
        /// Bytes of the arena with the most recomputation.
        least: u64,
        /// Bytes that were allowed.
        limit: u64,
    },
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

/// Errors without the text that they are about, which is not where they were made.
fn in_short(errors: &Diagnostics) -> String {
    let help =
        |help: &Option<String>| help.as_ref().map_or(String::new(), |help| format!("\n  help: {help}"));
    let errors = errors.errors.iter().map(|error| error.message.clone() + &help(&error.help));
    errors.collect::<Vec<_>>().join("\n")
}
