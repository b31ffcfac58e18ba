//! Sums over batches in the order of sums over ranks: what a program holds is taken out and added to it again later.

use std::ops::Range;

use linc_plan::{ALIGN, DType, Role};

use super::Executor;
use crate::ExecError;

/// Elements that are copied at once where they do not lie in the memory of the process.
const PIECE: usize = 8 << 20;

/// Changes a piece of all elements, which begins with that number.
type Change<'a> = dyn FnMut(usize, &mut [f32]) -> Result<(), ExecError> + 'a;

impl Executor {
    /// The elements of all tensors of the wanted roles, of f32, one behind the other.
    ///
    /// # Errors
    /// What the device refuses.
    pub fn take_out(&mut self, wanted: impl Fn(&Role) -> bool) -> Result<Vec<f32>, ExecError> {
        let mut all = vec![];
        self.each_piece(wanted, &mut |_, piece| {
            all.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(all)
    }

    /// Adds what [`Executor::take_out`] took of the same tensors to what they hold now.
    ///
    /// # Errors
    /// What the device refuses.
    pub fn add_to(&mut self, wanted: impl Fn(&Role) -> bool, earlier: &[f32]) -> Result<(), ExecError> {
        self.each_piece(wanted, &mut |at, piece| {
            piece.iter_mut().zip(&earlier[at..]).for_each(|(x, earlier)| *x += *earlier);
            Ok(())
        })
    }

    /// Changes all elements of the tensors of the wanted roles by pieces, each with its place among all elements.
    fn each_piece(
        &mut self,
        wanted: impl Fn(&Role) -> bool,
        change: &mut Change<'_>,
    ) -> Result<(), ExecError> {
        let mut at = 0;
        self.used = true;
        let ranges = self.ranges(wanted);
        if let Some(memory) = self.device.host_memory(self.arena)? {
            for range in ranges {
                let elements: &mut [f32] =
                    bytemuck::cast_slice_mut(&mut memory[range.start as usize..range.end as usize]);
                for piece in elements.chunks_mut(PIECE) {
                    change(at, piece)?;
                    at += piece.len();
                }
            }
            return Ok(());
        }
        for range in ranges {
            for start in range.clone().step_by(4 * PIECE) {
                let mut piece = vec![0f32; ((range.end - start) as usize / 4).min(PIECE)];
                self.device.read(self.arena, start, bytemuck::cast_slice_mut(&mut piece))?;
                change(at, &mut piece)?;
                self.device.write(self.arena, start, bytemuck::cast_slice(&piece))?;
                at += piece.len();
            }
        }
        Ok(())
    }

    /// Where the tensors of the wanted roles lie in the arena: those that only the padding between tensors parts are one range,
    /// the same on all ranks, since all have the same plans.
    fn ranges(&self, wanted: impl Fn(&Role) -> bool) -> Vec<Range<u64>> {
        let mut all: Vec<(Range<u64>, bool)> = self
            .persistent
            .values()
            .map(|(binding, at)| {
                (*at..at + binding.bytes(), wanted(&binding.role) && binding.dtype == DType::F32)
            })
            .collect();
        all.sort_by_key(|(range, _)| range.start);
        let mut joined: Vec<Range<u64>> = vec![];
        let mut follows = false;
        for (range, is_wanted) in all {
            match joined.last_mut() {
                Some(last) if is_wanted && follows && range.start.saturating_sub(last.end) < ALIGN => {
                    last.end = last.end.max(range.end);
                }
                _ if is_wanted => joined.push(range),
                _ => {}
            }
            follows = is_wanted;
        }
        joined
    }
}
