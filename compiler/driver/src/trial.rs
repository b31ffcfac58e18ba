//! One attention by itself with chosen tiles, to be timed.

use linc_ir::{Graph, Op, TensorType};
use linc_kernels::tiles::{Family, Site, Tile};
use linc_passes::memory::{self, PersistentLayout};
use linc_plan::Plan;

use crate::assemble::assemble;
use crate::error::CompileError;
use crate::{PassError, Target};

/// A plan that runs the node that a kernel belongs to; the kernel is the step whose kernel's name begins with
/// [`Family::kernel`]. All operands are inputs.
///
/// # Errors
/// [`CompileError`]: there is no kernel for the sizes.
pub fn trial(site: &Site, tile: Tile, target: Target) -> Result<Plan, CompileError> {
    let mut graph = node(site).map_err(PassError::from)?;
    let layout = PersistentLayout::default();
    let placement = memory::run(&mut graph, &layout)?;
    let tiles = [(*site, tile)].into();
    Ok(assemble(&graph, &placement, target.into(), &tiles, &layout)?.plan)
}

fn node(site: &Site) -> Result<Graph, linc_ir::IrError> {
    let Site { dtype, batch, seq, heads, kv_heads, head_dim, causal, .. } = *site;
    let wide = || TensorType::new(dtype, [batch, seq, heads, head_dim]);
    let narrow = || TensorType::new(dtype, [batch, seq, kv_heads, head_dim]);
    let mut operands = vec![("q", wide()), ("k", narrow()), ("v", narrow())];
    let scale = (head_dim as f64).powf(-0.5);
    let op = match site.family {
        Family::Forward => Op::SoftmaxAttention { causal, scale },
        Family::Dq | Family::Dkdv => {
            let lse = TensorType::f32([batch, heads, seq]);
            operands.extend([("out", wide()), ("lse", lse), ("dout", wide())]);
            Op::SoftmaxAttentionGrad { causal, scale }
        }
    };
    let mut graph = Graph::new(site.to_string());
    let mut inputs = vec![];
    for (name, ty) in operands {
        inputs.push(graph.push(Op::Input { name: name.into(), ty }, &[])?);
    }
    let node = graph.add(op, &inputs)?;
    // dq, dk and dv, or out and lse.
    for value in graph.results(node).take(3) {
        graph.outputs.push((format!("result{}", value.port), value));
    }
    Ok(graph)
}
