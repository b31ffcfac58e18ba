//! Between linc's f32 weights and those of other files: number formats, and the order of a head's rows.

use bytemuck::Pod;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::Dtype;

use super::names::Weight;

/// Number formats of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// As linc keeps them.
    F32,
    /// The upper half of an f32.
    Bf16,
    /// IEEE 754 half precision.
    F16,
}

impl Element {
    /// In the order in which they are offered.
    pub const ALL: [Element; 3] = [Element::F32, Element::Bf16, Element::F16];

    /// What `config.json` and the command line call it.
    pub fn name(self) -> &'static str {
        match self {
            Element::F32 => "float32",
            Element::Bf16 => "bfloat16",
            Element::F16 => "float16",
        }
    }

    pub(super) fn dtype(self) -> Dtype {
        match self {
            Element::F32 => Dtype::F32,
            Element::Bf16 => Dtype::BF16,
            Element::F16 => Dtype::F16,
        }
    }

    pub(super) fn bytes(self) -> usize {
        match self {
            Element::F32 => 4,
            Element::Bf16 | Element::F16 => 2,
        }
    }
}

/// Numbers that are converted at once: by the machine's own instructions where it has them, and without a second copy of a
/// tensor, which may be the largest thing in memory.
const PIECE: usize = 1 << 14;

/// Little-endian numbers as little-endian f32, which holds each of them exactly.
pub(super) fn widened(bytes: Vec<u8>, element: Element) -> Vec<u8> {
    match element {
        Element::F32 => bytes,
        Element::Bf16 => in_pieces(&bytes, |half: &[bf16], wide: &mut [f32]| half.convert_to_f32_slice(wide)),
        Element::F16 => in_pieces(&bytes, |half: &[f16], wide: &mut [f32]| half.convert_to_f32_slice(wide)),
    }
}

/// Little-endian f32 rounded to a format, to nearest; nothing if one of them is finite and would be infinite.
pub(super) fn narrowed(bytes: Vec<u8>, element: Element) -> Option<Vec<u8>> {
    let mut fits = true;
    let narrow = match element {
        Element::F32 => bytes,
        Element::Bf16 => rounded(&bytes, bf16::is_finite, &mut fits),
        Element::F16 => rounded(&bytes, f16::is_finite, &mut fits),
    };
    fits.then_some(narrow)
}

/// f32 as halves; `fits` is unset where a finite one is none any more.
fn rounded<H: Pod>(bytes: &[u8], is_finite: fn(H) -> bool, fits: &mut bool) -> Vec<u8>
where
    [H]: HalfFloatSliceExt,
{
    in_pieces(bytes, |wide: &[f32], half: &mut [H]| {
        half.convert_from_f32_slice(wide);
        *fits &= wide.iter().zip(half).all(|(x, half)| is_finite(*half) || !x.is_finite());
    })
}

/// Converts numbers that lie anywhere, a piece at a time.
fn in_pieces<A: Pod, B: Pod>(bytes: &[u8], mut convert: impl FnMut(&[A], &mut [B])) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() / size_of::<A>() * size_of::<B>());
    let (mut from, mut to) = (vec![A::zeroed(); PIECE], vec![B::zeroed(); PIECE]);
    for piece in bytes.chunks(PIECE * size_of::<A>()) {
        let (from, to) = (&mut from[..piece.len() / size_of::<A>()], &mut to[..piece.len() / size_of::<A>()]);
        bytemuck::cast_slice_mut(from).copy_from_slice(piece);
        convert(from, to);
        out.extend_from_slice(bytemuck::cast_slice(to));
    }
    out
}

/// Which way a tensor goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Import,
    Export,
}

/// The rows of a tensor of f32 in the other order, where it has two: linc rotates features 2i and 2i + 1 of a head
/// together, Hugging Face's models i and i + head_dim / 2.
pub(super) fn reordered(bytes: Vec<u8>, weight: &Weight, way: Way) -> Vec<u8> {
    let (Some(heads), [rows, columns]) = (weight.rotary_heads, &weight.shape[..]) else { return bytes };
    let (head, row) = (rows / heads, columns * 4);
    let mut out = Vec::with_capacity(bytes.len());
    for block in bytes.chunks_exact(head * row) {
        for to in 0..head {
            let from = match way {
                Way::Import => to / 2 + to % 2 * (head / 2),
                Way::Export => to % (head / 2) * 2 + to / (head / 2),
            };
            out.extend_from_slice(&block[from * row..][..row]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(numbers: &[f32]) -> Vec<u8> {
        numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    #[test]
    fn the_rows_of_a_head_are_in_pairs_here_and_in_halves_there() {
        let shape = vec![8, 2];
        let weight = Weight { linc: "k".into(), foreign: "k".into(), shape, rotary_heads: Some(2) };
        let rows = |order: [usize; 8]| bytes(&order.map(|r| [r as f32, r as f32 + 0.5]).concat());
        let halves = rows([0, 1, 2, 3, 4, 5, 6, 7]);
        let pairs = reordered(halves.clone(), &weight, Way::Import);
        assert_eq!(pairs, rows([0, 2, 1, 3, 4, 6, 5, 7]));
        assert_eq!(reordered(pairs, &weight, Way::Export), halves);
        let plain = Weight { rotary_heads: None, ..weight };
        assert_eq!(reordered(halves.clone(), &plain, Way::Import), halves);
    }

    #[test]
    fn narrow_numbers_come_back_and_too_large_ones_are_refused() {
        let numbers = bytes(&[0.0, -1.5, 3.0, 0.007_812_5, f32::INFINITY, 1.0e-7]);
        for element in [Element::Bf16, Element::F16] {
            let narrow = narrowed(numbers.clone(), element).expect("all fit");
            assert_eq!(narrow.len() * 2, numbers.len());
            let wide = widened(narrow.clone(), element);
            assert_eq!(wide[..20], numbers[..20]);
            assert_eq!(narrowed(wide, element), Some(narrow));
        }
        assert_eq!(narrowed(bytes(&[65_504.0, 70_000.0]), Element::F16), None);
        assert!(narrowed(bytes(&[70_000.0]), Element::Bf16).is_some());
        assert_eq!(narrowed(bytes(&[f32::MAX]), Element::Bf16), None, "it rounds up to infinity");
        assert_eq!(narrowed(numbers.clone(), Element::F32), Some(numbers));
    }
}
