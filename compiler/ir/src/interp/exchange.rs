//! What ranks compute together: graphs in lockstep, which meet at their exchanges.

use super::evaluation::{Evaluation, Meeting};
use super::tensor::{Args, Data, Real, Tensor};
use super::{Bindings, Results};
use crate::error::IrError;
use crate::exchange::{ExchangeOp, Reduction, middle};
use crate::graph::Graph;

/// Evaluates the graphs of all ranks of a world, in their order, each with its own bindings.
///
/// # Errors
/// As [`super::run`]; [`IrError::Value`] where there are more graphs than bindings or fewer, and where ranks wait for others that never come to the same exchange, with what each waits for.
pub fn run_ranks<T: Real>(graphs: &[Graph], bindings: &[Bindings<T>]) -> Result<Vec<Results<T>>, IrError> {
    if graphs.len() != bindings.len() {
        let message = format!("{} graphs of ranks have {} bindings", graphs.len(), bindings.len());
        return Err(IrError::Value { op: "ranks", message });
    }
    let mut ranks = vec![];
    for (graph, bindings) in graphs.iter().zip(bindings) {
        ranks.push(Evaluation::new(graph, bindings, false)?);
    }
    loop {
        for rank in &mut ranks {
            rank.advance()?;
        }
        let meetings: Vec<Option<Meeting<'_, T>>> = ranks.iter().map(Evaluation::meeting).collect();
        if meetings.iter().all(Option::is_none) {
            return Ok(ranks.into_iter().map(Evaluation::results).collect());
        }
        let results =
            (0..ranks.len()).find_map(|rank| meet(&meetings, rank)).ok_or_else(|| stuck(&meetings))??;
        drop(meetings);
        for (rank, result) in results {
            ranks[rank].receive(result);
        }
    }
}

type Received<T> = Result<Vec<(usize, Tensor<T>)>, IrError>;

/// What the members of the group that a rank waits for receive; nothing if it waits for none, or one is not there yet.
fn meet<T: Real>(meetings: &[Option<Meeting<'_, T>>], rank: usize) -> Option<Received<T>> {
    let op = meetings[rank].as_ref()?.op;
    let group = op.group()?;
    let mut members = vec![];
    for (place, member) in group.members().enumerate() {
        let found = meetings.get(member)?.as_ref()?;
        if *found.op != at_place(op, place) {
            return None;
        }
        members.push(found);
    }
    let wholes: Result<Vec<Tensor<T>>, IrError> = members.iter().map(|found| joined(found)).collect();
    Some(wholes.and_then(|wholes| {
        let alike = wholes.iter().all(|whole| whole.shape == wholes[0].shape);
        if !alike {
            let shapes: Vec<String> = wholes.iter().map(|whole| whole.shape.to_string()).collect();
            return wrong(op, format!("the ranks of {} have {}", group.name, shapes.join(", ")));
        }
        let results = (0..group.size).map(|place| exchanged(&at_place(op, place), &wholes));
        group.members().zip(results).map(|(member, result)| Ok((member, result?))).collect()
    }))
}

/// The same exchange as another member has it.
fn at_place(op: &ExchangeOp, at: usize) -> ExchangeOp {
    let mut op = op.clone();
    match &mut op {
        ExchangeOp::AllReduce { group, .. }
        | ExchangeOp::AllGather { group }
        | ExchangeOp::ReduceScatter { group }
        | ExchangeOp::AllToAll { group } => group.place = at,
        ExchangeOp::ReduceParts { .. } => {}
    }
    op
}

fn wrong<R>(op: &ExchangeOp, message: String) -> Result<R, IrError> {
    Err(IrError::Value { op: op.name(), message })
}

fn stuck<T: Real>(meetings: &[Option<Meeting<'_, T>>]) -> IrError {
    let waits = |(rank, meeting): (usize, &Option<Meeting<'_, T>>)| match meeting {
        None => format!("rank {rank} is done"),
        Some(Meeting { op, .. }) => {
            format!("rank {rank} waits at {} {{{}}}", op.name(), op.attributes().join(", "))
        }
    };
    let waiting: Vec<String> = meetings.iter().enumerate().map(waits).collect();
    let op = meetings.iter().flatten().next().map_or("exchange", |meeting| meeting.op.name());
    IrError::Value { op, message: waiting.join(", ") }
}

/// The operands of an exchange, one behind the other along the first axis.
fn joined<T: Real>(meeting: &Meeting<'_, T>) -> Result<Tensor<T>, IrError> {
    let args = Args { op: meeting.op.name(), operands: &meeting.operands };
    if let [whole] = meeting.operands[..] {
        return Ok(whole.clone());
    }
    let mut shape = meeting.operands[0].shape.clone();
    if let Some(rows) = shape.0.first_mut() {
        *rows = meeting.operands.iter().map(|x| x.shape.0[0]).sum();
    }
    super::view::concat(&args, 0, &shape)
}

/// One operation of a group of one.
pub(super) fn alone<T: Real>(op: &ExchangeOp, args: &Args<'_, T>) -> Result<Tensor<T>, IrError> {
    match op.group() {
        Some(group) if group.size > 1 => {
            let (name, size) = (&group.name, group.size);
            args.error(format!("one graph alone has not the {size} ranks of {name}"))
        }
        Some(_) => {
            let operands = args.operands.to_vec();
            exchanged(op, &[joined(&Meeting { op, operands })?])
        }
        None => exchanged(op, &[args.operands[0].clone()]),
    }
}

/// What a member receives, given the operands of all.
fn exchanged<T: Real>(op: &ExchangeOp, wholes: &[Tensor<T>]) -> Result<Tensor<T>, IrError> {
    match op {
        ExchangeOp::AllReduce { reduction, .. } => reduce(op, wholes, *reduction),
        ExchangeOp::ReduceScatter { group } => {
            let parts: Vec<Tensor<T>> = wholes.iter().map(|x| part(x, group.size, group.place)).collect();
            reduce(op, &parts, Reduction::Sum)
        }
        ExchangeOp::AllToAll { group } => {
            let parts: Vec<Tensor<T>> = wholes.iter().map(|x| part(x, group.size, group.place)).collect();
            one_behind_the_other(op, &parts)
        }
        ExchangeOp::AllGather { .. } => one_behind_the_other(op, wholes),
        ExchangeOp::ReduceParts { parts, reduction } => {
            let parts: Vec<Tensor<T>> = (0..*parts).map(|i| part(&wholes[0], *parts, i)).collect();
            reduce(op, &parts, *reduction)
        }
    }
}

fn one_behind_the_other<T: Real>(op: &ExchangeOp, parts: &[Tensor<T>]) -> Result<Tensor<T>, IrError> {
    joined(&Meeting { op, operands: parts.iter().collect() })
}

/// Part `at` of `count` along the first axis.
fn part<T: Real>(x: &Tensor<T>, count: usize, at: usize) -> Tensor<T> {
    let mut shape = x.shape.clone();
    if let Some(rows) = shape.0.first_mut() {
        *rows /= count;
    }
    let len = x.len() / count;
    match &x.data {
        Data::Float(x) => Tensor::float(shape, x[at * len..(at + 1) * len].to_vec()),
        Data::Int(x) => Tensor::int(shape, x[at * len..(at + 1) * len].to_vec()),
    }
}

fn reduce<T: Real>(op: &ExchangeOp, parts: &[Tensor<T>], by: Reduction) -> Result<Tensor<T>, IrError> {
    let floats: Option<Vec<&[T]>> = parts.iter().map(Tensor::floats).collect();
    let Some(floats) = floats else { return wrong(op, "an operand is not float".into()) };
    let combine = |a: T, b: T| match by {
        Reduction::Sum => a + b,
        // Of a number and a NaN the NaN, as of a sum, so that no rank hides what another computed wrong.
        Reduction::Max if a > b || a.is_nan() => a,
        Reduction::Max => b,
    };
    Ok(Tensor::float(parts[0].shape.clone(), tree(&floats, &combine)))
}

fn tree<T: Real>(parts: &[&[T]], combine: &impl Fn(T, T) -> T) -> Vec<T> {
    let [part] = parts else {
        let (left, right) = parts.split_at(middle(parts.len()));
        let (left, right) = (tree(left, combine), tree(right, combine));
        return left.into_iter().zip(right).map(|(a, b)| combine(a, b)).collect();
    };
    part.to_vec()
}
