//! From the tile programs of a plan to machine code: translation, then NVRTC on all threads, past the cache.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use linc_codegen_cuda::{Arch, CudaKernel, Options, tile};
use linc_plan::{ALIGN, Plan};

use super::cache::Cache;
use super::nvrtc::{Cubin, Nvrtc};
use crate::DeviceError;

/// Translates kernel `index` of a plan.
///
/// # Errors
/// [`DeviceError::Kernel`] for a text that does not parse, or a program that cannot be translated.
pub(super) fn translate(plan: &Plan, index: usize, arch: Arch) -> Result<CudaKernel, DeviceError> {
    let entry = &plan.kernels[index];
    let failed = |message: String| DeviceError::Kernel { kernel: entry.name.clone(), message };
    let kernel = tile::parse(&entry.text).map_err(|e| failed(e.to_string()))?;
    tile::verify(&kernel).map_err(|e| failed(e.to_string()))?;
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
    linc_codegen_cuda::compile(&kernel, &Options { arch, alignment }).map_err(|e| failed(e.message))
}

/// Machine code for all kernels in order, and how many of them the cache had. `threads` compile at a time.
///
/// # Errors
/// The [`DeviceError::Kernel`] of the first kernel that does not compile.
pub(super) fn compile(
    kernels: &[CudaKernel],
    nvrtc: &Nvrtc,
    cache: &Cache,
    real_arch: &str,
    threads: usize,
) -> Result<(Vec<Cubin>, usize), DeviceError> {
    let fingerprint = nvrtc.fingerprint(real_arch);
    let (next, cached) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let results: Mutex<Vec<Option<Result<Cubin, DeviceError>>>> = Mutex::new(vec![None; kernels.len()]);
    let work = || {
        // In order, so that the first error does not depend on the threads.
        while let Some((index, kernel)) = take(&next, kernels) {
            let source = kernel.source();
            let result = match cache.get(&source, &fingerprint) {
                Some(cubin) => {
                    cached.fetch_add(1, Ordering::Relaxed);
                    Ok(cubin)
                }
                None => nvrtc
                    .cubin(&kernel.name, &source, real_arch)
                    .inspect(|cubin| cache.put(&source, &fingerprint, cubin)),
            };
            if result.is_err() {
                // Nobody starts another one.
                next.fetch_max(kernels.len(), Ordering::Relaxed);
            }
            if let Ok(mut results) = results.lock() {
                results[index] = Some(result);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(kernels.len()) {
            scope.spawn(work);
        }
        work();
    });
    let results = results.into_inner().unwrap_or_default();
    // What an error kept from starting stands behind it.
    let cubins: Vec<Cubin> = results.into_iter().flatten().collect::<Result<_, _>>()?;
    Ok((cubins, cached.into_inner()))
}

fn take<'a>(next: &AtomicUsize, kernels: &'a [CudaKernel]) -> Option<(usize, &'a CudaKernel)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    Some((index, kernels.get(index)?))
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
            grid: [1, 1, 1],
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
        let run = |arch, threads| compile(&kernels, &nvrtc, &cache, arch, threads).expect("code");
        let (first, cached) = run("sm_80", 3);
        assert_eq!((first.len(), cached), (5, 0));
        assert_eq!(run("sm_80", 2), (first.clone(), 5));
        assert_eq!(run("sm_90a", 2).1, 0);
        for entry in std::fs::read_dir(folder.path()).expect("a folder") {
            let path = entry.expect("an entry").path();
            let mut bytes = std::fs::read(&path).expect("an entry");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&path, bytes).expect("written");
        }
        assert_eq!(run("sm_80", 2), (first.clone(), 0));
        assert_eq!(run("sm_80", 2), (first, 5));
    }

    #[test]
    fn the_first_broken_kernel_is_named() {
        let Some(nvrtc) = nvrtc() else { return };
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::at(folder.path().to_path_buf());
        let kernels = [kernel("good", "x[0] = 1.0f;"), kernel("bad", "y[0] = 1.0f;"), kernel("worse", "?")];
        for threads in [1, 2, 8] {
            let error = compile(&kernels, &nvrtc, &cache, "sm_80", threads).expect_err("broken");
            let DeviceError::Kernel { kernel, message } = error else { panic!("{error}") };
            assert_eq!(kernel, "bad");
            assert!(message.contains("identifier \"y\" is undefined"), "{message}");
        }
    }
}
