//! Pointwise groups to one CLIF loop each: vectors of four elements, then single ones.

use cranelift_codegen::ir::{ConstantData, InstBuilder, Type, Value, types};
use linc_tile::{Binary, Elem, Unary, ValueId};

use super::arithmetic::CAST;
use super::code::{Code, MEM};
use super::{arithmetic, half};
use crate::schedule::node::{Array, FusedOp, Group};

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

/// Emits the loop of a group.
pub(crate) fn group(code: &mut Code<'_>, group: &Group) {
    let dense = |array: &Array| array.is_dense(group.shape);
    let flat = group.limits == [None, None]
        && group.stores.iter().all(|(_, array)| dense(array))
        && group.ops.iter().all(|(op, _)| match op {
            FusedOp::Read(array) => dense(array),
            FusedOp::Iota(axis) => *axis == 1 && group.shape[0] == 1,
            FusedOp::Splat(_)
            | FusedOp::Unary(..)
            | FusedOp::Binary(..)
            | FusedOp::Fma(..)
            | FusedOp::Compare(..)
            | FusedOp::Select(..)
            | FusedOp::IntToFloat(_)
            | FusedOp::FloatToInt(_)
            | FusedOp::Round(..) => true,
        });
    let shape = if flat { [1, group.shape[0] * group.shape[1]] } else { group.shape };
    let mut bases = vec![];
    for (op, _) in &group.ops {
        bases.push(match op {
            FusedOp::Read(array) => Some(code.address(array.place)),
            FusedOp::Splat(_)
            | FusedOp::Iota(_)
            | FusedOp::Unary(..)
            | FusedOp::Binary(..)
            | FusedOp::Fma(..)
            | FusedOp::Compare(..)
            | FusedOp::Select(..)
            | FusedOp::IntToFloat(_)
            | FusedOp::FloatToInt(_)
            | FusedOp::Round(..) => None,
        });
    }
    let store_bases = group.stores.iter().map(|(_, array)| code.address(array.place)).collect();
    let loops = Loops { group, flat, shape, bases, store_bases };
    let zero = code.iconst(0);
    if shape[0] == 1 && group.limits[0].is_none() {
        row(code, &loops, zero);
        return;
    }
    let rows = limit(code, shape[0], group.limits[0]);
    code.counted(zero, rows, 1, group.limits[0].is_none(), |code, row| self::row(code, &loops, row));
}

/// The extent, cut short by a bound.
fn limit(code: &mut Code<'_>, extent: usize, bound: Option<ValueId>) -> Value {
    let extent = code.iconst(extent as i64);
    match bound {
        Some(bound) => {
            let bound = code.scalar(bound);
            arithmetic::binary(&mut code.f, Binary::Min, Elem::Index, bound, extent)
        }
        None => extent,
    }
}

fn row_access(
    code: &mut Code<'_>,
    loops: &Loops,
    array: &Array,
    base: (Value, i32),
    elem: Elem,
    row: Value,
) -> RowAccess {
    let shift = array.shift();
    let (mut address, offset) = base;
    if !loops.flat && array.strides[0] != 0 && loops.shape[0] > 1 {
        let distance = code.iconst(array.strides[0] << shift);
        let distance = code.f.ins().imul(row, distance);
        address = code.f.ins().iadd(address, distance);
    }
    if !loops.flat && array.strides[1] == 0 && loops.shape[1] > 1 {
        return RowAccess::Same(read_one(code, array, elem, address, offset));
    }
    RowAccess::Address(address, offset)
}

fn row(code: &mut Code<'_>, loops: &Loops, row: Value) {
    let group = loops.group;
    let mut reads = vec![];
    for (index, (op, elem)) in group.ops.iter().enumerate() {
        reads.push(match (op, loops.bases[index]) {
            (FusedOp::Read(array), Some(base)) => Some(row_access(code, loops, array, base, *elem, row)),
            _ => None,
        });
    }
    let mut writes = vec![];
    for (index, reg) in &group.outputs {
        let array = Array::dense(*reg, group.shape);
        let base = code.address(array.place);
        writes.push((*index, array, row_access(code, loops, &array, base, group.ops[*index].1, row)));
    }
    for ((index, array), base) in group.stores.iter().zip(&loops.store_bases) {
        writes.push((*index, *array, row_access(code, loops, array, *base, group.ops[*index].1, row)));
    }
    let cols = loops.shape[1];
    let zero = code.iconst(0);
    let dynamic = group.limits[1];
    let unroll = unroll(group.ops.len(), cols, dynamic.is_some());
    let step = LANES * unroll;
    let end = limit(code, cols, dynamic);
    let vector_end = match dynamic {
        Some(_) => code.f.ins().band_imm_s(end, -(step as i64)),
        None => code.iconst((cols / step * step) as i64),
    };
    if cols >= step {
        let body = |code: &mut Code<'_>, col: Value| {
            for k in 0..unroll {
                let at = At { row, col, plus: k * LANES, vector: true };
                elements(code, loops, &reads, &writes, at);
            }
        };
        if dynamic.is_none() && cols < 2 * step {
            body(code, zero);
        } else {
            code.counted(zero, vector_end, step as i64, dynamic.is_none(), body);
        }
    }
    if dynamic.is_some() || !cols.is_multiple_of(step) {
        // A negative bound must not start before the first column.
        let start = match dynamic {
            Some(_) => arithmetic::binary(&mut code.f, Binary::Max, Elem::Index, vector_end, zero),
            None => vector_end,
        };
        code.counted(start, end, 1, dynamic.is_none(), |code, col| {
            elements(code, loops, &reads, &writes, At { row, col, plus: 0, vector: false });
        });
    }
}

/// Computes four elements or one.
fn elements(
    code: &mut Code<'_>,
    loops: &Loops,
    reads: &[Option<RowAccess>],
    writes: &[(usize, Array, RowAccess)],
    at: At,
) {
    let ops = &loops.group.ops;
    let mut values: Vec<Value> = Vec::with_capacity(ops.len());
    for (index, (op, elem)) in ops.iter().enumerate() {
        let value = match op {
            FusedOp::Read(array) => match reads[index] {
                Some(RowAccess::Address(base, offset)) => {
                    let address = element_address(code, base, array, at);
                    let offset = offset + (at.plus << array.shift()) as i32;
                    if at.vector {
                        read_four(code, array, *elem, address, offset)
                    } else {
                        read_one(code, array, *elem, address, offset)
                    }
                }
                Some(RowAccess::Same(value)) => spread(code, value, *elem, at),
                None => unreachable!("every read has an access"),
            },
            FusedOp::Splat(scalar) => {
                let mut value = code.scalar(*scalar);
                if *elem == Elem::Bool {
                    value = mask(code, value);
                }
                spread(code, value, *elem, at)
            }
            FusedOp::Iota(axis) => iota(code, *axis, at),
            FusedOp::Unary(op, a) => match op {
                Unary::Neg | Unary::Abs if at.vector => sign(code, *op, values[*a]),
                _ => arithmetic::unary(&mut code.f, *op, values[*a]),
            },
            FusedOp::Binary(op, a, b) => match op {
                Binary::Div | Binary::Rem if at.vector && *elem == Elem::I32 => {
                    by_lane(code, *op, values[*a], values[*b])
                }
                _ => arithmetic::binary(&mut code.f, *op, *elem, values[*a], values[*b]),
            },
            FusedOp::Fma(a, b, c) => {
                arithmetic::fma(&mut code.f, code.options.fma, values[*a], values[*b], values[*c])
            }
            FusedOp::Compare(op, a, b) => {
                let truth = arithmetic::compare(&mut code.f, *op, ops[*a].1, values[*a], values[*b]);
                if at.vector { truth } else { mask(code, truth) }
            }
            FusedOp::Select(c, a, b) => arithmetic::choose(&mut code.f, values[*c], values[*a], values[*b]),
            FusedOp::IntToFloat(a) => {
                let ty = if at.vector { types::F32X4 } else { types::F32 };
                code.f.ins().fcvt_from_sint(ty, values[*a])
            }
            FusedOp::FloatToInt(a) => {
                let ty = if at.vector { types::I32X4 } else { types::I32 };
                code.f.ins().fcvt_to_sint_sat(ty, values[*a])
            }
            FusedOp::Round(half, a) => half::round(&mut code.f, *half, values[*a]),
        };
        values.push(value);
    }
    for (index, array, access) in writes {
        let RowAccess::Address(base, offset) = access else { continue };
        let address = element_address(code, *base, array, at);
        let offset = offset + (at.plus << array.shift()) as i32;
        write(code, array, values[*index], address, offset, at.vector);
    }
}

fn element_address(code: &mut Code<'_>, base: Value, array: &Array, at: At) -> Value {
    let distance = code.f.ins().ishl_imm_u(at.col, array.shift());
    code.f.ins().iadd(base, distance)
}

fn read_one(code: &mut Code<'_>, array: &Array, elem: Elem, address: Value, offset: i32) -> Value {
    if let Some(half) = array.half {
        let bits = code.f.ins().uload16(types::I32, MEM, address, offset);
        return half::widen(&mut code.f, half, bits);
    }
    code.f.ins().load(element(elem), MEM, address, offset)
}

fn read_four(code: &mut Code<'_>, array: &Array, elem: Elem, address: Value, offset: i32) -> Value {
    if let Some(half) = array.half {
        let bits = code.f.ins().uload16x4(MEM, address, offset);
        return half::widen(&mut code.f, half, bits);
    }
    code.f.ins().load(vector(elem), MEM, address, offset)
}

fn write(code: &mut Code<'_>, array: &Array, value: Value, address: Value, offset: i32, wide: bool) {
    let Some(half) = array.half else {
        code.f.ins().store(MEM, value, address, offset);
        return;
    };
    let bits = half::narrow(&mut code.f, half, value);
    if !wide {
        code.f.ins().istore16(MEM, bits, address, offset);
        return;
    }
    let narrow = code.f.ins().unarrow(bits, bits);
    let pair = code.f.ins().bitcast(types::I64X2, CAST, narrow);
    let low = code.f.ins().extractlane(pair, 0);
    code.f.ins().store(MEM, low, address, offset);
}

/// A truth value as a mask of all ones or zeros.
fn mask(code: &mut Code<'_>, truth: Value) -> Value {
    let wide = code.f.ins().uextend(types::I32, truth);
    code.f.ins().ineg(wide)
}

fn spread(code: &mut Code<'_>, value: Value, elem: Elem, at: At) -> Value {
    if at.vector { code.f.ins().splat(vector(elem), value) } else { value }
}

/// -x or |x| of a vector with a constant mask, which is shorter than the instructions' own.
fn sign(code: &mut Code<'_>, op: Unary, a: Value) -> Value {
    let bits = code.f.ins().bitcast(types::I32X4, CAST, a);
    let bits = if op == Unary::Neg {
        let mask = constant(code, [0x8000_0000; 4]);
        code.f.ins().bxor(bits, mask)
    } else {
        let mask = constant(code, [0x7fff_ffff; 4]);
        code.f.ins().band(bits, mask)
    };
    code.f.ins().bitcast(types::F32X4, CAST, bits)
}

fn constant(code: &mut Code<'_>, lanes: [u32; 4]) -> Value {
    let bytes: Vec<u8> = lanes.iter().flat_map(|lane| lane.to_le_bytes()).collect();
    let constant = code.f.func.dfg.constants.insert(ConstantData::from(bytes));
    code.f.ins().vconst(types::I32X4, constant)
}

fn iota(code: &mut Code<'_>, axis: usize, at: At) -> Value {
    let start = code.f.ins().ireduce(types::I32, if axis == 0 { at.row } else { at.col });
    if !at.vector {
        return start;
    }
    let start = code.f.ins().splat(types::I32X4, start);
    if axis == 0 {
        return start;
    }
    let lanes = constant(code, [0, 1, 2, 3].map(|lane| lane + at.plus as u32));
    code.f.ins().iadd(start, lanes)
}

fn by_lane(code: &mut Code<'_>, op: Binary, a: Value, b: Value) -> Value {
    let mut result = a;
    for lane in 0..LANES as u8 {
        let x = code.f.ins().extractlane(a, lane);
        let y = code.f.ins().extractlane(b, lane);
        let z = arithmetic::binary(&mut code.f, op, Elem::I32, x, y);
        result = code.f.ins().insertlane(result, z, lane);
    }
    result
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
