//! Initial values of persistent tensors: a function of seed, name and position, whatever the order or number of threads.

use half::{bf16, f16};
use linc_device::{CutNormal, RandomStream};
use linc_plan::{Binding, DType, Init};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Elements that share one random stream.
pub(crate) const BLOCK: usize = 1 << 16;

/// Elements that are computed at once, so that they are stored from the first cache.
const CHUNK: usize = 1024;

/// The blocks of a tensor, each of which can be computed by itself.
pub(crate) struct Values<'a> {
    binding: &'a Binding,
    seed: u64,
    normal: Option<CutNormal>,
}

impl<'a> Values<'a> {
    pub(crate) fn new(binding: &'a Binding, seed: u64) -> Values<'a> {
        let normal = match binding.init {
            Init::Normal { std } => {
                Some(CutNormal::new(std, f64::INFINITY, largest(binding.dtype, f64::INFINITY)))
            }
            Init::TruncNormal { std, bound } => {
                Some(CutNormal::new(std, bound, largest(binding.dtype, bound)))
            }
            Init::Zeros | Init::Ones | Init::Rope { .. } => None,
        };
        Values { binding, seed, normal }
    }

    /// Bytes of the tensor.
    pub(crate) fn bytes(&self) -> u64 {
        self.binding.bytes()
    }

    /// Bytes of a block, but for the last.
    pub(crate) fn block_bytes(&self) -> usize {
        BLOCK * self.binding.dtype.bytes() as usize
    }

    /// Byte offset of a block in the tensor.
    pub(crate) fn offset(&self, block: usize) -> u64 {
        (block * BLOCK) as u64 * self.binding.dtype.bytes()
    }

    /// Computes the bytes of a block: [`Values::block_bytes`], or what is left of what is here of the tensor.
    pub(crate) fn compute(&self, block: usize, bytes: &mut [u8]) {
        let start = self.binding.shard.map_or(0, |shard| shard.start) + block * BLOCK;
        let (block, skipped) = (start / BLOCK, start % BLOCK);
        if skipped == 0 {
            return self.compute_from(block, 0, bytes);
        }
        // A block of a shard may lie across two of the tensor.
        let width = self.binding.dtype.bytes() as usize;
        let (head, tail) = bytes.split_at_mut(bytes.len().min((BLOCK - skipped) * width));
        self.compute_from(block, skipped, head);
        if !tail.is_empty() {
            self.compute_from(block + 1, 0, tail);
        }
    }

    /// Computes elements of a block of the whole tensor, but for as many first ones.
    fn compute_from(&self, block: usize, skipped: usize, bytes: &mut [u8]) {
        let Binding { name, dtype, init, .. } = self.binding;
        let mut random = self.normal.map(|normal| (normal, stream(self.seed, name, block)));
        // The next values, in order, of which the first has a number in the tensor.
        let mut next = |first: usize, values: &mut [f32]| match init {
            Init::Zeros => values.fill(0.0),
            Init::Ones => values.fill(1.0),
            Init::Normal { .. } | Init::TruncNormal { .. } => {
                if let Some((normal, stream)) = &mut random {
                    stream.fill(normal, values);
                }
            }
            Init::Rope { freqs } => {
                let width = 2 * freqs.len();
                for (at, value) in (first..).zip(values) {
                    let angle = (at / width) as f64 * freqs[at % width / 2];
                    *value = if at.is_multiple_of(2) { angle.cos() } else { angle.sin() } as f32;
                }
            }
        };
        let first = block * BLOCK;
        // A third of the time is saved where they need no copy.
        if *dtype == DType::F32
            && skipped == 0
            && let Ok(values) = bytemuck::try_cast_slice_mut(bytes)
        {
            return next(first, values);
        }
        let (mut values, width) = ([0f32; CHUNK], dtype.bytes() as usize);
        let (end, mut bytes) = (skipped + bytes.len() / width, bytes);
        // What is skipped is drawn as well: a stream goes on from where it is.
        for from in (0..end).step_by(CHUNK) {
            let values = &mut values[..CHUNK.min(end - from)];
            next(first + from, values);
            let wanted = &values[skipped.saturating_sub(from).min(values.len())..];
            let (now, later) = std::mem::take(&mut bytes).split_at_mut(wanted.len() * width);
            store(*dtype, wanted, now);
            bytes = later;
        }
    }
}

/// The largest number of a type that is not above a positive bound, nor infinite.
fn largest(dtype: DType, bound: f64) -> f32 {
    // Numbers of one sign are in the order of their bits, so the one below has the bits less one.
    match dtype {
        DType::F32 | DType::I32 => {
            let near = (bound as f32).min(f32::MAX);
            if f64::from(near) > bound { near.next_down() } else { near }
        }
        DType::Bf16 => {
            let near = bf16::from_f64(bound).min(bf16::MAX);
            let near = if near.to_f64() > bound { bf16::from_bits(near.to_bits() - 1) } else { near };
            near.to_f32()
        }
        DType::F16 => {
            let near = f16::from_f64(bound).min(f16::MAX);
            let near = if near.to_f64() > bound { f16::from_bits(near.to_bits() - 1) } else { near };
            near.to_f32()
        }
    }
}

/// Writes numbers as a tensor of the type has them in memory.
pub(crate) fn store(dtype: DType, values: &[f32], bytes: &mut [u8]) {
    match dtype {
        DType::Bf16 => {
            for (bytes, x) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
                *bytes = bf16::from_f32(*x).to_ne_bytes();
            }
        }
        DType::F16 => {
            for (bytes, x) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
                *bytes = f16::from_f32(*x).to_ne_bytes();
            }
        }
        DType::F32 | DType::I32 => bytes.copy_from_slice(bytemuck::cast_slice(values)),
    }
}

/// The random stream of a block of a tensor.
fn stream(seed: u64, name: &str, block: usize) -> RandomStream {
    // FNV-1a: stable across platforms and versions, which a hasher of the standard library is not.
    let hash =
        name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&hash.to_le_bytes());
    key[16..24].copy_from_slice(&(block as u64).to_le_bytes());
    // Keys that differ in a bit give states that have nothing in common.
    let mut states = [0; 256];
    ChaCha8Rng::from_seed(key).fill_bytes(&mut states);
    RandomStream::new(&states)
}

#[cfg(test)]
mod tests {
    use super::*;
    use linc_plan::{Ref, Role, Shard};

    fn binding(name: &str, init: Init, shape: Vec<usize>, dtype: DType) -> Binding {
        Binding {
            name: name.into(),
            role: Role::Param,
            dtype,
            shape,
            at: Ref { buffer: 0, offset: 0 },
            init,
            shard: None,
        }
    }

    fn bytes(binding: &Binding, seed: u64) -> Vec<u8> {
        let (values, mut all) = (Values::new(binding, seed), vec![0xff; binding.bytes() as usize]);
        for (block, bytes) in all.chunks_mut(values.block_bytes()).enumerate() {
            values.compute(block, bytes);
        }
        all
    }

    fn values(name: &str, init: Init, shape: Vec<usize>, seed: u64) -> Vec<f32> {
        let bytes = bytes(&binding(name, init, shape, DType::F32), seed);
        bytes.as_chunks().0.iter().map(|b| f32::from_ne_bytes(*b)).collect()
    }

    #[test]
    fn normal_has_its_moments_and_depends_on_seed_and_name() {
        let a = values("a", Init::Normal { std: 2.0 }, vec![300, 1000], 1);
        let moment = |k: i32| a.iter().map(|x| (f64::from(*x) / 2.0).powi(k)).sum::<f64>() / a.len() as f64;
        for (k, expected) in [(1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0), (6, 15.0)] {
            // Five standard errors, by the moments of twice the order: 1, 3, 15, 105 and 10,395.
            let spread = [1.0f64, 3.0, 15.0, 105.0, 0.0, 10_395.0][k as usize - 1] - expected * expected;
            let error = 5.0 * (spread / a.len() as f64).sqrt();
            assert!((moment(k) - expected).abs() < error, "{k}: {} for {expected}", moment(k));
        }
        assert_eq!(a, values("a", Init::Normal { std: 2.0 }, vec![300, 1000], 1));
        assert_ne!(a, values("a", Init::Normal { std: 2.0 }, vec![300, 1000], 2));
        assert_ne!(a, values("b", Init::Normal { std: 2.0 }, vec![300, 1000], 1));
        assert_ne!(a[..1000], a[BLOCK..BLOCK + 1000]);
    }

    #[test]
    fn normal_has_as_many_numbers_in_each_part_as_it_should() {
        let a = values("a", Init::Normal { std: 1.0 }, vec![1_000_000], 5);
        // Borders with their probabilities, in the middle, beyond where the tail begins, and far out.
        for (border, below) in [
            (-3.090_232_306, 0.001),
            (-1.644_853_627, 0.05),
            (-1.439_531_471, 0.075),
            (-0.253_347_103, 0.4),
            (0.0, 0.5),
            (1.281_551_566, 0.9),
            (2.326_347_874, 0.99),
        ] {
            let share = a.iter().filter(|x| f64::from(**x) < border).count() as f64 / a.len() as f64;
            let error = 5.0 * (below * (1.0 - below) / a.len() as f64).sqrt();
            assert!((share - below).abs() < error, "{border}: {share} for {below}");
        }
    }

    #[test]
    fn truncated_values_have_the_moments_of_the_cut_distribution() {
        // Bound in standard deviations, and the variance that it leaves: 1 − 2b·φ(b) / (2Φ(b) − 1); for narrow bounds
        // it is that of the uniform distribution, b²/3.
        for (bound, variance) in [
            (1e-9, 1e-18 / 3.0),
            (0.5, 0.080_589_154_6),
            (2.0, 0.773_741_303_2),
            (3.0, 0.973_336_924_7),
            (10.0, 1.0),
        ] {
            for std in [1.0, 0.02] {
                let a = values("a", Init::TruncNormal { std, bound: bound * std }, vec![400_000], 3);
                let n = a.len() as f64;
                assert!(a.iter().all(|x| f64::from(*x).abs() <= bound * std), "{bound}");
                let mean = a.iter().map(|x| f64::from(*x) / std).sum::<f64>() / n;
                let second = a.iter().map(|x| (f64::from(*x) / std).powi(2)).sum::<f64>() / n;
                // The fourth moment is at most three times the square of the second.
                let (mean_error, error) = (5.0 * (variance / n).sqrt(), 5.0 * variance * (2.0 / n).sqrt());
                assert!(mean.abs() < mean_error, "{bound}: mean {mean}");
                assert!((second - variance).abs() < error, "{bound}: {second} for {variance}");
                // Values come near the bound where the distribution does.
                let top = a.iter().fold(0.0, |top, x| f64::from(*x).abs().max(top)) / std;
                assert!(top > (0.999 * bound).min(4.0), "{bound}: {top}");
            }
        }
    }

    #[test]
    fn bounds_hold_after_rounding_to_the_type() {
        // A little above and below numbers of each type.
        for bound in [0.1, 1.0 / 3.0, 2.0 - 1e-9, 1.000_000_1, 1e-6, 3e38, 1e300] {
            for dtype in [DType::F32, DType::Bf16, DType::F16] {
                let init = Init::TruncNormal { std: 1e3 * bound, bound };
                let bytes = bytes(&binding("a", init, vec![20_000], dtype), 1);
                let values: Vec<f64> = match dtype {
                    DType::Bf16 => {
                        bytes.as_chunks().0.iter().map(|b| bf16::from_ne_bytes(*b).to_f64()).collect()
                    }
                    DType::F16 => {
                        bytes.as_chunks().0.iter().map(|b| f16::from_ne_bytes(*b).to_f64()).collect()
                    }
                    DType::F32 | DType::I32 => {
                        bytes.as_chunks().0.iter().map(|b| f64::from(f32::from_ne_bytes(*b))).collect()
                    }
                };
                let top = values.iter().fold(0.0, |top, x| x.abs().max(top));
                assert!(top <= bound && top.is_finite(), "{dtype:?}: {top} for {bound}");
                assert!(
                    top > 0.9 * bound.min(f64::from(largest(dtype, f64::INFINITY))),
                    "{dtype:?}: {top} for {bound}"
                );
            }
        }
    }

    #[test]
    fn a_shard_has_the_values_of_its_part_of_the_tensor() {
        let inits = [
            Init::Normal { std: 0.5 },
            Init::TruncNormal { std: 1.0, bound: 1.5 },
            Init::Ones,
            Init::Rope { freqs: vec![1.0, 0.1] },
        ];
        let of = 3 * BLOCK + 1000;
        for (init, dtype) in
            inits.iter().flat_map(|init| [DType::F32, DType::Bf16].map(|dtype| (init, dtype)))
        {
            let whole = binding("a", init.clone(), vec![of / 4, 2, 2], dtype);
            let (all, width) = (bytes(&whole, 7), dtype.bytes() as usize);
            for (start, len) in
                [(0, BLOCK), (BLOCK, 7), (5, 3), (BLOCK - 3, 2 * BLOCK), (1027, of - 1027), (of - 1, 1)]
            {
                let part = Binding { shard: Some(Shard { start, len, of }), ..whole.clone() };
                let expected = &all[start * width..(start + len) * width];
                assert!(bytes(&part, 7) == expected, "{init:?} {dtype:?}: {len} from {start}");
            }
        }
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
