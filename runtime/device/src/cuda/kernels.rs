//! From the tile programs of a plan to machine code: translation, then NVRTC on all threads, past the cache.

use linc_codegen_cuda::{Arch, CudaCodegenOptions, CudaKernel};
use linc_plan::{ALIGN, Action, Plan, Step};

use super::cache::Cache;
use super::gpus::{self, Target};
use super::nvrtc::{Cubin, Nvrtc};
use crate::{DeviceError, threads};

/// Translates kernel `index` of a plan.
///
/// # Errors
/// [`DeviceError::Kernel`] for a text that does not parse, or a program that cannot be translated.
pub(super) fn translate(plan: &Plan, index: usize, arch: Arch) -> Result<CudaKernel, DeviceError> {
    let entry = &plan.kernels[index];
    let failed = |message: String| DeviceError::Kernel { kernel: entry.name.clone(), message };
    let kernel = linc_tile::parse(&entry.text).map_err(|e| failed(e.to_string()))?;
    linc_tile::verify(&kernel).map_err(|e| failed(e.to_string()))?;
    let mut alignment = plan.argument_alignment(index);
    if alignment.is_empty() {
        // Never launched: nothing is at an address that a buffer could not have.
        alignment = vec![ALIGN as u32; kernel.params.len()];
    }
    if alignment.len() != kernel.params.len() {
        let (given, params) = (alignment.len(), kernel.params.len());
        return Err(failed(format!("launched with {given} arguments for {params} parameters")));
    }
    if kernel.grid != entry.grid {
        return Err(failed(format!("the plan's grid is {:?}, the text's {:?}", entry.grid, kernel.grid)));
    }
    linc_codegen_cuda::compile(&kernel, &CudaCodegenOptions { arch, alignment })
        .map_err(|e| failed(too_large(plan, index, &e.message)))
}

/// What is said of a kernel that a GPU cannot hold: whose it is, since its own name is one that linc made, and what makes
/// it smaller.
fn too_large(plan: &Plan, index: usize, message: &str) -> String {
    let launches = |step: &&Step| matches!(step.action, Action::Launch { kernel, .. } if kernel == index);
    let of = plan.steps.iter().find(launches).map_or(String::new(), |step| format!(" (for {})", step.label));
    format!(
        "{message}{of}\n  help: its tiles grow with the features of a head and the bytes of a number: take smaller heads, numbers of 16 bits such as bfloat16, or a CPU"
    )
}

/// Machine code of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Code {
    /// Machine code for the GPU's architecture.
    pub cubin: Cubin,
    /// Blocks that it was compiled for to run on a multiprocessor at once.
    pub blocks: u32,
}

/// More blocks than this hide no more of the time that a block waits.
const MOST_BLOCKS: u32 = 4;

/// Blocks that a multiprocessor could run if a thread had no registers but those of its tiles.
fn most_blocks(kernel: &CudaKernel, target: &Target) -> u32 {
    if kernel.registers == 0 {
        return 1;
    }
    // That of the GPU, where kernels of another architecture run on it.
    let has = gpus::multiprocessor(Arch::from_name(&target.real).unwrap_or(target.arch));
    gpus::occupancy(&has, kernel.threads, kernel.registers, kernel.shared_bytes).blocks.clamp(1, MOST_BLOCKS)
}

/// Compiles one kernel for as many blocks of a multiprocessor as leave its tiles in registers. True if all that was
/// tried was in the cache.
fn code(
    kernel: &CudaKernel,
    nvrtc: &Nvrtc,
    cache: &Cache,
    target: &Target,
    fingerprint: &str,
) -> Result<(Code, bool), DeviceError> {
    let (mut blocks, mut cached) = (most_blocks(kernel, target), true);
    loop {
        let source = kernel.source(blocks);
        let cubin = match cache.get(&source, fingerprint) {
            Some(cubin) => cubin,
            None => {
                cached = false;
                let cubin = nvrtc.cubin(&kernel.name, &source, &target.real)?;
                cache.put(&source, fingerprint, &cubin);
                cubin
            }
        };
        if blocks == 1 || !cubin.resources.leaves_registers() {
            return Ok((Code { cubin, blocks }, cached));
        }
        blocks -= 1;
    }
}

/// Machine code for all kernels in order, and how many of them the cache had. `count` threads compile at a time;
/// `progress` hears how many of how many are done.
///
/// # Errors
/// The [`DeviceError::Kernel`] of the first kernel that does not compile.
pub(super) fn compile(
    kernels: &[CudaKernel],
    nvrtc: &Nvrtc,
    cache: &Cache,
    target: &Target,
    count: usize,
    progress: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<(Vec<Code>, usize), DeviceError> {
    let fingerprint = nvrtc.fingerprint(&target.real);
    let one = |kernel: &CudaKernel| code(kernel, nvrtc, cache, target, &fingerprint);
    let results = threads::try_map(count, kernels, &one, progress)?;
    let cached = results.iter().filter(|(_, known)| *known).count();
    if cached < kernels.len() {
        cache.trim();
    }
    Ok((results.into_iter().map(|(code, _)| code).collect(), cached))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(name: &str, body: &str) -> CudaKernel {
        let text = format!("extern \"C\" __global__ void {name}(float* x) {{ {body} }}\n");
        CudaKernel {
            name: name.into(),
            instructions: String::new(),
            text,
            threads: 32,
            shared_bytes: 0,
            registers: 0,
            grid: [1, 1, 1],
            maps: vec![],
        }
    }

    fn nvrtc() -> Option<Nvrtc> {
        let found = Nvrtc::open();
        if let Err(error) = &found {
            eprintln!("skipped: {error}");
        }
        found.ok()
    }

    #[test]
    fn the_second_time_comes_from_the_cache_unless_it_is_damaged() {
        let Some(nvrtc) = nvrtc() else { return };
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::at(folder.path().to_path_buf());
        let kernels: Vec<CudaKernel> =
            (0..5).map(|i| kernel(&format!("k{i}"), &format!("x[threadIdx.x] += {i}.0f;"))).collect();
        let run = |arch, threads| {
            compile(&kernels, &nvrtc, &cache, &Target::of(arch), threads, &mut |_, _| true).expect("code")
        };
        let (first, cached) = run(Arch::Sm80, 3);
        assert_eq!((first.len(), cached), (5, 0));
        assert_eq!(run(Arch::Sm80, 2), (first.clone(), 5));
        assert_eq!(run(Arch::Sm90a, 2).1, 0);
        for entry in std::fs::read_dir(folder.path()).expect("a folder") {
            let path = entry.expect("an entry").path();
            let mut bytes = std::fs::read(&path).expect("an entry");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&path, bytes).expect("written");
        }
        assert_eq!(run(Arch::Sm80, 2), (first.clone(), 0));
        assert_eq!(run(Arch::Sm80, 2), (first, 5));
    }

    /// A kernel of 512 threads that hold so many numbers at once.
    fn holding(numbers: usize, registers: u32) -> CudaKernel {
        let text = format!(
            "extern \"C\" __global__ void __launch_bounds__(512, BLOCKS) many(float* x) {{
  float v[{numbers}];
  #pragma unroll
  for (int i = 0; i < {numbers}; ++i) v[i] = x[threadIdx.x + 512 * i];
  barrier();
  #pragma unroll
  for (int i = 0; i < {numbers}; ++i) x[threadIdx.x + 512 * i] = v[i] * v[(i * 7 + 1) % {numbers}];
}}"
        );
        CudaKernel { text, threads: 512, registers, ..kernel("many", "") }
    }

    #[test]
    fn as_many_blocks_as_leave_numbers_in_registers() {
        // A multiprocessor has 128 registers for each of 512 threads.
        let most = [(0, 1), (64, 2), (30, 4), (10, 4)];
        for (registers, blocks) in most {
            assert_eq!(
                most_blocks(&holding(8, registers), &Target::of(Arch::Sm80)),
                blocks,
                "{registers} registers"
            );
        }
        let Some(nvrtc) = nvrtc() else { return };
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::at(folder.path().to_path_buf());
        for (numbers, blocks) in [(8, 4), (40, 2), (64, 1)] {
            let compile = || {
                compile(&[holding(numbers, 10)], &nvrtc, &cache, &Target::of(Arch::Sm80), 1, &mut |_, _| true)
            };
            let (codes, cached) = compile().expect("code");
            assert_eq!((codes[0].blocks, cached), (blocks, 0), "{numbers} numbers");
            assert!(!codes[0].cubin.resources.leaves_registers());
            assert_eq!(compile().expect("code"), (codes, 1));
        }
    }

    #[test]
    fn the_first_broken_kernel_is_named() {
        let Some(nvrtc) = nvrtc() else { return };
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::at(folder.path().to_path_buf());
        let kernels = [kernel("good", "x[0] = 1.0f;"), kernel("bad", "y[0] = 1.0f;"), kernel("worse", "?")];
        for threads in [1, 2, 8] {
            let error = compile(&kernels, &nvrtc, &cache, &Target::of(Arch::Sm80), threads, &mut |_, _| true)
                .expect_err("broken");
            let DeviceError::Kernel { kernel, message } = error else { panic!("{error}") };
            assert_eq!(kernel, "bad");
            assert!(message.contains("identifier \"y\" is undefined"), "{message}");
        }
    }
}
