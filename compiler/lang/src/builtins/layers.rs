//! Functions that become one operation of a layer: embedding, norm, heads, rotary tables, attention.

use linc_ir::{AttentionSpec, Op, RopeScaling, TableKind, TensorType};

use super::Call;
use crate::build::{Builder, Built};
use crate::config::Number;
use crate::eval::quote;
use crate::value::{Dim, Tensor, Value, describe_shape, elements, shape};

pub(super) fn embedding(builder: &mut Builder<'_>, call: &Call<'_>) -> Built<Value> {
    let (ids, ids_expr) = match call.argument(builder, 0)? {
        (Value::Tensor(ids), expr) => (ids, expr),
        (other, expr) => return call.wrong(builder, "token ids", &other, expr),
    };
    if builder.graph.ty(ids.value).dtype.is_float() {
        return call.wrong(builder, "token ids", &Value::Tensor(ids), ids_expr);
    }
    let (table, table_expr) = call.tensor(builder, 1)?;
    let [_, features] = table.dims.as_slice() else {
        return call.wrong(builder, "a table [vocab_size, dim]", &Value::Tensor(table), table_expr);
    };
    let dims = ids.dims.iter().chain([features]).cloned().collect();
    let dtype = builder.graph.ty(table.value).dtype;
    call.add(builder, Op::Embedding { dtype }, &[table.value, ids.value], dims)
}

pub(super) fn rms_norm(builder: &mut Builder<'_>, call: &Call<'_>) -> Built<Value> {
    let (x, x_expr) = call.tensor(builder, 0)?;
    let (weight, weight_expr) = call.tensor(builder, 1)?;
    let eps = call.positive(builder, 2)?;
    let fits = matches!((weight.dims.as_slice(), x.last()), ([w], Some(d)) if w.size == d.size);
    if !fits {
        let message = format!(
            "shapes do not fit in `rms_norm`: {} is {}, the last axis of {} is {}",
            quote(weight_expr),
            describe_shape(&weight.dims),
            quote(x_expr),
            x.last().map_or_else(|| "nothing".into(), Dim::describe)
        );
        return Err(call.fail(builder, &message));
    }
    call.add(builder, Op::RmsNorm { eps }, &[x.value, weight.value], x.dims)
}

/// `[.., heads * d] -> [.., heads, d]`
pub(super) fn split_heads(builder: &mut Builder<'_>, call: &Call<'_>) -> Built<Value> {
    let (x, expr) = call.tensor(builder, 0)?;
    let heads = call.size(builder, 1, 1)?;
    let mut dims = x.dims.clone();
    let Some(last) = dims.pop().filter(|d| d.size % heads.size == 0) else {
        let last = x.last().map_or_else(|| "nothing".into(), Dim::describe);
        let message = format!(
            "the last axis of {} is {last}, which does not split into {}",
            quote(expr),
            heads.describe()
        );
        let error = call.fail(builder, &message);
        return Err(builder.blame(error, call.whole));
    };
    let size = last.size / heads.size;
    // n_heads * head_dim splits into n_heads and head_dim by name, too.
    let name = match last.name.strip_prefix(&format!("{} * ", heads.name)) {
        Some(rest) => rest.to_string(),
        None if *last.name == *last.size.to_string() => size.to_string(),
        None => format!("{} / {}", grouped(&last.name), grouped(&heads.name)),
    };
    dims.extend([heads, Dim::new(size, name)]);
    call.add(builder, Op::Reshape { shape: shape(&dims) }, &[x.value], dims)
}

/// A name that can stand beside an operator.
fn grouped(name: &str) -> String {
    if name.contains(' ') { format!("({name})") } else { name.to_string() }
}

/// `[.., heads, d] -> [.., heads * d]`
pub(super) fn merge_heads(builder: &mut Builder<'_>, call: &Call<'_>) -> Built<Value> {
    let (x, expr) = call.tensor(builder, 0)?;
    let mut dims = x.dims.clone();
    let (Some(d), Some(heads)) = (dims.pop(), dims.pop()) else {
        return call.wrong(builder, "a tensor [.., heads, head_dim]", &Value::Tensor(x), expr);
    };
    dims.push(Dim::new(heads.size * d.size, format!("{} * {}", heads.name, d.name)));
    call.add(builder, Op::Reshape { shape: shape(&dims) }, &[x.value], dims)
}

/// Rotary angles for positions `0..rope_len`; equal tables are made once.
pub(super) fn rope_table(builder: &mut Builder<'_>, call: &Call<'_>) -> Built<Value> {
    let head_dim = call.size(builder, 0, 1)?;
    let theta = call.positive(builder, 1)?;
    let scaling: Option<RopeScaling> = match call.arguments.get(2).and_then(Option::as_ref) {
        None => None,
        Some((Value::Scaling(scaling), _)) => *scaling,
        Some((other, expr)) => return call.wrong(builder, "`rope_scaling`", other, expr),
    };
    if head_dim.size % 2 != 0 {
        let message = format!("rotary positions need an even head size, found {}", head_dim.describe());
        let mut error = builder.blame(call.fail(builder, &message), call.argument(builder, 0)?.1);
        error.help = Some("features are rotated in pairs: choose an even head_dim, which is dim / n_heads where the model file does not say it".into());
        return Err(error);
    }
    let key = (head_dim.size, theta, scaling);
    if let Some(known) = builder.ropes.iter().find(|(d, t, s, _)| (*d, *t, *s) == key) {
        return Ok(Value::Rope(known.3));
    }
    let len = builder.shape.rope_len;
    let sizes = [len, head_dim.size / 2, 2];
    if elements(sizes).is_none() {
        return Err(call.fail(builder, "the table has too many elements"));
    }
    let name = match builder.ropes.len() {
        0 => "rope".to_string(),
        n => format!("rope_{n}"),
    };
    let op = Op::Table { name, ty: TensorType::f32(sizes), kind: TableKind::Rope { theta, scaling } };
    let table = builder.add(op, &[], call.whole.span)?;
    builder.ropes.push((head_dim.size, theta, scaling, table));
    Ok(Value::Rope(table))
}

/// Abstract attention of the current layer; a pass chooses its kind.
pub(super) fn attention(builder: &mut Builder<'_>, call: &Call<'_>) -> Built<Value> {
    let (q, k, v) = (call.tensor(builder, 0)?.0, call.tensor(builder, 1)?.0, call.tensor(builder, 2)?.0);
    let Some(layer) = builder.layer else {
        let help = "each layer chooses its kind of attention: write it inside `for layer in layers { ... }`";
        let error = builder.error(call.whole.span, "`attention` outside of the layers");
        return Err(Box::new(error.help(help.to_string())));
    };
    let rope = match call.arguments.get(3).and_then(Option::as_ref) {
        None => None,
        Some((Value::Rope(table), _)) => Some(*table),
        Some((other, expr)) => return call.wrong(builder, "a `rope_table` as rope", other, expr),
    };
    let causal = match call.arguments.get(4).and_then(Option::as_ref) {
        None => true,
        Some((Value::Number(Number::Bool(causal)), _)) => *causal,
        Some((other, expr)) => return call.wrong(builder, "true or false as causal", other, expr),
    };
    for (x, what) in [(&q, "heads"), (&k, "kv_heads"), (&v, "kv_heads")] {
        if x.dims.len() != 4 {
            let message = format!("`attention` takes tensors [batch, seq, {what}, head_dim]");
            let error = *call.fail(builder, &message);
            return Err(Box::new(error.help("`split_heads` makes them".to_string())));
        }
    }
    let size = |x: &Tensor, axis: usize| x.dims[axis].size;
    if [0, 1, 3].into_iter().any(|axis| size(&q, axis) != size(&k, axis)) {
        return Err(call.fail(builder, "q and k must agree in batch, seq and head_dim"));
    }
    if shape(&k.dims) != shape(&v.dims) {
        return Err(call.fail(builder, "k and v must have equal shapes"));
    }
    if size(&q, 2) % size(&k, 2) != 0 {
        let message =
            format!("{} query heads are not a multiple of {} key/value heads", size(&q, 2), size(&k, 2));
        return Err(call.fail(builder, &message));
    }
    if let Some(table) = rope {
        let table = builder.graph.ty(table).shape.clone();
        if table.0[0] < size(&q, 1) {
            let message = format!("the rope table covers {} positions, seq is {}", table.0[0], size(&q, 1));
            return Err(call.fail(builder, &message));
        }
        if table.0[1] * 2 != size(&q, 3) {
            let message =
                format!("the rope table is for heads of {}, these have {}", table.0[1] * 2, size(&q, 3));
            return Err(call.fail(builder, &message));
        }
    }
    let spec = AttentionSpec { layer, causal, rope: rope.is_some(), kind: None };
    let operands: Vec<_> = [q.value, k.value, v.value].into_iter().chain(rope).collect();
    call.add(builder, Op::Attention(spec), &operands, q.dims)
}
