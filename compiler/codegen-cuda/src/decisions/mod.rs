//! What is decided before any text is written: the warps of a block and the layouts of tiles, how operands reach matrix
//! products, which loads are prefetched and by what way, how wide accesses are. Decisions rest on facts
//! (`analysis`) and on the GPU; none knows how it is written down.

pub(crate) mod access;
pub(crate) mod block;
pub(crate) mod double_buffer;
pub(crate) mod launch;
pub(crate) mod layout;
pub(crate) mod layouts;
pub(crate) mod multistage;
pub(crate) mod operands;
pub(crate) mod pairs;
pub(crate) mod pressure;
pub(crate) mod shared_form;
pub(crate) mod tensor_maps;
pub(crate) mod vectors;
pub(crate) mod warpgroups;

use linc_tile::{Kernel, TileType, ValueId};

use crate::CudaCodegenOptions;
use crate::analysis::definitions::Definitions;
use crate::analysis::usage::Usage;
use block::Block;
use layout::ValueLayout;
use layouts::Layouts;
use operands::Operands;

/// A kernel with what is known and what is decided of it as a whole. Emission reads it and changes nothing.
pub(crate) struct Decisions<'k> {
    pub kernel: &'k Kernel,
    pub options: &'k CudaCodegenOptions,
    pub usage: Usage,
    pub definitions: Definitions<'k>,
    pub layouts: Layouts,
    pub operands: Operands,
    /// Numbers of tiles that a thread holds at once, by the model.
    pub registers: usize,
    /// The axis of the launch that each axis of the kernel's grid becomes.
    pub launch_axes: [usize; 3],
    /// Whether loops may load for their next iterations, which takes more shared memory.
    pub ahead: bool,
}

impl<'k> Decisions<'k> {
    pub(crate) fn of(kernel: &'k Kernel, options: &'k CudaCodegenOptions) -> Decisions<'k> {
        let usage = Usage::of(kernel);
        let Block { layouts, operands, registers } = Block::of(kernel, &usage, options);
        Decisions {
            kernel,
            options,
            usage,
            definitions: Definitions::new(kernel),
            layouts,
            operands,
            registers,
            launch_axes: launch::axes(kernel),
            ahead: true,
        }
    }

    /// The value whose registers hold this one.
    pub(crate) fn root(&self, value: ValueId) -> ValueId {
        self.usage.root(value)
    }

    /// Where a value is.
    pub(crate) fn place(&self, value: ValueId) -> ValueLayout {
        self.layouts.place(value)
    }

    /// Shape and element type of a value, of a scalar without axes.
    pub(crate) fn ty(&self, value: ValueId) -> &'k TileType {
        self.kernel.ty(value)
    }
}
