//! Which operation makes a value.

use linc_tile::{Kernel, Op, ValueId};

/// The operations of a kernel by the values that they make.
pub(crate) struct Definitions<'k>(Vec<Option<&'k Op>>);

impl<'k> Definitions<'k> {
    pub(crate) fn new(kernel: &'k Kernel) -> Definitions<'k> {
        let mut definitions = vec![None; kernel.types.len()];
        kernel.for_each_stmt(|stmt| {
            for result in &stmt.results {
                definitions[result.0 as usize] = Some(&stmt.op);
            }
        });
        Definitions(definitions)
    }

    /// The operation that makes a value; none makes what a region starts with.
    pub(crate) fn of(&self, value: ValueId) -> Option<&'k Op> {
        self.0[value.0 as usize]
    }

    /// The value of an integer constant.
    pub(crate) fn constant(&self, value: ValueId) -> Option<i64> {
        match self.of(value) {
            Some(Op::ConstI(value)) => Some(*value),
            _ => None,
        }
    }
}
