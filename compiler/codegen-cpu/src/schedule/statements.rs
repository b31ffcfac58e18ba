//! Statements in order, with loops and branches.

use linc_tile::{Op, Region, Stmt, Unary, ValueId};

use super::groups::Location;
use super::node::{Carry, FusedOp, Node, RegId};
use super::scheduler::{Scheduler, numel};
use super::{memory, operations};
use crate::primitive::Primitive;

/// Schedules the statements of a body.
pub(crate) fn body(s: &mut Scheduler<'_>, body: &[Stmt]) -> Result<(), String> {
    body.iter().try_for_each(|stmt| statement(s, stmt))
}

fn statement(s: &mut Scheduler<'_>, stmt: &Stmt) -> Result<(), String> {
    if let [result] = stmt.results.as_slice()
        && s.is_scalar(*result)
        && !matches!(stmt.op, Op::Load(_) | Op::Reduce { .. } | Op::For { .. } | Op::If { .. })
    {
        s.out.push(Node::Scalar { result: *result, op: stmt.op.clone() });
        return Ok(());
    }
    let result = stmt.results.first().copied().unwrap_or(ValueId(u32::MAX));
    match &stmt.op {
        Op::ConstF(_) | Op::ConstI(_) | Op::ProgramId(_) => {
            return Err(format!("a constant {:?} of type {:?}", stmt.op, s.kernel.ty(result)));
        }
        Op::Unary(op, a) => match op {
            Unary::Exp => operations::math(s, Primitive::Exp, result, *a),
            Unary::Exp2 if operations::affine_exp2(s, result, *a) => {}
            Unary::Exp2 => operations::math(s, Primitive::Exp2, result, *a),
            Unary::Log => operations::math(s, Primitive::Log, result, *a),
            Unary::Sigmoid => operations::math(s, Primitive::Sigmoid, result, *a),
            Unary::Tanh => operations::math(s, Primitive::Tanh, result, *a),
            Unary::Neg | Unary::Abs | Unary::Sqrt | Unary::Rsqrt | Unary::Recip | Unary::Not => {
                s.pointwise(result, &[*a], |i| FusedOp::Unary(*op, i[0]));
            }
        },
        Op::Binary(op, a, b) => s.pointwise(result, &[*a, *b], |i| FusedOp::Binary(*op, i[0], i[1])),
        Op::Fma(a, b, c) => s.pointwise(result, &[*a, *b, *c], |i| FusedOp::Fma(i[0], i[1], i[2])),
        Op::Compare(op, a, b) => {
            s.pointwise(result, &[*a, *b], |i| FusedOp::Compare(*op, i[0], i[1]));
        }
        Op::Select(c, a, b) => {
            s.pointwise(result, &[*c, *a, *b], |i| FusedOp::Select(i[0], i[1], i[2]));
        }
        Op::Cast(a) => operations::cast(s, result, *a)?,
        Op::Splat(a) => s.place(result, Location::Splat(*a)),
        Op::Iota { axis } => {
            let axis = axis + 2 - s.kernel.ty(result).shape.len();
            s.place(result, Location::Iota(axis));
        }
        Op::Expand { vector, axis } => operations::expand(s, result, *vector, *axis),
        Op::Transpose(a) => operations::transpose(s, result, *a),
        Op::Load(view) => memory::load(s, result, view),
        Op::Store(view, value) => memory::store(s, view, *value),
        Op::Scatter { to, places, value } => memory::scatter(s, to, *places, *value),
        Op::Dot { a, b, acc, trans_a, trans_b } => {
            operations::dot(s, result, (*a, *trans_a), (*b, *trans_b), *acc);
        }
        Op::Reduce { op, axis, value } => operations::reduce(s, result, *op, *axis, *value)?,
        Op::Scan { axis, reverse, value } => operations::scan(s, result, *axis, *reverse, *value),
        Op::For { lower, upper, step, init, body } => {
            for_loop(s, [*lower, *upper, *step], init, body, &stmt.results)?;
        }
        Op::If { cond, then, otherwise } => branch(s, *cond, then, otherwise, &stmt.results)?,
    }
    Ok(())
}

/// Schedules a region on its own and returns its nodes and the registers of the tiles that it yields.
fn region(s: &mut Scheduler<'_>, region: &Region) -> Result<(Vec<Node>, Vec<RegId>), String> {
    let scope = s.scope.clone();
    let outer = std::mem::take(&mut s.out);
    body(s, &region.body)?;
    let tiles: Vec<ValueId> = region.yields.iter().copied().filter(|v| !s.is_scalar(*v)).collect();
    let yields = tiles.into_iter().map(|v| s.dense(v)).collect();
    s.flush_all();
    // What was learnt about tiles of outer regions holds only here: the copies are made here.
    s.scope = scope;
    Ok((std::mem::replace(&mut s.out, outer), yields))
}

fn for_loop(
    s: &mut Scheduler<'_>,
    range: [ValueId; 3],
    init: &[ValueId],
    body: &Region,
    results: &[ValueId],
) -> Result<(), String> {
    s.flush_all();
    let (mut scalars, mut starts, mut args, mut ends) = (vec![], vec![], vec![], vec![]);
    for (k, value) in init.iter().enumerate() {
        let arg = body.args[k + 1];
        if s.is_scalar(*value) {
            scalars.push([*value, arg, body.yields[k], results[k]]);
            continue;
        }
        // A constant start gets a register of its own, which the loop then owns.
        let start = match s.settled(*value) {
            Location::Splat(_) | Location::Iota(_) => s.fill(*value),
            Location::Array(..) | Location::Waiting(_) => s.dense(*value),
        };
        let numel = numel(s.shape(*value));
        let (arg_reg, result_reg) = (s.reg(numel), s.reg(numel));
        s.place_dense(arg, arg_reg);
        starts.push(start);
        args.push(arg_reg);
        ends.push((results[k], result_reg, numel));
    }
    let (nodes, yields) = region(s, body)?;
    let mut tiles = vec![];
    for (k, (value, result, numel)) in ends.into_iter().enumerate() {
        s.place_dense(value, result);
        tiles.push(Carry { init: starts[k], arg: args[k], yielded: yields[k], result, numel });
    }
    s.out.push(Node::For { range, counter: body.args[0], scalars, tiles, body: nodes });
    Ok(())
}

fn branch(
    s: &mut Scheduler<'_>,
    cond: ValueId,
    then: &Region,
    otherwise: &Region,
    results: &[ValueId],
) -> Result<(), String> {
    s.flush_all();
    let (then_nodes, then_tiles) = region(s, then)?;
    let (else_nodes, else_tiles) = region(s, otherwise)?;
    let (mut scalars, mut tiles) = (vec![], vec![]);
    for (k, result) in results.iter().enumerate() {
        if s.is_scalar(*result) {
            scalars.push([then.yields[k], otherwise.yields[k], *result]);
        } else {
            let numel = numel(s.shape(*result));
            let reg = s.reg(numel);
            s.place_dense(*result, reg);
            let at = tiles.len();
            tiles.push(([then_tiles[at], else_tiles[at], reg], numel));
        }
    }
    s.out.push(Node::If { cond, scalars, tiles, then: then_nodes, otherwise: else_nodes });
    Ok(())
}
