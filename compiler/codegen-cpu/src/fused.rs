//! Pointwise groups to one CLIF loop each: vectors of four elements, then single ones.

use cranelift_codegen::ir::{ConstantData, InstBuilder, Type, Value, types};
use linc_tile::{Binary, Elem, Unary, ValueId};

use crate::emit::{CAST, Emitter, MEM};
use crate::node::{Array, Group, PointOp};

/// Elements per vector.
const LANES: usize = 4;

/// How an array is read or written in the current row.
#[derive(Clone, Copy)]
enum RowAccess {
    /// Base and constant byte offset of column 0.
    Address(Value, i32),
    /// The row has one value for all columns.
    Same(Value),
}

/// A group on its way to CLIF.
struct Loops<'g> {
    group: &'g Group,
    /// All accesses are dense, so that rows need no loop of their own.
    flat: bool,
    shape: [usize; 2],
    /// Per operation: base address of arrays, scalars of splats.
    bases: Vec<Option<(Value, i32)>>,
    store_bases: Vec<(Value, i32)>,
}

/// Position of the elements that are being computed.
#[derive(Clone, Copy)]
struct At {
    row: Value,
    col: Value,
    /// Constant number of elements to add to `col`.
    plus: usize,
    vector: bool,
}

impl Emitter<'_> {
    /// Emits the loop of a group.
    pub(crate) fn group(&mut self, group: &Group) {
        let dense = |array: &Array| array.is_dense(group.shape);
        let flat = group.limits == [None, None]
            && group.stores.iter().all(|(_, array)| dense(array))
            && group.ops.iter().all(|(op, _)| match op {
                PointOp::Read(array) => dense(array),
                PointOp::Iota(axis) => *axis == 1 && group.shape[0] == 1,
                PointOp::Splat(_)
                | PointOp::Unary(..)
                | PointOp::Binary(..)
                | PointOp::Fma(..)
                | PointOp::Compare(..)
                | PointOp::Select(..)
                | PointOp::IntToFloat(_)
                | PointOp::FloatToInt(_)
                | PointOp::Round(..) => true,
            });
        let shape = if flat { [1, group.shape[0] * group.shape[1]] } else { group.shape };
        let mut bases = vec![];
        for (op, _) in &group.ops {
            bases.push(match op {
                PointOp::Read(array) => Some(self.address(array.place)),
                PointOp::Splat(_)
                | PointOp::Iota(_)
                | PointOp::Unary(..)
                | PointOp::Binary(..)
                | PointOp::Fma(..)
                | PointOp::Compare(..)
                | PointOp::Select(..)
                | PointOp::IntToFloat(_)
                | PointOp::FloatToInt(_)
                | PointOp::Round(..) => None,
            });
        }
        let store_bases = group.stores.iter().map(|(_, array)| self.address(array.place)).collect();
        let loops = Loops { group, flat, shape, bases, store_bases };
        let zero = self.iconst(0);
        if shape[0] == 1 && group.limits[0].is_none() {
            self.row(&loops, zero);
            return;
        }
        let rows = self.limit(shape[0], group.limits[0]);
        self.counted(zero, rows, 1, group.limits[0].is_none(), |e, row| e.row(&loops, row));
    }

    /// The extent, cut short by a bound.
    fn limit(&mut self, extent: usize, bound: Option<ValueId>) -> Value {
        let extent = self.iconst(extent as i64);
        match bound {
            Some(bound) => {
                let bound = self.scalar(bound);
                self.binary(Binary::Min, Elem::Index, bound, extent)
            }
            None => extent,
        }
    }

    fn row_access(
        &mut self,
        loops: &Loops,
        array: &Array,
        base: (Value, i32),
        elem: Elem,
        row: Value,
    ) -> RowAccess {
        let shift = array.shift();
        let (mut address, offset) = base;
        if !loops.flat && array.strides[0] != 0 && loops.shape[0] > 1 {
            let distance = self.iconst(array.strides[0] << shift);
            let distance = self.b.ins().imul(row, distance);
            address = self.b.ins().iadd(address, distance);
        }
        if !loops.flat && array.strides[1] == 0 && loops.shape[1] > 1 {
            return RowAccess::Same(self.read_one(array, elem, address, offset));
        }
        RowAccess::Address(address, offset)
    }

    fn row(&mut self, loops: &Loops, row: Value) {
        let group = loops.group;
        let mut reads = vec![];
        for (index, (op, elem)) in group.ops.iter().enumerate() {
            reads.push(match (op, loops.bases[index]) {
                (PointOp::Read(array), Some(base)) => Some(self.row_access(loops, array, base, *elem, row)),
                _ => None,
            });
        }
        let mut writes = vec![];
        for (index, reg) in &group.outputs {
            let array = Array::dense(*reg, group.shape);
            let base = self.address(array.place);
            writes.push((*index, array, self.row_access(loops, &array, base, group.ops[*index].1, row)));
        }
        for ((index, array), base) in group.stores.iter().zip(&loops.store_bases) {
            writes.push((*index, *array, self.row_access(loops, array, *base, group.ops[*index].1, row)));
        }
        let cols = loops.shape[1];
        let zero = self.iconst(0);
        let dynamic = group.limits[1];
        let unroll = unroll(group.ops.len(), cols, dynamic.is_some());
        let step = LANES * unroll;
        let end = self.limit(cols, dynamic);
        let vector_end = match dynamic {
            Some(_) => self.b.ins().band_imm_s(end, -(step as i64)),
            None => self.iconst((cols / step * step) as i64),
        };
        if cols >= step {
            let body = |e: &mut Self, col: Value| {
                for k in 0..unroll {
                    let at = At { row, col, plus: k * LANES, vector: true };
                    e.elements(loops, &reads, &writes, at);
                }
            };
            if dynamic.is_none() && cols < 2 * step {
                body(self, zero);
            } else {
                self.counted(zero, vector_end, step as i64, dynamic.is_none(), body);
            }
        }
        if dynamic.is_some() || !cols.is_multiple_of(step) {
            // A negative bound must not start before the first column.
            let start = match dynamic {
                Some(_) => self.binary(Binary::Max, Elem::Index, vector_end, zero),
                None => vector_end,
            };
            self.counted(start, end, 1, dynamic.is_none(), |e, col| {
                e.elements(loops, &reads, &writes, At { row, col, plus: 0, vector: false });
            });
        }
    }

    /// Computes four elements or one.
    fn elements(
        &mut self,
        loops: &Loops,
        reads: &[Option<RowAccess>],
        writes: &[(usize, Array, RowAccess)],
        at: At,
    ) {
        let ops = &loops.group.ops;
        let mut values: Vec<Value> = Vec::with_capacity(ops.len());
        for (index, (op, elem)) in ops.iter().enumerate() {
            let value = match op {
                PointOp::Read(array) => match reads[index] {
                    Some(RowAccess::Address(base, offset)) => {
                        let address = self.element_address(base, array, at);
                        let offset = offset + (at.plus << array.shift()) as i32;
                        if at.vector {
                            self.read_four(array, *elem, address, offset)
                        } else {
                            self.read_one(array, *elem, address, offset)
                        }
                    }
                    Some(RowAccess::Same(value)) => self.spread(value, *elem, at),
                    None => unreachable!("every read has an access"),
                },
                PointOp::Splat(scalar) => {
                    let mut value = self.scalar(*scalar);
                    if *elem == Elem::Bool {
                        value = self.mask(value);
                    }
                    self.spread(value, *elem, at)
                }
                PointOp::Iota(axis) => self.iota(*axis, at),
                PointOp::Unary(op, a) => match op {
                    Unary::Neg | Unary::Abs if at.vector => self.sign(*op, values[*a]),
                    _ => self.unary(*op, values[*a]),
                },
                PointOp::Binary(op, a, b) => match op {
                    Binary::Div | Binary::Rem if at.vector && *elem == Elem::I32 => {
                        self.by_lane(*op, values[*a], values[*b])
                    }
                    _ => self.binary(*op, *elem, values[*a], values[*b]),
                },
                PointOp::Fma(a, b, c) => self.fma(values[*a], values[*b], values[*c]),
                PointOp::Compare(op, a, b) => {
                    let truth = self.compare(*op, ops[*a].1, values[*a], values[*b]);
                    if at.vector { truth } else { self.mask(truth) }
                }
                PointOp::Select(c, a, b) => self.choose(values[*c], values[*a], values[*b]),
                PointOp::IntToFloat(a) => {
                    let ty = if at.vector { types::F32X4 } else { types::F32 };
                    self.b.ins().fcvt_from_sint(ty, values[*a])
                }
                PointOp::FloatToInt(a) => {
                    let ty = if at.vector { types::I32X4 } else { types::I32 };
                    self.b.ins().fcvt_to_sint_sat(ty, values[*a])
                }
                PointOp::Round(half, a) => self.round(*half, values[*a]),
            };
            values.push(value);
        }
        for (index, array, access) in writes {
            let RowAccess::Address(base, offset) = access else { continue };
            let address = self.element_address(*base, array, at);
            let offset = offset + (at.plus << array.shift()) as i32;
            self.write(array, values[*index], address, offset, at.vector);
        }
    }

    fn element_address(&mut self, base: Value, array: &Array, at: At) -> Value {
        let distance = self.b.ins().ishl_imm_u(at.col, array.shift());
        self.b.ins().iadd(base, distance)
    }

    fn read_one(&mut self, array: &Array, elem: Elem, address: Value, offset: i32) -> Value {
        if let Some(half) = array.half {
            let bits = self.b.ins().uload16(types::I32, MEM, address, offset);
            return self.widen(half, bits);
        }
        self.b.ins().load(element(elem), MEM, address, offset)
    }

    fn read_four(&mut self, array: &Array, elem: Elem, address: Value, offset: i32) -> Value {
        if let Some(half) = array.half {
            let bits = self.b.ins().uload16x4(MEM, address, offset);
            return self.widen(half, bits);
        }
        self.b.ins().load(vector(elem), MEM, address, offset)
    }

    fn write(&mut self, array: &Array, value: Value, address: Value, offset: i32, wide: bool) {
        let Some(half) = array.half else {
            self.b.ins().store(MEM, value, address, offset);
            return;
        };
        let bits = self.narrow(half, value);
        if !wide {
            self.b.ins().istore16(MEM, bits, address, offset);
            return;
        }
        let narrow = self.b.ins().unarrow(bits, bits);
        let pair = self.b.ins().bitcast(types::I64X2, CAST, narrow);
        let low = self.b.ins().extractlane(pair, 0);
        self.b.ins().store(MEM, low, address, offset);
    }

    /// A truth value as a mask of all ones or zeros.
    fn mask(&mut self, truth: Value) -> Value {
        let wide = self.b.ins().uextend(types::I32, truth);
        self.b.ins().ineg(wide)
    }

    fn spread(&mut self, value: Value, elem: Elem, at: At) -> Value {
        if at.vector { self.b.ins().splat(vector(elem), value) } else { value }
    }

    /// -x or |x| of a vector with a constant mask, which is shorter than the instructions' own.
    fn sign(&mut self, op: Unary, a: Value) -> Value {
        let bits = self.b.ins().bitcast(types::I32X4, CAST, a);
        let bits = if op == Unary::Neg {
            let mask = self.constant([0x8000_0000; 4]);
            self.b.ins().bxor(bits, mask)
        } else {
            let mask = self.constant([0x7fff_ffff; 4]);
            self.b.ins().band(bits, mask)
        };
        self.b.ins().bitcast(types::F32X4, CAST, bits)
    }

    fn constant(&mut self, lanes: [u32; 4]) -> Value {
        let bytes: Vec<u8> = lanes.iter().flat_map(|lane| lane.to_le_bytes()).collect();
        let constant = self.b.func.dfg.constants.insert(ConstantData::from(bytes));
        self.b.ins().vconst(types::I32X4, constant)
    }

    fn iota(&mut self, axis: usize, at: At) -> Value {
        let start = self.b.ins().ireduce(types::I32, if axis == 0 { at.row } else { at.col });
        if !at.vector {
            return start;
        }
        let start = self.b.ins().splat(types::I32X4, start);
        if axis == 0 {
            return start;
        }
        let lanes = self.constant([0, 1, 2, 3].map(|lane| lane + at.plus as u32));
        self.b.ins().iadd(start, lanes)
    }

    fn by_lane(&mut self, op: Binary, a: Value, b: Value) -> Value {
        let mut result = a;
        for lane in 0..LANES as u8 {
            let x = self.b.ins().extractlane(a, lane);
            let y = self.b.ins().extractlane(b, lane);
            let z = self.binary(op, Elem::I32, x, y);
            result = self.b.ins().insertlane(result, z, lane);
        }
        result
    }
}

/// Vectors per round: several for short bodies, and a divisor of what there is where that is known.
fn unroll(ops: usize, cols: usize, dynamic: bool) -> usize {
    let wanted = match ops {
        0..=8 => 4,
        9..=20 => 2,
        _ => 1,
    };
    if dynamic {
        return wanted;
    }
    (1..=wanted).rev().find(|u| (cols / LANES).is_multiple_of(*u) && *u != 3).unwrap_or(1)
}

/// CLIF type of one element in a loop; truth values are masks.
fn element(elem: Elem) -> Type {
    match elem {
        Elem::F32 | Elem::Bf16 | Elem::F16 => types::F32,
        Elem::I32 | Elem::Bool => types::I32,
        Elem::Index => types::I64,
    }
}

/// CLIF type of four elements.
fn vector(elem: Elem) -> Type {
    match elem {
        Elem::F32 | Elem::Bf16 | Elem::F16 => types::F32X4,
        Elem::I32 | Elem::Bool | Elem::Index => types::I32X4,
    }
}
