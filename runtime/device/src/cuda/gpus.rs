//! What is known of GPUs as plain data: which code they run, what fits a multiprocessor, how fast they are at most.
//!
//! Limits are of the CUDA programming guide (technical specifications per compute capability), speeds of the
//! manufacturer's datasheets, dense and without sparsity.

use linc_codegen_cuda::Arch;

use crate::DeviceError;

/// Which code a GPU gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What kernels are generated for.
    pub arch: Arch,
    /// What the generated text is compiled for: machine code only runs on its own major version.
    pub real: String,
}

impl Target {
    /// The code for a generated architecture itself.
    pub fn of(arch: Arch) -> Target {
        Target { arch, real: arch.name().to_string() }
    }

    /// The code for a GPU of a compute capability whose blocks may have that many bytes of shared memory.
    ///
    /// Hopper has kernels of its own. Every other GPU from Ampere on gets those of the largest older architecture whose
    /// shared memory it has, compiled for itself: that is what runs on GPUs newer than linc as well.
    ///
    /// # Errors
    /// [`DeviceError::Unsupported`] for what is older than Ampere.
    pub fn for_capability((major, minor): (i32, i32), shared_bytes: u32) -> Result<Target, DeviceError> {
        if major < 8 {
            return Err(DeviceError::Unsupported(format!(
                "the GPU has compute capability {major}.{minor}; kernels need 8.0 (Ampere: A100, RTX 30) or later\n  help: choose the device cpu"
            )));
        }
        if (major, minor) == (9, 0) {
            return Ok(Target::of(Arch::Sm90a));
        }
        let arch = if shared_bytes >= Arch::Sm80.shared_bytes() { Arch::Sm80 } else { Arch::Sm89 };
        Ok(Target { arch, real: format!("sm_{major}{minor}") })
    }

    /// The kernels of an architecture that the user names, compiled for this GPU: to compare, or where its own fail.
    /// Nothing named is the target as it is.
    ///
    /// # Errors
    /// [`DeviceError::Unsupported`] for a name that is none, and for kernels that the GPU has no instructions or not
    /// enough shared memory for.
    pub fn with_kernels_of(self, name: Option<&str>, shared_bytes: u32) -> Result<Target, DeviceError> {
        let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(self) };
        let names: Vec<&str> = Arch::ALL.iter().map(|arch| arch.name()).collect();
        let unsupported = |what: String| {
            let help = format!("set {ARCH_VARIABLE} to one of {}, or not at all", names.join(", "));
            Err(DeviceError::Unsupported(format!("{ARCH_VARIABLE} is \"{name}\": {what}\n  help: {help}")))
        };
        let Some(arch) = Arch::from_name(name) else { return unsupported("no such architecture".into()) };
        if arch.has_tensor_copies() && self.arch != Arch::Sm90a {
            return unsupported(format!("the GPU, {}, lacks the instructions of Hopper", self.real));
        }
        if arch.shared_bytes() > shared_bytes {
            let (needed, has) = (arch.shared_bytes(), shared_bytes);
            return unsupported(format!(
                "its kernels may need {needed} bytes of shared memory, the GPU has {has}"
            ));
        }
        Ok(Target { arch, real: self.real })
    }
}

/// The variable by which users name the architecture whose kernels a GPU gets.
pub const ARCH_VARIABLE: &str = "LINC_CUDA_ARCH";

/// Resources of one streaming multiprocessor, which bound the occupancy of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Multiprocessor {
    /// 32-bit registers.
    pub registers: u32,
    /// Warps at once.
    pub warps: u32,
    /// Blocks at once.
    pub blocks: u32,
    /// Bytes of shared memory.
    pub shared_bytes: u32,
}

/// Bytes of shared memory that the system takes of every block.
const RESERVED_SHARED: u32 = 1024;
/// Shared memory is given out in units of so many bytes.
const SHARED_UNIT: u32 = 128;
/// Registers are given to warps in units of so many.
const REGISTER_UNIT: u32 = 256;
/// Warps are spread evenly over the parts of a multiprocessor, each with its share of the registers.
const PARTS: u32 = 4;
/// Threads of a warp.
const WARP: u32 = 32;

/// The multiprocessor of an architecture.
pub fn multiprocessor(arch: Arch) -> Multiprocessor {
    match arch {
        Arch::Sm80 => Multiprocessor { registers: 65_536, warps: 64, blocks: 32, shared_bytes: 164 << 10 },
        Arch::Sm89 => Multiprocessor { registers: 65_536, warps: 48, blocks: 24, shared_bytes: 100 << 10 },
        Arch::Sm90 | Arch::Sm90a => {
            Multiprocessor { registers: 65_536, warps: 64, blocks: 32, shared_bytes: 228 << 10 }
        }
    }
}

/// How many blocks of a kernel run on one multiprocessor at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupancy {
    /// Blocks; 0 if not even one fits.
    pub blocks: u32,
    /// Their warps.
    pub warps: u32,
    /// Warps that the multiprocessor could hold.
    pub max_warps: u32,
}

/// Blocks of `threads` threads with so many registers each and so many bytes of shared memory, on one multiprocessor.
pub fn occupancy(has: &Multiprocessor, threads: u32, registers: u32, shared_bytes: u32) -> Occupancy {
    let warps = threads.div_ceil(WARP).max(1);
    let per_warp = (registers * WARP).next_multiple_of(REGISTER_UNIT).max(REGISTER_UNIT);
    let by_registers = has.registers / per_warp / PARTS * PARTS / warps;
    let per_block = (shared_bytes + RESERVED_SHARED).next_multiple_of(SHARED_UNIT);
    let blocks = by_registers.min(has.shared_bytes / per_block).min(has.warps / warps).min(has.blocks);
    Occupancy { blocks, warps: blocks * warps, max_warps: has.warps }
}

/// The speeds that no program exceeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceilings {
    /// The GPU.
    pub name: &'static str,
    /// Bytes per second of its memory.
    pub bytes_per_second: f64,
    /// Operations per second of matmuls of bf16.
    pub bf16_flops: f64,
    /// Operations per second of f32 outside of the matrix units.
    pub f32_flops: f64,
}

/// The ceilings of the largest GPU of an architecture.
pub fn ceilings(arch: Arch) -> Ceilings {
    let (name, bytes, bf16, f32) = match arch {
        Arch::Sm80 => ("A100", 2.0, 312.0, 19.5),
        Arch::Sm89 => ("L40S", 0.864, 362.0, 91.6),
        Arch::Sm90 | Arch::Sm90a => ("H200", 4.8, 989.0, 67.0),
    };
    Ceilings { name, bytes_per_second: bytes * 1e12, bf16_flops: bf16 * 1e12, f32_flops: f32 * 1e12 }
}

/// TFLOP/s of bf16 matmuls (f32 sums) and of f32, by a word of the driver's name; longer words stand before those that
/// they begin with.
const DATASHEETS: [(&str, f64, f64); 18] = [
    ("GB200", 2500.0, 80.0),
    ("B200", 2250.0, 80.0),
    ("GH200", 989.0, 67.0),
    ("H200", 989.0, 67.0),
    ("H100 PCIe", 756.0, 51.0),
    ("H100 NVL", 835.0, 60.0),
    ("H100", 989.0, 67.0),
    ("A100", 312.0, 19.5),
    ("A30", 165.0, 10.3),
    ("A40", 149.7, 37.4),
    ("A10", 125.0, 31.2),
    ("RTX A6000", 154.8, 38.7),
    ("L40S", 362.0, 91.6),
    ("L40", 181.0, 90.5),
    ("L4", 121.0, 30.3),
    ("RTX 4090", 165.2, 82.6),
    ("RTX 4080", 97.5, 48.7),
    ("RTX 3090", 71.0, 35.6),
];

/// Operations per second of a GPU at most: of matmuls of bf16, and of f32.
///
/// From its datasheet; for others from multiprocessors, clock (Hz) and what one of them does per cycle, where the rate of
/// bf16 is that of the professional cards (GeForce has half of it with f32 sums).
pub fn peak_flops(name: &str, capability: (i32, i32), multiprocessors: u32, clock: f64) -> (f64, f64) {
    let is = |word: &str| {
        name.match_indices(word).any(|(at, _)| {
            let after = name[at + word.len()..].chars().next();
            let before = name[..at].chars().next_back();
            !after.is_some_and(char::is_alphanumeric) && !before.is_some_and(char::is_alphanumeric)
        })
    };
    let listed = DATASHEETS.iter().find(|(word, ..)| is(word) && !name.contains("Laptop"));
    if let Some((_, bf16, f32)) = listed {
        return (bf16 * 1e12, f32 * 1e12);
    }
    // Operations per cycle and multiprocessor, two for a multiply-add.
    let (bf16, f32) = match capability {
        (8, 0) => (2048.0, 128.0),
        (9, _) => (4096.0, 256.0),
        (10, _) => (8192.0, 256.0),
        _ => (1024.0, 256.0),
    };
    let cycles = f64::from(multiprocessors) * clock;
    (bf16 * cycles, f32 * cycles)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gpu_gets_code_that_runs_on_it() {
        let target = |capability, kib: u32| Target::for_capability(capability, kib << 10).expect("supported");
        let all = [
            ((8, 0), 163, Arch::Sm80, "sm_80"),
            // An RTX 30 has less shared memory than an A100.
            ((8, 6), 99, Arch::Sm89, "sm_86"),
            ((8, 7), 163, Arch::Sm80, "sm_87"),
            ((8, 9), 99, Arch::Sm89, "sm_89"),
            ((9, 0), 227, Arch::Sm90a, "sm_90a"),
            ((10, 0), 227, Arch::Sm80, "sm_100"),
            ((12, 0), 99, Arch::Sm89, "sm_120"),
        ];
        for (capability, kib, arch, real) in all {
            assert_eq!(target(capability, kib), Target { arch, real: real.into() });
        }
        let hopper = || target((9, 0), 227);
        let with = |target: Target, name, kib: u32| target.with_kernels_of(name, kib << 10);
        for none in [None, Some("")] {
            assert_eq!(with(hopper(), none, 227).expect("itself"), hopper());
        }
        let ampere = with(hopper(), Some("sm_80"), 227).expect("older kernels");
        assert_eq!((ampere.arch, ampere.real.as_str()), (Arch::Sm80, "sm_90a"));
        assert_eq!(with(hopper(), Some("sm_90"), 227).expect("its own copies").arch, Arch::Sm90);
        for (target, name, kib, why) in [
            (
                hopper(),
                "sm_75",
                227,
                "no such architecture\n  help: set LINC_CUDA_ARCH to one of sm_80, sm_89, sm_90, sm_90a",
            ),
            (target((10, 0), 227), "sm_90", 227, "the GPU, sm_100, lacks the instructions of Hopper"),
            (target((8, 0), 163), "sm_90a", 163, "the GPU, sm_80, lacks the instructions of Hopper"),
            (target((8, 6), 99), "sm_80", 99, "of shared memory, the GPU has 101376"),
        ] {
            let error = with(target, Some(name), kib).expect_err("cannot run").to_string();
            assert!(error.contains(why), "{error}");
        }
        let old = Target::for_capability((7, 5), 64 << 10).expect_err("too old").to_string();
        assert!(old.contains("7.5") && old.contains("8.0"), "{old}");
    }

    #[test]
    fn occupancy_is_the_scarcest_of_its_limits() {
        let blocks = |arch, threads, registers, shared| {
            let o = occupancy(&multiprocessor(arch), threads, registers, shared);
            assert_eq!(o.warps, o.blocks * threads.div_ceil(32));
            o.blocks
        };
        // Warps, then blocks.
        assert_eq!(blocks(Arch::Sm80, 256, 32, 0), 8);
        assert_eq!(blocks(Arch::Sm89, 256, 32, 0), 6);
        assert_eq!(blocks(Arch::Sm89, 32, 16, 0), 24);
        // Registers: 65536 / (168 * 32 -> 5376) = 12 warps.
        assert_eq!(blocks(Arch::Sm90a, 128, 168, 0), 3);
        assert_eq!(blocks(Arch::Sm90a, 128, 255, 0), 2);
        // 65536 / 7168 = 9 warps, of which the four parts hold 8.
        assert_eq!(blocks(Arch::Sm80, 288, 224, 0), 0);
        // Shared memory with its reserve.
        assert_eq!(blocks(Arch::Sm90a, 128, 32, 227 << 10), 1);
        assert_eq!(blocks(Arch::Sm90a, 128, 32, 113 << 10), 2);
        assert_eq!(blocks(Arch::Sm90a, 128, 32, 114 << 10), 1);
        assert_eq!(blocks(Arch::Sm90a, 128, 32, 228 << 10), 0);
    }

    #[test]
    fn datasheets_go_by_name_and_others_by_size() {
        let peak = |name, capability, count, ghz: f64| peak_flops(name, capability, count, ghz * 1e9);
        assert_eq!(peak("NVIDIA H200", (9, 0), 132, 1.98).0, 989e12);
        assert_eq!(peak("NVIDIA H100 80GB HBM3", (9, 0), 132, 1.98).0, 989e12);
        assert_eq!(peak("NVIDIA H100 PCIe", (9, 0), 114, 1.7).0, 756e12);
        assert_eq!(peak("NVIDIA A100-SXM4-80GB", (8, 0), 108, 1.41), (312e12, 19.5e12));
        assert_eq!(peak("NVIDIA L40S", (8, 9), 142, 2.52).0, 362e12);
        assert_eq!(peak("NVIDIA L4", (8, 9), 58, 2.04).0, 121e12);
        let laptop = peak("NVIDIA GeForce RTX 4090 Laptop GPU", (8, 9), 76, 2.04).1;
        assert!((laptop / 39.7e12 - 1.0).abs() < 0.01, "{laptop}");
        // The rule agrees with the datasheet where there is one.
        let (bf16, f32) = peak("NVIDIA Something", (8, 0), 108, 1.41);
        assert!((bf16 / 312e12 - 1.0).abs() < 0.01 && (f32 / 19.5e12 - 1.0).abs() < 0.01, "{bf16} {f32}");
    }
}
