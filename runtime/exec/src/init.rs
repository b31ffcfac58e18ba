//! Initial values of persistent tensors: a function of seed, name and position, whatever the order or number of threads.

use std::borrow::Cow;

use half::{bf16, f16};
use linc_device::DeviceError;
use linc_plan::{Binding, DType, Init};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

/// Elements that share one random stream.
const BLOCK: usize = 1 << 16;
/// Blocks that are computed at once: 16 MiB of f32.
const BLOCKS: usize = 64;

/// Receives bytes for a place in the tensor, given as an offset in bytes.
type Sink<'a> = dyn FnMut(u64, &[u8]) -> Result<(), DeviceError> + 'a;

/// Writes the initial values of a tensor through `write(byte offset, bytes)`.
pub(crate) fn fill(binding: &Binding, seed: u64, write: &mut Sink<'_>) -> Result<(), DeviceError> {
    match &binding.init {
        // Arenas are zero at first, but a tensor may be initialized again.
        Init::Zeros => {
            let zeros = vec![0u8; (BLOCK * BLOCKS * 4).min(binding.bytes() as usize)];
            let mut at = 0;
            while at < binding.bytes() {
                let len = (binding.bytes() - at).min(zeros.len() as u64);
                write(at, &zeros[..len as usize])?;
                at += len;
            }
            Ok(())
        }
        Init::Ones => blocks(binding, write, &|_, values| values.fill(1.0)),
        Init::Normal { std } => blocks(binding, write, &|block, values| {
            let mut rng = stream(seed, &binding.name, block);
            for value in values {
                let z: f64 = StandardNormal.sample(&mut rng);
                *value = (z * std) as f32;
            }
        }),
        Init::TruncNormal { std, bound } => blocks(binding, write, &|block, values| {
            let mut rng = stream(seed, &binding.name, block);
            for value in values {
                *value = loop {
                    let z: f64 = StandardNormal.sample(&mut rng);
                    if (z * std).abs() <= *bound {
                        break (z * std) as f32;
                    }
                };
            }
        }),
        Init::Rope { freqs } => {
            let width = 2 * freqs.len();
            blocks(binding, write, &|block, values| {
                for (i, value) in values.iter_mut().enumerate() {
                    let at = block * BLOCK + i;
                    let angle = (at / width) as f64 * freqs[at % width / 2];
                    *value = if at.is_multiple_of(2) { angle.cos() } else { angle.sin() } as f32;
                }
            })
        }
    }
}

/// Computes blocks in parallel and writes them in order, rounded to the type of the tensor.
fn blocks(
    binding: &Binding,
    write: &mut Sink<'_>,
    fill: &(dyn Fn(usize, &mut [f32]) + Sync),
) -> Result<(), DeviceError> {
    let n: usize = binding.shape.iter().product();
    let width = binding.dtype.bytes();
    let mut values = vec![0f32; n.min(BLOCK * BLOCKS)];
    for start in (0..n).step_by(BLOCK * BLOCKS) {
        let part = &mut values[..(n - start).min(BLOCK * BLOCKS)];
        part.par_chunks_mut(BLOCK).enumerate().for_each(|(i, chunk)| fill(start / BLOCK + i, chunk));
        write(start as u64 * width, &stored(binding.dtype, part))?;
    }
    Ok(())
}

/// Numbers as a tensor of the type has them in memory.
pub(crate) fn stored(dtype: DType, values: &[f32]) -> Cow<'_, [u8]> {
    match dtype {
        DType::Bf16 => values.iter().flat_map(|x| bf16::from_f32(*x).to_ne_bytes()).collect(),
        DType::F16 => values.iter().flat_map(|x| f16::from_f32(*x).to_ne_bytes()).collect(),
        DType::F32 | DType::I32 => Cow::Borrowed(bytemuck::cast_slice(values)),
    }
}

/// The random stream of a block of a tensor.
fn stream(seed: u64, name: &str, block: usize) -> ChaCha8Rng {
    // FNV-1a: stable across platforms and versions, which a hasher of the standard library is not.
    let hash =
        name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&hash.to_le_bytes());
    key[16..24].copy_from_slice(&(block as u64).to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use linc_plan::{Ref, Role};

    fn values(name: &str, init: Init, shape: Vec<usize>, seed: u64) -> Vec<f32> {
        let n = shape.iter().product();
        let binding = Binding {
            name: name.into(),
            role: Role::Param,
            dtype: DType::F32,
            shape,
            at: Ref { buffer: 0, offset: 0 },
            init,
        };
        let mut out = vec![0f32; n];
        fill(&binding, seed, &mut |at, bytes| {
            let bytes_of: &mut [u8] = bytemuck::cast_slice_mut(&mut out);
            bytes_of[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
            Ok(())
        })
        .expect("written");
        out
    }

    #[test]
    fn normal_has_its_moments_and_depends_on_seed_and_name() {
        let a = values("a", Init::Normal { std: 2.0 }, vec![300, 1000], 1);
        let mean = a.iter().sum::<f32>() / a.len() as f32;
        let variance = a.iter().map(|x| x * x).sum::<f32>() / a.len() as f32;
        assert!(mean.abs() < 0.02 && (variance - 4.0).abs() < 0.05, "{mean} {variance}");
        assert_eq!(a, values("a", Init::Normal { std: 2.0 }, vec![300, 1000], 1));
        assert_ne!(a, values("a", Init::Normal { std: 2.0 }, vec![300, 1000], 2));
        assert_ne!(a, values("b", Init::Normal { std: 2.0 }, vec![300, 1000], 1));
    }

    #[test]
    fn truncation_holds() {
        let a = values("a", Init::TruncNormal { std: 1.0, bound: 0.5 }, vec![1000], 1);
        assert!(a.iter().all(|x| x.abs() <= 0.5));
    }

    #[test]
    fn rope_tables_are_cosines_and_sines() {
        let a = values("rope", Init::Rope { freqs: vec![1.0, 0.1] }, vec![3, 2, 2], 1);
        assert_eq!(a[..4], [1.0, 0.0, 1.0, 0.0]);
        assert!(
            (f64::from(a[8]) - 2f64.cos()).abs() < 1e-7 && (f64::from(a[11]) - 0.2f64.sin()).abs() < 1e-7
        );
    }
}
