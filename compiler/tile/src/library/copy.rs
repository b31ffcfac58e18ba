//! Strided copies: transposes, slices, concatenation, padding, conversion of the element type.
//!
//! Axes that are adjacent in both views are merged first, so a contiguous copy is one long axis. If the fastest axes
//! of source and destination differ, a square tile is read along one and written along the other.

use super::{TILE, bound, grid_indices, hash, tag};
use crate::builder::Builder;
use crate::ir::{Elem, Kernel, Mode, ParamId, ValueId};

/// `dst[dst_offset + Σ i·dst_strides] = src[src_offset + Σ i·src_strides]` for every index of `shape`.
#[derive(Clone, PartialEq, Debug)]
pub struct CopySpec {
    /// Sizes; any rank from 1.
    pub shape: Vec<usize>,
    /// Element type of the source.
    pub src: Elem,
    /// First element of the source.
    pub src_offset: usize,
    /// Strides of the source, in elements; 0 repeats.
    pub src_strides: Vec<usize>,
    /// Element type of the destination; converted to, through f32.
    pub dst: Elem,
    /// First element of the destination.
    pub dst_offset: usize,
    /// Strides of the destination, in elements; no two indices may meet in one element.
    pub dst_strides: Vec<usize>,
}

/// One axis of the iteration.
#[derive(Clone, Copy)]
struct CopyAxis {
    size: usize,
    src: usize,
    dst: usize,
}

/// Drops axes of size 1 and merges neighbours that are one longer axis in both views; at least one axis remains.
fn merged(spec: &CopySpec) -> Vec<CopyAxis> {
    let mut axes: Vec<CopyAxis> = Vec::new();
    for i in 0..spec.shape.len() {
        let axis = CopyAxis { size: spec.shape[i], src: spec.src_strides[i], dst: spec.dst_strides[i] };
        if axis.size == 1 {
            continue;
        }
        match axes.last_mut() {
            Some(last) if last.src == axis.size * axis.src && last.dst == axis.size * axis.dst => {
                *last = CopyAxis { size: last.size * axis.size, ..axis };
            }
            _ => axes.push(axis),
        }
    }
    if axes.is_empty() {
        axes.push(CopyAxis { size: 1, src: 1, dst: 1 });
    }
    axes
}

/// Position of the axis with the smallest positive stride, the last one on ties.
fn fastest(axes: &[CopyAxis], stride: impl Fn(&CopyAxis) -> usize) -> usize {
    let candidates = (0..axes.len()).rev();
    candidates.min_by_key(|i| stride(&axes[*i]).wrapping_sub(1)).expect("at least one axis")
}

/// Parameters: src, dst.
pub fn copy(spec: &CopySpec) -> Kernel {
    let sizes: Vec<String> = spec.shape.iter().map(usize::to_string).collect();
    let name = format!(
        "copy_{}_{}_{}_{:016x}",
        sizes.join("x"),
        tag(spec.src),
        tag(spec.dst),
        hash(&format!("{spec:?}"))
    );
    let axes = merged(spec);
    let (read, written) = (fastest(&axes, |a| a.src), fastest(&axes, |a| a.dst));
    if read == written {
        straight(spec, name, &axes, written)
    } else {
        transposing(spec, name, &axes, read, written)
    }
}

/// A tile `[rows, cols]` per program, where `cols` runs along the fastest axis of both views and `rows` along the
/// longest other one.
fn straight(spec: &CopySpec, name: String, axes: &[CopyAxis], inner: usize) -> Kernel {
    let cols = axes[inner].size.min(TILE);
    let others = (0..axes.len()).filter(|i| *i != inner);
    let outer = others.max_by_key(|i| axes[*i].size).filter(|_| cols < TILE);
    let rows = outer.map_or(1, |o| (TILE / cols).clamp(1, axes[o].size));
    let mut blocks = vec![1; axes.len()];
    blocks[inner] = cols;
    if let Some(outer) = outer {
        blocks[outer] = rows;
    }
    let (mut b, src, dst, counts) = begin_blocked(spec, name, axes, &blocks);
    let (from, to, bounds) = origin(&mut b, spec, axes, &blocks, &counts);
    let (shape, order) = match outer {
        Some(outer) => (vec![rows, cols], vec![outer, inner]),
        None => (vec![cols], vec![inner]),
    };
    let src_axes: Vec<_> = order.iter().map(|i| (axes[*i].src, bounds[*i])).collect();
    let dst_axes: Vec<_> = order.iter().map(|i| (axes[*i].dst, bounds[*i])).collect();
    let tile = b.load(src, from, &shape, &src_axes);
    convert_store(&mut b, spec, dst, to, tile, &dst_axes);
    b.finish()
}

/// A tile per program, read with the source's fastest axis along its rows and written transposed.
fn transposing(spec: &CopySpec, name: String, axes: &[CopyAxis], read: usize, written: usize) -> Kernel {
    const SIDE: usize = 64;
    let (long, short) = (axes[read].size.max(axes[written].size), axes[read].size.min(axes[written].size));
    let short = short.min(SIDE);
    let long = long.min(TILE / short);
    let mut blocks = vec![1; axes.len()];
    let read_is_long = axes[read].size >= axes[written].size;
    (blocks[read], blocks[written]) = if read_is_long { (long, short) } else { (short, long) };
    let (mut b, src, dst, counts) = begin_blocked(spec, name, axes, &blocks);
    let (from, to, bounds) = origin(&mut b, spec, axes, &blocks, &counts);
    let shape = [blocks[written], blocks[read]];
    let src_axes = [(axes[written].src, bounds[written]), (axes[read].src, bounds[read])];
    let dst_axes = [(axes[read].dst, bounds[read]), (axes[written].dst, bounds[written])];
    let tile = b.load(src, from, &shape, &src_axes);
    let tile = b.transpose(tile);
    convert_store(&mut b, spec, dst, to, tile, &dst_axes);
    b.finish()
}

type BlockedCopy = (Builder, ParamId, ParamId, Vec<usize>);

/// Starts a kernel with one program per block; the last value is the number of blocks per axis.
fn begin_blocked(spec: &CopySpec, name: String, axes: &[CopyAxis], blocks: &[usize]) -> BlockedCopy {
    let counts: Vec<usize> =
        axes.iter().zip(blocks).map(|(axis, block)| axis.size.div_ceil(*block)).collect();
    let mut b = Builder::new(name, [counts.iter().product(), 1, 1]);
    let src = b.param("src", spec.src, Mode::Read);
    let dst = b.param("dst", spec.dst, Mode::Write);
    (b, src, dst, counts)
}

type Origin = (ValueId, ValueId, Vec<Option<ValueId>>);

/// Offsets of the program's block in source and destination, and the bound of each axis.
fn origin(b: &mut Builder, spec: &CopySpec, axes: &[CopyAxis], blocks: &[usize], counts: &[usize]) -> Origin {
    let at = grid_indices(b, counts);
    let mut from = b.index(spec.src_offset);
    let mut to = b.index(spec.dst_offset);
    let mut bounds = Vec::with_capacity(axes.len());
    for (i, axis) in axes.iter().enumerate() {
        let start = b.scale_index(at[i], blocks[i]);
        let (source, destination) = (b.scale_index(start, axis.src), b.scale_index(start, axis.dst));
        from = b.add(from, source);
        to = b.add(to, destination);
        bounds.push(bound(b, axis.size, start, blocks[i]));
    }
    (from, to, bounds)
}

/// Stores a tile, through f32 if both ends differ.
fn convert_store(
    b: &mut Builder,
    spec: &CopySpec,
    dst: ParamId,
    to: ValueId,
    tile: ValueId,
    axes: &[(usize, Option<ValueId>)],
) {
    let tile = if spec.src == spec.dst { tile } else { b.cast(tile, Elem::F32) };
    b.store(dst, to, tile, axes);
}
