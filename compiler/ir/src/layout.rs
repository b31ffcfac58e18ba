//! Where the elements of a value lie: strided views into the storage of a root value.
//!
//! Views (reshape, slice, transpose) and in-place results share their root's storage; this is the algebra that the
//! memory pass and the kernel lowering both speak.

use crate::graph::Value;
use crate::types::Shape;

/// Element addresses of a tensor within a storage: `offset + Σ index[i]·strides[i]`, in elements.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Address of the first element.
    pub offset: usize,
    /// Distance of neighbours per axis.
    pub strides: Vec<usize>,
}

/// A value's place: a layout in the storage that is allocated for `root`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Storage {
    /// The value whose allocation is used.
    pub root: Value,
    /// Where in it.
    pub layout: Layout,
}

impl Layout {
    /// Dense row-major from address 0.
    pub fn dense(shape: &Shape) -> Self {
        Layout { offset: 0, strides: shape.strides() }
    }

    /// True if the elements are adjacent in row-major order (axes of size 1 do not matter).
    pub fn is_dense(&self, shape: &Shape) -> bool {
        shape.0.iter().zip(&self.strides).zip(shape.strides()).all(|((d, s), dense)| *d == 1 || *s == dense)
    }

    /// The part `start..` along an axis.
    pub fn slice(&self, axis: usize, start: usize) -> Self {
        Layout { offset: self.offset + start * self.strides[axis], strides: self.strides.clone() }
    }

    /// Axes permuted: result axis `i` is axis `perm[i]`.
    pub fn transpose(&self, perm: &[usize]) -> Self {
        Layout { offset: self.offset, strides: perm.iter().map(|p| self.strides[*p]).collect() }
    }

    /// The same elements seen with another shape, or `None` where that needs a copy.
    pub fn reshape(&self, from: &Shape, to: &Shape) -> Option<Self> {
        // Merge neighbouring axes of `from` that are jointly uniform, then split them into the axes of `to`.
        let mut merged: Vec<(usize, usize)> = vec![];
        for (dim, stride) in from.0.iter().zip(&self.strides).filter(|(d, _)| **d != 1) {
            match merged.last_mut() {
                Some((d, s)) if *s == dim * stride => (*d, *s) = (*d * dim, *stride),
                _ => merged.push((*dim, *stride)),
            }
        }
        let mut strides = vec![1; to.rank()];
        let mut axis = to.rank();
        while let Some((mut dim, mut stride)) = merged.pop() {
            while dim > 1 {
                axis = axis.checked_sub(1)?;
                if dim % to.0[axis] != 0 {
                    return None;
                }
                strides[axis] = stride;
                stride *= to.0[axis];
                dim /= to.0[axis];
            }
        }
        // Whatever is left has size 1; give it the stride of a dense tensor.
        for a in (0..axis).rev() {
            strides[a] = strides.get(a + 1).map_or(1, |s| s * to.0[a + 1]);
        }
        Some(Layout { offset: self.offset, strides })
    }

    /// Rows and columns of the tensor seen as a matrix over its last axis: `(row stride, column stride)`, or `None`
    /// if the leading axes are not uniform.
    pub fn as_rows(&self, shape: &Shape) -> Option<(usize, usize)> {
        let cols = shape.last();
        let rows = shape.numel() / cols.max(1);
        let flat = self.reshape(shape, &[rows, cols].into())?;
        Some((flat.strides[0], flat.strides[1]))
    }
}

/// Stride of axes seen as one axis, or `None` if they are not uniform; 0 for a broadcast.
fn joint_stride(dims: &[usize], strides: &[usize]) -> Option<usize> {
    let mut axes = dims.iter().zip(strides).rev().filter(|(d, _)| **d != 1);
    let Some((d, s)) = axes.next() else { return Some(0) };
    let mut span = d * s;
    for (dim, stride) in axes {
        if *stride != span {
            return None;
        }
        span = dim * stride;
    }
    Some(*s)
}

/// Strides of an operand of shape `from` repeated to `to` (see [`crate::infer::broadcasts`]).
pub fn broadcast_strides(layout: &Layout, from: &Shape, to: &Shape) -> Vec<usize> {
    let lead = to.rank() - from.rank();
    (0..to.rank())
        .map(|a| if a < lead || from.0[a - lead] == 1 { 0 } else { layout.strides[a - lead] })
        .collect()
}

/// Rows, columns, and the `(row stride, column stride)` of each operand.
pub type MatrixSplit = (usize, usize, Vec<(usize, usize)>);

/// Finds the axis where `shape` splits into rows and columns such that every operand, given by its strides, is uniform
/// in both; returns rows, columns and each operand's `(row stride, column stride)`. Prefers the fewest rows.
pub fn as_matrix(shape: &Shape, operands: &[Vec<usize>]) -> Option<MatrixSplit> {
    (0..=shape.rank()).find_map(|split| {
        let (rows, cols) = shape.0.split_at(split);
        let strides = operands
            .iter()
            .map(|s| Some((joint_stride(rows, &s[..split])?, joint_stride(cols, &s[split..])?)))
            .collect::<Option<Vec<_>>>()?;
        Some((rows.iter().product(), cols.iter().product(), strides))
    })
}

#[cfg(test)]
mod tests {
    use super::{Layout, as_matrix, broadcast_strides};

    #[test]
    fn reshape_of_a_packed_slice_keeps_the_leading_dimension() {
        // [6, 16] rows, columns 4..12 taken, seen as [2, 3, 4, 2].
        let rows = Layout { offset: 4, strides: vec![16, 1] };
        let heads = rows.reshape(&[6, 8].into(), &[2, 3, 4, 2].into()).expect("a view");
        assert_eq!(heads, Layout { offset: 4, strides: vec![48, 16, 2, 1] });
        assert_eq!(heads.reshape(&[2, 3, 4, 2].into(), &[6, 8].into()), Some(rows));
    }

    #[test]
    fn reshape_across_a_gap_needs_a_copy() {
        let rows = Layout { offset: 0, strides: vec![16, 1] };
        assert_eq!(rows.reshape(&[6, 8].into(), &[48].into()), None);
    }

    #[test]
    fn unit_axes_are_free() {
        let x = Layout::dense(&[1, 5, 1].into());
        let y = x.reshape(&[1, 5, 1].into(), &[5].into()).expect("a view");
        assert!(y.is_dense(&[5].into()));
        assert_eq!(y.strides, vec![1]);
    }

    #[test]
    fn matrix_split_follows_broadcasts() {
        let shape = [6, 8].into();
        let full = vec![16, 1];
        let row = broadcast_strides(&Layout::dense(&[8].into()), &[8].into(), &shape);
        assert_eq!(as_matrix(&shape, &[full, row]), Some((6, 8, vec![(16, 1), (0, 1)])));
        let dense = Layout::dense(&shape).strides;
        assert_eq!(as_matrix(&shape, &[dense]), Some((1, 48, vec![(0, 1)])));
    }
}
