//! Decides how many warps run a program, which layout each tile has, and which tiles matrix products read from shared
//! memory.

use std::collections::{BTreeMap, BTreeSet};

use linc_tile::{Elem, Kernel, Mode, Op, Region, Stmt, TileType, ValueId, View};

use crate::Options;
use crate::layout::{Axis, Layout, matrix_layout, stream_layout};
use crate::memory::memory_type;
use crate::pressure::registers;
use crate::usage::{Usage, gcd};
use crate::wgmma::suits;

/// Bytes of the widest access.
pub(crate) const WIDE: u64 = 16;
/// Registers of a thread that tiles may occupy, of 255: addresses, fragments of operands and the compiler's own need the
/// rest. Above it, twice the warps share the work.
const ROOM: usize = 170;
/// Above this, of 255, four times the warps do.
const MOST: usize = 235;
/// Elements per thread that a streaming kernel aims at: enough accesses in flight, few enough registers.
const PER_THREAD: usize = 16;

/// Where a value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// The same in every thread.
    Scalar,
    /// Elements along one axis, repeated in the threads that differ only along the other.
    Vector(Axis),
    /// A tile of two axes, cut among warps and lanes.
    Matrix(Layout),
}

impl Place {
    /// Registers of a thread.
    pub(crate) fn slots(self) -> usize {
        match self {
            Place::Scalar => 1,
            Place::Vector(axis) => axis.slots(),
            Place::Matrix(layout) => layout.rows.slots() * layout.cols.slots(),
        }
    }
}

/// The decisions, by value id.
pub(crate) struct Assignment {
    /// Warps of a block.
    pub warps: usize,
    /// Warps that share the rows of a matrix and divide its columns.
    pub across: usize,
    /// The kernel has matrix products: all matrices have their layout.
    pub products: bool,
    place: Vec<Option<Place>>,
    /// Operands of matrix products that need a copy in shared memory.
    pub staged: Vec<bool>,
    /// Loads that go to shared memory in the background.
    pub copied: Vec<bool>,
    /// Loads of `copied` that are also needed in registers.
    pub unpacked: Vec<bool>,
    /// Results of products that warpgroups do.
    pub wgmma: Vec<bool>,
    /// Operands that warpgroups read from shared memory.
    pub described: Vec<bool>,
}

impl Assignment {
    pub(crate) fn of(kernel: &Kernel, usage: &Usage, options: &Options) -> Assignment {
        let mut products = vec![];
        kernel.for_each_stmt(|s| {
            if let Op::Dot { .. } = s.op {
                products.push(kernel.ty(s.results[0]).shape[0]);
            }
        });
        let warps = match products.iter().min() {
            // A warp owns 16 rows.
            Some(rows) => rows.div_ceil(16).next_power_of_two().min(8),
            None => {
                let most = kernel.types.iter().map(TileType::numel).max().unwrap_or(1);
                // Of more than 64 elements each, twice the threads.
                let limit = if most > 8 * 32 * 64 { 16 } else { 8 };
                (most / (32 * PER_THREAD)).next_power_of_two().clamp(1, limit)
            }
        };
        let products = !products.is_empty();
        let one = Assignment::with(kernel, usage, options, warps, 1, products);
        if products && warps < 8 && registers(kernel, usage, &one) > ROOM {
            let two = Assignment::with(kernel, usage, options, 2 * warps, 2, products);
            return match registers(kernel, usage, &two) > MOST {
                true => Assignment::with(kernel, usage, options, 4 * warps, 4, products),
                false => two,
            };
        }
        one
    }

    /// The assignment for blocks of so many warps, of which `across` share the rows of a matrix.
    fn with(
        kernel: &Kernel,
        usage: &Usage,
        options: &Options,
        warps: usize,
        across: usize,
        products: bool,
    ) -> Assignment {
        let n = kernel.types.len();
        let mut assignment = Assignment {
            warps,
            across,
            products,
            place: vec![None; n],
            staged: vec![false; n],
            copied: vec![false; n],
            unpacked: vec![false; n],
            wgmma: vec![false; n],
            described: vec![false; n],
        };
        assignment.places(kernel);
        assignment.operands(kernel, usage, &options.alignment);
        if options.arch.has_warpgroups() {
            assignment.warpgroups(kernel);
        }
        assignment
    }

    /// Whether registers are so few that addresses are better computed again than kept: 128 for each of 512 threads.
    pub(crate) fn renews_addresses(&self) -> bool {
        self.products && self.warps > 8
    }

    /// Which products warpgroups do.
    fn warpgroups(&mut self, kernel: &Kernel) {
        kernel.for_each_stmt(|stmt| {
            let Op::Dot { a, b, trans_b, .. } = stmt.op else { return };
            let result = stmt.results[0];
            if suits(kernel, self, result, (b, trans_b)) {
                self.wgmma[result.0 as usize] = true;
                self.described[b.0 as usize] = true;
                self.described[a.0 as usize] |= self.staged[a.0 as usize];
            }
        });
    }

    /// Element type and columns of the products of one warpgroup.
    pub(crate) fn wgmma_products(&self, kernel: &Kernel) -> BTreeSet<(&'static str, usize)> {
        let mut products = BTreeSet::new();
        kernel.for_each_stmt(|stmt| {
            let Op::Dot { b, .. } = stmt.op else { return };
            let result = stmt.results[0];
            if let (true, Place::Matrix(layout)) = (self.wgmma[result.0 as usize], self.place(result)) {
                let columns = layout.cols.covered() / layout.cols.warps;
                products.insert((memory_type(kernel.ty(b).elem), columns));
            }
        });
        products
    }

    /// Which threads hold which elements of a value.
    pub(crate) fn place(&self, value: ValueId) -> Place {
        self.place[value.0 as usize].expect("every value has a place")
    }

    fn places(&mut self, kernel: &Kernel) {
        let widest = widest_access(kernel);
        let (warps, across, products) = (self.warps, self.across, self.products);
        let layout = |m: usize, n: usize| {
            if products {
                return matrix_layout(m, n, warps, across);
            }
            // Neighbours of a thread never straddle the end of a row.
            let width = gcd(n as u64, widest) as usize;
            stream_layout(m, n, warps, width)
        };
        let vectors = Vectors::of(kernel, &layout);
        for (id, ty) in kernel.types.iter().enumerate() {
            self.place[id] = Some(match ty.shape[..] {
                [] => Place::Scalar,
                [n] => Place::Vector(vectors.axis(id).unwrap_or_else(|| layout(1, n).cols)),
                [m, n] => Place::Matrix(layout(m, n)),
                _ => unreachable!("verified: a tile has at most two axes"),
            });
        }
    }

    /// Whether the left operand of a product can be read from registers: a warp has whole rows of it.
    fn in_rows(&self, kernel: &Kernel, a: ValueId, transposed: bool) -> bool {
        kernel.ty(a).elem.is_narrow() && !transposed && self.across == 1
    }

    /// Which operands of products are in shared memory, and how they get there.
    fn operands(&mut self, kernel: &Kernel, usage: &Usage, alignment: &[u32]) {
        let mut by_product = vec![0; kernel.types.len()];
        kernel.for_each_stmt(|stmt| {
            if let Op::Dot { a, b, trans_a, .. } = &stmt.op {
                for (operand, in_rows) in [(a, self.in_rows(kernel, *a, *trans_a)), (b, false)] {
                    // By value: what reads it under another name needs it in registers.
                    by_product[operand.0 as usize] += 1;
                    self.staged[operand.0 as usize] |= !in_rows;
                }
            }
        });
        kernel.for_each_stmt(|stmt| {
            let (Op::Load(view), [result]) = (&stmt.op, &stmt.results[..]) else { return };
            let at = result.0 as usize;
            if self.products && by_pieces(kernel, usage, alignment, view, kernel.ty(*result)) {
                self.copied[at] = true;
                self.staged[at] = true;
                self.unpacked[at] = usage.uses[at] > by_product[at];
            }
        });
    }
}

/// Elements of the widest access that suits all tiles in memory: where types differ, that of the larger, since a warp
/// should touch one contiguous range at a time. Vectors beside matrices have no say: they are few
/// bytes, or of the wider type.
fn widest_access(kernel: &Kernel) -> u64 {
    let mut most = 0;
    kernel.for_each_stmt(|stmt| {
        let (Op::Load(view) | Op::Store(view, _)) = &stmt.op else { return };
        most = most.max(view.axes.len());
    });
    let (mut widest, mut pairs) = (WIDE / 2, false);
    kernel.for_each_stmt(|stmt| {
        let (Op::Load(view) | Op::Store(view, _)) = &stmt.op else { return };
        let Some(last) = view.axes.last() else { return };
        if view.axes.len() < most {
            return;
        }
        widest = widest.min(WIDE / memory_bytes(kernel.param(view.param).elem));
        pairs |= last.stride == 2;
    });
    // Even and odd elements are two tiles that one access moves.
    if pairs { widest / 2 } else { widest }
}

/// Bytes of an element in memory.
pub(crate) fn memory_bytes(elem: Elem) -> u64 {
    if elem.is_narrow() { 2 } else { 4 }
}

/// Whether a matrix of 16-bit elements lies in memory as aligned pieces of 16 bytes, all there or all not.
pub(crate) fn by_pieces(
    kernel: &Kernel,
    usage: &Usage,
    alignment: &[u32],
    view: &View,
    ty: &TileType,
) -> bool {
    let ([rows, cols], true) = (&view.axes[..], ty.elem.is_narrow()) else { return false };
    let piece = WIDE / 2;
    let whole = |n: u64| n.is_multiple_of(piece);
    let read_only = kernel.param(view.param).mode != Mode::ReadWrite;
    read_only
        && cols.stride == 1
        && whole(ty.shape[1] as u64)
        && whole(rows.stride.unsigned_abs())
        && whole(usage.divisor(view.offset))
        && cols.bound.is_none_or(|bound| whole(usage.divisor(bound)))
        && u64::from(alignment[view.param.0 as usize]) >= WIDE
}

/// Vectors that pointwise operations and loops tie together, each class with one axis.
struct Vectors {
    parent: Vec<usize>,
    axis: BTreeMap<usize, Axis>,
}

impl Vectors {
    fn of(kernel: &Kernel, layout: &dyn Fn(usize, usize) -> Layout) -> Vectors {
        let mut vectors = Vectors { parent: (0..kernel.types.len()).collect(), axis: BTreeMap::new() };
        vectors.tie_body(kernel, &kernel.body);
        let mut votes: BTreeMap<usize, BTreeMap<Axis, usize>> = BTreeMap::new();
        kernel.for_each_stmt(|stmt| {
            let (vector, matrix, axis) = match &stmt.op {
                Op::Reduce { axis, value, .. } => (stmt.results[0], *value, *axis),
                Op::Expand { vector, axis } => (*vector, stmt.results[0], *axis),
                _ => return,
            };
            let ([m, n], [_]) = (&kernel.ty(matrix).shape[..], &kernel.ty(vector).shape[..]) else { return };
            let layout = layout(*m, *n);
            let kept = if axis == 0 { layout.cols } else { layout.rows };
            let class = vectors.find(vector.0 as usize);
            *votes.entry(class).or_default().entry(kept).or_default() += 1;
        });
        for (class, votes) in votes {
            let best = votes.iter().max_by_key(|(axis, count)| (**count, std::cmp::Reverse(**axis)));
            vectors.axis.extend(best.map(|(axis, _)| (class, *axis)));
        }
        vectors
    }

    fn axis(&self, id: usize) -> Option<Axis> {
        self.axis.get(&self.find(id)).copied()
    }

    fn find(&self, mut id: usize) -> usize {
        while self.parent[id] != id {
            id = self.parent[id];
        }
        id
    }

    fn tie(&mut self, kernel: &Kernel, values: &[ValueId]) {
        let vectors: Vec<usize> =
            values.iter().filter(|v| kernel.ty(**v).shape.len() == 1).map(|v| v.0 as usize).collect();
        for pair in vectors.windows(2) {
            let (a, b) = (self.find(pair[0]), self.find(pair[1]));
            self.parent[a.max(b)] = a.min(b);
        }
    }

    fn tie_body(&mut self, kernel: &Kernel, body: &[Stmt]) {
        for stmt in body {
            match &stmt.op {
                Op::Unary(..)
                | Op::Binary(..)
                | Op::Fma(..)
                | Op::Compare(..)
                | Op::Select(..)
                | Op::Cast(_) => {
                    let mut all = stmt.op.operands();
                    all.extend(&stmt.results);
                    self.tie(kernel, &all);
                }
                Op::Scan { value, .. } => self.tie(kernel, &[*value, stmt.results[0]]),
                Op::Scatter { places, value, .. } => self.tie(kernel, &[*places, *value]),
                Op::For { init, body, .. } => {
                    for (i, result) in stmt.results.iter().enumerate() {
                        self.tie(kernel, &[init[i], body.args[i + 1], body.yields[i], *result]);
                    }
                }
                Op::If { then, otherwise, .. } => {
                    for (i, result) in stmt.results.iter().enumerate() {
                        self.tie(kernel, &[then.yields[i], otherwise.yields[i], *result]);
                    }
                }
                Op::ConstF(_)
                | Op::ConstI(_)
                | Op::ProgramId(_)
                | Op::Splat(_)
                | Op::Expand { .. }
                | Op::Iota { .. }
                | Op::Load(_)
                | Op::Store(..)
                | Op::Dot { .. }
                | Op::Reduce { .. }
                | Op::Transpose(_) => {}
            }
            for Region { body, .. } in stmt.op.regions() {
                self.tie_body(kernel, body);
            }
        }
    }
}
