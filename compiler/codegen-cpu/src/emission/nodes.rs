//! Nodes to CLIF: control flow and calls of primitives.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{BlockArg, InstBuilder, Value, types};
use linc_tile::{Elem, Reduction, ValueId};

use super::arithmetic::CAST;
use super::code::{Code, MEM, clif_scalar};
use super::{fused, scalars};
use crate::primitive::Primitive;
use crate::schedule::half::Half;
use crate::schedule::node::{Array, Carry, Node, ReduceTo, RegId, Storage};

/// Writes nodes in order; the error is a limit of this code generator.
pub(crate) fn write_all(code: &mut Code<'_>, nodes: &[Node]) -> Result<(), String> {
    nodes.iter().try_for_each(|node| write(code, node))
}

fn write(code: &mut Code<'_>, node: &Node) -> Result<(), String> {
    match node {
        Node::Scalar { result, op } => {
            let value = scalars::scalar_op(code, *result, op)?;
            code.define(*result, value);
        }
        Node::StoreScalar { to, value } => scalars::store_scalar(code, *to, *value),
        Node::Group(group) => fused::group(code, group),
        Node::AffineExp2 { dst, src, shape, factor, shift } => {
            let factor = code.scalar(*factor);
            let factor = code.f.ins().bitcast(types::I32, CAST, factor);
            let factor = code.f.ins().uextend(types::I64, factor);
            let [dst, src, vector] = [Storage::Reg(*dst), *src, shift.place].map(|place| code.pointer(place));
            let [rows, cols] = shape.map(|n| code.iconst(n as i64));
            let [rs, cs] = shift.strides.map(|n| code.iconst(n));
            code.call(Primitive::AffineExp2, &[dst, src, rows, cols, factor, vector, rs, cs]);
        }
        Node::Scale { dst, src, shape, vector } => {
            let [dst, src, factors] =
                [Storage::Reg(*dst), *src, vector.place].map(|place| code.pointer(place));
            let [rows, cols] = shape.map(|n| code.iconst(n as i64));
            let [rs, cs] = vector.strides.map(|n| code.iconst(n));
            code.call(Primitive::Scale, &[dst, src, rows, cols, factors, rs, cs]);
        }
        Node::ScaledDifference { dst, src, factor, shape, vector } => {
            let [dst, src, factor, subtracted] =
                [Storage::Reg(*dst), *src, *factor, vector.place].map(|place| code.pointer(place));
            let [rows, cols] = shape.map(|n| code.iconst(n as i64));
            let [rs, cs] = vector.strides.map(|n| code.iconst(n));
            code.call(Primitive::ScaledDifference, &[dst, src, factor, rows, cols, subtracted, rs, cs]);
        }
        Node::Math { function, dst, src, numel } => {
            let dst = code.pointer(Storage::Reg(*dst));
            let src = code.pointer(*src);
            let numel = code.iconst(*numel as i64);
            code.call(*function, &[dst, src, numel]);
        }
        Node::Load { dst, src, shape, bounds } => {
            let dst = code.pointer(Storage::Reg(*dst));
            let primitive = match src.half {
                None => Primitive::Load32,
                Some(Half::Bf16) => Primitive::LoadBf16,
                Some(Half::F16) => Primitive::LoadF16,
            };
            transfer(code, primitive, dst, *src, *shape, *bounds);
        }
        Node::Store { dst, src, shape, bounds } => {
            let src = code.pointer(Storage::Reg(*src));
            let primitive = match dst.half {
                None => Primitive::Store32,
                Some(Half::Bf16) => Primitive::StoreBf16,
                Some(Half::F16) => Primitive::StoreF16,
            };
            transfer(code, primitive, src, *dst, *shape, *bounds);
        }
        Node::Scatter { to, elem, places, src, numel } => {
            let [places, src] = [places, src].map(|reg| code.pointer(Storage::Reg(*reg)));
            scatter(code, *to, *elem, places, src, *numel);
        }
        Node::Dot { dst, acc, a, b, sizes } => dot(code, *dst, *acc, a, b, *sizes),
        Node::Reduce { op, to, src, shape, axis } => {
            let primitive = match (op, axis) {
                (Reduction::Sum, 0) => Primitive::ColSum,
                (Reduction::Sum, _) => Primitive::RowSum,
                (Reduction::Max, 0) => Primitive::ColMax,
                (Reduction::Max, _) => Primitive::RowMax,
            };
            let dst = match to {
                ReduceTo::Reg(reg) => code.pointer(Storage::Reg(*reg)),
                ReduceTo::Scalar(_) => code.plus(code.scratch, code.slots.scalar as i64),
            };
            let src_pointer = code.pointer(src.place);
            let args = [shape[0] as i64, shape[1] as i64, src.strides[0]].map(|n| code.iconst(n));
            code.call(primitive, &[dst, src_pointer, args[0], args[1], args[2]]);
            if let ReduceTo::Scalar(value) = to {
                let result = code.f.ins().load(types::F32, MEM, dst, 0);
                code.define(*value, result);
            }
        }
        Node::Scan { dst, src, shape, axis, reverse } => {
            let primitive = if *axis == 0 { Primitive::ScanCols } else { Primitive::ScanRows };
            let dst = code.pointer(Storage::Reg(*dst));
            let src = code.pointer(Storage::Reg(*src));
            let args = [shape[0] as i64, shape[1] as i64, i64::from(*reverse)].map(|n| code.iconst(n));
            code.call(primitive, &[dst, src, args[0], args[1], args[2]]);
        }
        Node::For { range, counter, scalars, tiles, body } => {
            for_loop(code, *range, *counter, scalars, tiles, body)?;
        }
        Node::If { cond, scalars, tiles, then, otherwise } => {
            let cond = code.scalar(*cond);
            let [then_block, else_block, end] = [(); 3].map(|()| code.f.create_block());
            code.f.ins().brif(cond, then_block, &[], else_block, &[]);
            for [_, _, result] in scalars {
                let ty = clif_scalar(code.kernel.ty(*result).elem);
                code.f.append_block_param(end, ty);
            }
            for (block, nodes, side) in [(then_block, then, 0), (else_block, otherwise, 1)] {
                code.f.switch_to_block(block);
                write_all(code, nodes)?;
                let moves = tiles.iter().map(|(regs, numel)| (regs[side], regs[2], *numel)).collect();
                code.moves(moves);
                let args: Vec<BlockArg> = scalars.iter().map(|s| code.scalar(s[side]).into()).collect();
                code.f.ins().jump(end, &args);
            }
            code.f.switch_to_block(end);
            for (k, [_, _, result]) in scalars.iter().enumerate() {
                let value = code.f.block_params(end)[k];
                code.define(*result, value);
            }
        }
    }
    Ok(())
}

fn transfer(
    code: &mut Code<'_>,
    primitive: Primitive,
    dense: Value,
    array: Array,
    shape: [usize; 2],
    bounds: [Option<ValueId>; 2],
) {
    let pointer = code.pointer(array.place);
    let [rows, cols] = shape.map(|n| code.iconst(n as i64));
    let [rs, cs] = array.strides.map(|n| code.iconst(n));
    let row_bound = bounds[0].map_or(rows, |v| code.scalar(v));
    let col_bound = bounds[1].map_or(cols, |v| code.scalar(v));
    let (dst, src) = match primitive {
        Primitive::Store32 | Primitive::StoreBf16 | Primitive::StoreF16 => (pointer, dense),
        _ => (dense, pointer),
    };
    code.call(primitive, &[dst, src, rows, cols, rs, cs, row_bound, col_bound]);
}

fn scatter(code: &mut Code<'_>, to: Storage, elem: Elem, places: Value, src: Value, numel: usize) {
    let to = code.pointer(to);
    let [start, end] = [0, numel as i64].map(|n| code.iconst(n));
    code.counted(start, end, 1, true, |code, i| {
        let distance = code.f.ins().ishl_imm_u(i, 2);
        let from = code.f.ins().iadd(places, distance);
        let place = code.f.ins().load(types::I32, MEM, from, 0);
        let zero = code.f.ins().iconst(types::I32, 0);
        let exists = code.f.ins().icmp(IntCC::SignedGreaterThanOrEqual, place, zero);
        let [store, next] = [(); 2].map(|()| code.f.create_block());
        code.f.ins().brif(exists, store, &[], next, &[]);
        code.f.switch_to_block(store);
        let place = code.f.ins().uextend(types::I64, place);
        let place = code.f.ins().ishl_imm_u(place, if elem.is_narrow() { 1 } else { 2 });
        let address = code.f.ins().iadd(to, place);
        let from = code.f.ins().iadd(src, distance);
        let bits = code.f.ins().load(types::F32, MEM, from, 0);
        scalars::store_bits(code, elem, bits, address);
        code.f.ins().jump(next, &[]);
        code.f.switch_to_block(next);
    });
}

fn dot(code: &mut Code<'_>, dst: RegId, acc: Option<RegId>, a: &Array, b: &Array, sizes: [usize; 3]) {
    if let Some(acc) = acc {
        code.moves(vec![(acc, dst, sizes[0] * sizes[1])]);
    }
    let [m, n, k] = sizes.map(|s| code.iconst(s as i64));
    let left = code.pointer(a.place);
    let right = code.pointer(b.place);
    let [a_rs, a_cs] = a.strides.map(|s| code.iconst(s));
    let [b_rs, b_cs] = b.strides.map(|s| code.iconst(s));
    let c = code.pointer(Storage::Reg(dst));
    let accumulate = code.iconst(i64::from(acc.is_some()));
    let pack = code.plus(code.scratch, code.slots.pack as i64);
    code.call(Primitive::Dot, &[m, n, k, left, a_rs, a_cs, right, b_rs, b_cs, c, accumulate, pack]);
}

fn for_loop(
    code: &mut Code<'_>,
    range: [ValueId; 3],
    counter: ValueId,
    scalars: &[[ValueId; 4]],
    tiles: &[Carry],
    body: &[Node],
) -> Result<(), String> {
    let [lower, upper, step] = range.map(|v| code.scalar(v));
    let [header, inside, end] = [(); 3].map(|()| code.f.create_block());
    code.moves(tiles.iter().map(|t| (t.init, t.arg, t.numel)).collect());
    let mut args: Vec<BlockArg> = vec![lower.into()];
    args.extend(scalars.iter().map(|s| BlockArg::from(code.scalar(s[0]))));
    code.f.ins().jump(header, &args);

    code.f.switch_to_block(header);
    let index = code.f.append_block_param(header, types::I64);
    code.define(counter, index);
    for [_, arg, _, result] in scalars {
        let value = code.f.append_block_param(header, clif_scalar(code.kernel.ty(*arg).elem));
        code.define(*arg, value);
        code.define(*result, value);
    }
    let more = code.f.ins().icmp(IntCC::SignedLessThan, index, upper);
    code.f.ins().brif(more, inside, &[], end, &[]);

    code.f.switch_to_block(inside);
    write_all(code, body)?;
    code.moves(tiles.iter().map(|t| (t.yielded, t.arg, t.numel)).collect());
    let next = code.f.ins().iadd(index, step);
    let mut args: Vec<BlockArg> = vec![next.into()];
    args.extend(scalars.iter().map(|s| BlockArg::from(code.scalar(s[2]))));
    code.f.ins().jump(header, &args);

    code.f.switch_to_block(end);
    code.moves(tiles.iter().map(|t| (t.arg, t.result, t.numel)).collect());
    Ok(())
}
