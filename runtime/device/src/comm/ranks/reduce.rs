//! Sums over ranks, in linc's own order.

use std::mem::size_of;

use super::super::{CommError, Exchange, Group, sum_parts};
use super::Ranks;

/// Bytes of a number that is summed.
const ELEMENT: usize = size_of::<f32>();

impl Ranks {
    /// `out`, a part, becomes the sum of all members' parts at this one's place: `x` has as many parts as there are members. In
    /// [linc's own order](sum_parts).
    ///
    /// # Errors
    /// As [`Ranks::all_to_all`].
    pub fn reduce_scatter(
        &mut self,
        name: &str,
        group: &Group,
        x: &[f32],
        out: &mut [f32],
    ) -> Result<(), CommError> {
        let mut parts = std::mem::take(&mut self.parts);
        parts.resize(x.len(), 0.0);
        let exchange = Exchange::AllToAll { bytes: out.len() * ELEMENT };
        let result = self.run(name, group, exchange, as_bytes(x), as_bytes_mut(&mut parts));
        if result.is_ok() {
            sum_parts(&parts, out);
        }
        self.parts = parts;
        result
    }

    /// `x` becomes the sum of all members' `x`, in [linc's own order](sum_parts).
    ///
    /// # Errors
    /// As [`Ranks::all_to_all`].
    pub fn all_reduce(&mut self, name: &str, group: &Group, x: &mut [f32]) -> Result<(), CommError> {
        let part = x.len().div_ceil(group.size());
        let whole = part * group.size();
        if whole != x.len() {
            let mut padded = x.to_vec();
            padded.resize(whole, 0.0);
            self.all_reduce(name, group, &mut padded)?;
            x.copy_from_slice(&padded[..x.len()]);
            return Ok(());
        }
        let mut parts = std::mem::take(&mut self.parts);
        parts.resize(whole, 0.0);
        let exchange = Exchange::AllToAll { bytes: part * ELEMENT };
        let result = self.run(name, group, exchange, as_bytes(x), as_bytes_mut(&mut parts));
        let mine = group.place() * part;
        if result.is_ok() {
            sum_parts(&parts, &mut x[mine..mine + part]);
        }
        self.parts = parts;
        result?;
        let start = x.as_mut_ptr();
        // SAFETY: the part lies within the whole, at its own place.
        unsafe {
            let exchange = Exchange::AllGather { bytes: part * ELEMENT };
            self.exchange(name, group, exchange, start.add(mine).cast(), start.cast())
        }
    }
}

fn as_bytes(x: &[f32]) -> &[u8] {
    // SAFETY: any byte of a float is a byte.
    unsafe { std::slice::from_raw_parts(x.as_ptr().cast(), std::mem::size_of_val(x)) }
}

fn as_bytes_mut(x: &mut [f32]) -> &mut [u8] {
    // SAFETY: any byte of a float is a byte, and any four bytes are a float.
    unsafe { std::slice::from_raw_parts_mut(x.as_mut_ptr().cast(), std::mem::size_of_val(x)) }
}
