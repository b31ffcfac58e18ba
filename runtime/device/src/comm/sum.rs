//! The order of linc's sums over ranks: a binary tree, whose bits do not depend on how its leaves are shared out.

use linc_tile::library::parts::middle;

/// Elements that are summed at a time: what lies between the levels stays in the first cache.
const BLOCK: usize = 1024;

/// `out = sum of parts`, elementwise. `parts` holds the parts one behind the other, each as long as `out`.
///
/// Sums pair neighbours, then pairs, and so on: over 2^n parts of which each is such a sum of 2^m leaves, the bits are
/// those of one sum over all the leaves. What is beyond the largest power of two comes as a tree of its own.
///
/// # Panics
/// Where `parts` is not a multiple of `out` that is at least 1: a bug of the caller.
pub fn sum_parts(parts: &[f32], out: &mut [f32]) {
    let len = out.len();
    if len == 0 {
        return;
    }
    assert!(!parts.is_empty() && parts.len().is_multiple_of(len), "{} parts of {len}", parts.len());
    let count = parts.len() / len;
    let levels = count.ilog2() as usize + 1;
    let mut spare = vec![0.0; levels * BLOCK];
    for start in (0..len).step_by(BLOCK) {
        let end = len.min(start + BLOCK);
        let part = |index: usize| &parts[index * len + start..index * len + end];
        tree(&part, 0..count, &mut out[start..end], &mut spare);
    }
}

fn tree<'a>(
    part: &dyn Fn(usize) -> &'a [f32],
    range: std::ops::Range<usize>,
    out: &mut [f32],
    spare: &mut [f32],
) {
    match range.len() {
        0 => {}
        1 => out.copy_from_slice(part(range.start)),
        2 => {
            let pairs = part(range.start).iter().zip(part(range.start + 1));
            out.iter_mut().zip(pairs).for_each(|(out, (a, b))| *out = a + b);
        }
        count => {
            let middle = range.start + middle(count);
            tree(part, range.start..middle, out, spare);
            let (right, spare) = spare.split_at_mut(BLOCK);
            let right = &mut right[..out.len()];
            tree(part, middle..range.end, right, spare);
            out.iter_mut().zip(right).for_each(|(out, right)| *out += *right);
        }
    }
}
