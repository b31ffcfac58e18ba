//! Some kernels of every group through the CUDA compiler: what a GPU is given does compile, and fits a block's shared
//! memory. Skips without NVRTC. `LINC_EVERY=1` takes every case.

use std::path::Path;

use linc_cases::launch::launches;
use linc_device::cuda::{Arch, Cache, Nvrtc, inspect};
use linc_gpu_check::group::{self, Extent};
use linc_tile::Kernel;
use linc_tile::interp::Buffer;

/// Shared memory that a block of an H100 may have.
const SHARED: u32 = 227 << 10;

#[test]
fn kernels_compile_for_a_gpu() {
    let nvrtc = match Nvrtc::open() {
        Ok(nvrtc) => nvrtc,
        Err(error) => {
            eprintln!("skipped: {error}");
            return;
        }
    };
    let every = std::env::var("LINC_EVERY").ok().and_then(|n| n.parse().ok()).unwrap_or(31);
    let extent = Extent { every, random: 400 / (8 * every as u64).max(1) + 2 };
    let cache = Cache::at(Path::new(env!("CARGO_TARGET_TMPDIR")).join("nvrtc"));
    let mut wrong = vec![];
    for name in group::names() {
        let checks = group::checks(name, extent).expect("a group");
        let cases: Vec<(&Kernel, &[Buffer])> = checks.iter().map(|c| (c.kernel(), c.buffers())).collect();
        let (plan, _) = launches(&cases);
        match inspect(&plan, Arch::Sm90a, Some(&nvrtc), &cache, false, &mut |_, _| true) {
            Err(error) => wrong.push(error.to_string()),
            Ok(inspection) => {
                let large = inspection.rows.iter().filter(|row| row.shared_bytes > SHARED);
                wrong.extend(large.map(|row| format!("{}: {} bytes shared", row.name, row.shared_bytes)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
