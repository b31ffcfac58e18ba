//! From a schedule, whose registers have their places in scratch, to Cranelift IR (CLIF).

mod arithmetic;
mod code;
mod fused;
mod half;
mod nodes;
mod scalars;

use cranelift_codegen::ir::{AbiParam, Function, InstBuilder, Signature, UserFuncName, types};
use cranelift_codegen::isa::{CallConv, TargetFrontendConfig};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use linc_tile::Kernel;

use crate::schedule::node::Schedule;
use crate::schedule::slots::Slots;
use crate::{CodegenError, CpuCodegenOptions, CpuKernel};
use code::Code;

/// Translates a scheduled kernel.
pub(crate) fn emit(
    kernel: &Kernel,
    schedule: &Schedule,
    slots: &Slots,
    options: CpuCodegenOptions,
) -> Result<CpuKernel, CodegenError> {
    let mut signature = Signature::new(CallConv::SystemV);
    signature.params = vec![AbiParam::new(types::I64); 5];
    let mut function = Function::with_name_signature(UserFuncName::user(1, 0), signature);
    let mut context = FunctionBuilderContext::new();
    let mut f = FunctionBuilder::new(&mut function, &mut context);
    let entry = f.create_block();
    f.append_block_params_for_function_params(entry);
    f.switch_to_block(entry);
    let given = f.block_params(entry).to_vec();
    let mut code = Code::new(f, &given, kernel, slots, options);
    nodes::write_all(&mut code, &schedule.nodes)
        .map_err(|message| CodegenError { kernel: kernel.name.clone(), message })?;
    code.f.ins().return_(&[]);
    code.f.seal_all_blocks();
    let externals = code.externals().into_iter().collect();
    code.f.finalize(TargetFrontendConfig {
        default_call_conv: CallConv::SystemV,
        pointer_width: target_lexicon::PointerWidth::U64,
        page_size_align_log2: 12,
    });
    Ok(CpuKernel { function, scratch_bytes: slots.bytes, externals })
}
