//! Programs of a model whose layers mix kinds of attention, by gates that are inputs.

use linc_ir::{Graph, NodeId};

use crate::error::PassError;
use crate::memory::PersistentLayout;
use crate::optimizer::OptimizerOptions;
use crate::{autodiff, dce, loss, mix, optimizer};

/// What is made of a model whose layers mix kinds of attention ([`mix`]).
#[derive(Clone, PartialEq, Debug)]
pub enum Mixed {
    /// Forward with all logits as output.
    Logits,
    /// Forward, and how far its predictions are from a teacher's at each place.
    Divergence,
    /// The same, and derivatives in the gates.
    Gradients,
    /// A step of training the linear branches to do what the softmax branches do.
    Align(OptimizerOptions),
}

impl Mixed {
    /// Name of the program in reports.
    pub const fn name(&self) -> &'static str {
        match self {
            Mixed::Logits => "mixed",
            Mixed::Divergence => "divergence",
            Mixed::Gradients => "gate_gradients",
            Mixed::Align(_) => "align",
        }
    }
}

/// Mixes the layers. Returns what the program is differentiated by: gates, or the parameters of linear branches.
pub(super) fn leaves(graph: &mut Graph, mixed: &Mixed) -> Result<Vec<NodeId>, PassError> {
    match mixed {
        Mixed::Logits | Mixed::Divergence | Mixed::Gradients => mix::run(graph),
        Mixed::Align(_) => mix::align(graph, loss::LOSS),
    }
}

/// What a program of a mixed model compares, and the derivatives in `leaves`.
pub(super) fn compare(
    graph: &mut Graph,
    mixed: &Mixed,
    leaves: &[NodeId],
    persistent: &PersistentLayout,
    observe: &mut dyn FnMut(&'static str, &Graph),
) -> Result<(), PassError> {
    match mixed {
        Mixed::Logits => {}
        Mixed::Divergence | Mixed::Gradients => {
            let compared = mix::diverge(graph, loss::LOGITS)?;
            loss::score(graph)?;
            observe("loss", graph);
            if *mixed == Mixed::Gradients {
                let (logits, seed) = (compared.logits, compared.gradient);
                let gradients = autodiff::run_to(graph, logits, Some(seed), leaves)?;
                mix::output_gradients(graph, &gradients)?;
                observe("autodiff", graph);
            }
            dce::run(graph);
        }
        Mixed::Align(optimizer) => {
            let root = graph.output(loss::LOSS);
            let root = root.ok_or_else(|| PassError::Missing("aligning has no loss".into()))?;
            let gradients = autodiff::run_to(graph, root, None, leaves)?;
            observe("autodiff", graph);
            let ranges = super::ranges_as_placed(graph, gradients, persistent);
            optimizer::run(graph, &ranges, optimizer, None, None)?;
            observe("optimizer", graph);
        }
    }
    Ok(())
}
