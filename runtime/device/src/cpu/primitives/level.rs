//! The instruction sets that primitives are compiled for, and what each has.

use linc_codegen_cpu::Primitive;

use super::{Matmul, plain};
#[cfg(target_arch = "x86_64")]
use super::{pairs, wide, widest};

/// An instruction set to compute with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// Any machine.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512F besides.
    Avx512,
    /// AVX-512-BF16 besides: products of bfloat16 by pairs.
    Avx512Bf16,
}

impl Level {
    /// The levels of this machine, lowest first.
    pub fn available() -> Vec<Level> {
        let mut levels = vec![Level::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                levels.push(Level::Avx2);
                if is_x86_feature_detected!("avx512f") {
                    levels.push(Level::Avx512);
                    if is_x86_feature_detected!("avx512bf16") {
                        levels.push(Level::Avx512Bf16);
                    }
                }
            }
        }
        levels
    }

    /// The highest level of this machine.
    pub fn detect() -> Level {
        Level::available().into_iter().max().unwrap_or(Level::Portable)
    }

    /// Name in reports and options.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Portable => "portable",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
            Level::Avx512Bf16 => "avx512_bf16",
        }
    }

    /// The level that computes in f32 at most as this one does.
    pub(crate) const fn of_floats(self) -> Level {
        match self {
            Level::Avx512Bf16 => Level::Avx512,
            Level::Portable | Level::Avx2 | Level::Avx512 => self,
        }
    }

    /// The level's own matmul.
    pub(crate) fn matmul(self) -> Matmul {
        match self {
            Level::Portable => plain::MATMUL,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => wide::MATMUL,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => widest::MATMUL,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Bf16 => pairs::MATMUL,
            #[cfg(not(target_arch = "x86_64"))]
            Level::Avx2 | Level::Avx512 | Level::Avx512Bf16 => plain::MATMUL,
        }
    }

    /// The level's [`peak::multiply_adds`].
    pub(crate) fn multiply_adds(self) -> unsafe fn(usize) -> (u64, f32) {
        match self {
            Level::Portable => plain::multiply_adds,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => wide::multiply_adds,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => widest::multiply_adds,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Bf16 => pairs::multiply_adds,
            #[cfg(not(target_arch = "x86_64"))]
            Level::Avx2 | Level::Avx512 | Level::Avx512Bf16 => plain::multiply_adds,
        }
    }

    /// Address of a primitive.
    ///
    /// The level must be [`Level::available`] where the function is called.
    pub(crate) fn address(self, primitive: Primitive) -> *const u8 {
        match self {
            Level::Portable => plain::address(primitive),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => wide::address(primitive),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 | Level::Avx512Bf16 => widest::address(primitive),
            #[cfg(not(target_arch = "x86_64"))]
            Level::Avx2 | Level::Avx512 | Level::Avx512Bf16 => plain::address(primitive),
        }
    }
}
