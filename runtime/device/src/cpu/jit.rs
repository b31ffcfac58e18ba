//! The just-in-time compiler: texts of tile programs to machine code, each text once.

use std::collections::BTreeMap;
use std::sync::Arc;

use cranelift_codegen::Context;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::isa::TargetIsa;
use cranelift_codegen::settings::{self, Configurable};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{Linkage, Module, ModuleReloc};
use linc_codegen_cpu::{CpuCodegenOptions, Primitive};

use super::primitives::Level;
use crate::{DeviceError, threads};

/// A generated kernel; see `linc_codegen_cpu::CpuKernel::function`.
pub(super) type Entry = unsafe extern "C" fn(*const *mut u8, i64, i64, i64, *mut u8);

/// A kernel in memory.
#[derive(Clone, Copy)]
pub(super) struct Code {
    /// Where to call it.
    pub(super) entry: Entry,
    /// Bytes of scratch that a program needs.
    pub(super) scratch: usize,
    /// Number of pointers.
    pub(super) params: usize,
    /// Programs per axis, as the text says.
    pub(super) grid: [u32; 3],
}

/// Compiles kernels and keeps their code; equal texts are compiled once.
pub(super) struct Jit {
    module: JITModule,
    isa: Arc<dyn TargetIsa>,
    options: CpuCodegenOptions,
    cache: BTreeMap<String, Code>,
}

/// What one thread makes of one text.
struct Translated {
    bytes: Vec<u8>,
    alignment: u64,
    relocations: Vec<ModuleReloc>,
    scratch: usize,
    params: usize,
    grid: [u32; 3],
}

impl Jit {
    /// A compiler for this machine that calls the primitives of `level`.
    pub(super) fn new(level: Level) -> Result<Jit, DeviceError> {
        let unsupported =
            |e: &dyn std::fmt::Display| DeviceError::Unsupported(format!("code generation: {e}"));
        let mut flags = settings::builder();
        for (name, value) in [("opt_level", "speed"), ("enable_verifier", "false"), ("is_pic", "false")] {
            flags.set(name, value).map_err(|e| unsupported(&e))?;
        }
        let isa = cranelift_native::builder().map_err(|e| unsupported(&e))?;
        let isa = isa.finish(settings::Flags::new(flags)).map_err(|e| unsupported(&e))?;
        let mut builder = JITBuilder::with_isa(Arc::clone(&isa), cranelift_module::default_libcall_names());
        for primitive in Primitive::ALL {
            builder.symbol(primitive.name(), level.address(primitive));
        }
        let mut module = JITModule::new(builder);
        for primitive in Primitive::ALL {
            let id = module
                .declare_function(primitive.name(), Linkage::Import, &primitive.signature())
                .map_err(|e| unsupported(&e))?;
            // Generated functions name primitives by their index.
            if id.as_u32() != primitive.index() {
                return Err(unsupported(&"primitives are declared out of order"));
            }
        }
        Ok(Jit {
            module,
            isa,
            options: CpuCodegenOptions { fma: level > Level::Portable },
            cache: BTreeMap::new(),
        })
    }

    /// Code for all texts, in order, by up to `count` threads; `progress` hears how many of how many are translated.
    pub(super) fn compile(
        &mut self,
        texts: &[&str],
        count: usize,
        progress: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<Vec<Code>, DeviceError> {
        let mut missing: Vec<&str> = texts.iter().copied().filter(|t| !self.cache.contains_key(*t)).collect();
        missing.sort_unstable();
        missing.dedup();
        let (isa, options) = (&*self.isa, self.options);
        let translated = threads::try_map(count, &missing, &|text| translate(text, isa, options), progress)?;
        let mut ids = vec![];
        for (text, translated) in missing.iter().zip(translated) {
            let failed =
                |e: cranelift_module::ModuleError| DeviceError::Unsupported(format!("machine code: {e}"));
            let signature = self.module.make_signature();
            let defined = self.module.declare_anonymous_function(&signature).map_err(failed)?;
            let Translated { alignment, bytes, relocations, .. } = &translated;
            self.module.define_function_bytes(defined, *alignment, bytes, relocations).map_err(failed)?;
            ids.push((*text, defined, translated));
        }
        self.module
            .finalize_definitions()
            .map_err(|e| DeviceError::Unsupported(format!("executable memory: {e}")))?;
        for (text, id, t) in ids {
            let address = self.module.get_finalized_function(id);
            // SAFETY: the function was compiled with this signature and calling convention, and the module, which is
            // never freed, keeps it.
            let entry = unsafe { std::mem::transmute::<*const u8, Entry>(address) };
            let code = Code { entry, scratch: t.scratch, params: t.params, grid: t.grid };
            self.cache.insert(text.to_string(), code);
        }
        Ok(texts.iter().map(|text| self.cache[*text]).collect())
    }
}

/// Text to machine code that is not yet in its place.
fn translate(text: &str, isa: &dyn TargetIsa, options: CpuCodegenOptions) -> Result<Translated, DeviceError> {
    let first = text.lines().next().unwrap_or("").to_string();
    let failed = |kernel: &str, message: String| DeviceError::Kernel { kernel: kernel.to_string(), message };
    let kernel = linc_tile::parse(text).map_err(|e| failed(&first, e.to_string()))?;
    linc_tile::verify(&kernel).map_err(|e| failed(&kernel.name, e.to_string()))?;
    let compiled =
        linc_codegen_cpu::compile(&kernel, options).map_err(|e| failed(&kernel.name, e.message))?;
    let mut context = Context::for_function(compiled.function);
    let code = context
        .compile(isa, &mut ControlPlane::default())
        .map_err(|e| failed(&kernel.name, format!("{:?}", e.inner)))?;
    let bytes = code.code_buffer().to_vec();
    let alignment = u64::from(code.buffer.alignment);
    let relocations = code.buffer.relocs().to_vec();
    let relocations = relocations
        .iter()
        .map(|r| {
            ModuleReloc::from_mach_reloc(r, &context.func, cranelift_module::FuncId::from_u32(u32::MAX - 1))
        })
        .collect();
    Ok(Translated {
        bytes,
        alignment,
        relocations,
        scratch: compiled.scratch_bytes,
        params: kernel.params.len(),
        grid: kernel.grid,
    })
}
