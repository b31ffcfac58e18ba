//! What a persistent tensor is to those who come after the pass that made it: the memory plan, reports, checkpoints, the
//! trainer. They ask for the role; nobody reads it out of a name.
//!
//! States have roles, since several stages tell them apart. Those of a parameter follow from what reads it
//! ([`crate::param_roles`]), and it may have several.

/// What a state holds.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum StateRole {
    /// Something about one parameter, with an element for each of its elements.
    OfParam {
        /// A moment or an accumulated gradient.
        state: ParamState,
        /// Name of the parameter, which is in the same graph.
        of: String,
    },
    /// The same of some neighbouring elements of one parameter, which are the ones that this rank has: a vector.
    OfShard {
        /// A moment or an accumulated gradient.
        state: ParamState,
        /// Name of the parameter, which is in the same graph.
        of: String,
        /// The first of the elements, in row-major order.
        start: usize,
    },
    /// The scale of the loss in f16, or a count that it changes by.
    LossScale,
    /// Keys or values of all tokens so far.
    KeyValueCache,
    /// What a recurrence keeps of all tokens so far, of a size that does not depend on their number.
    Recurrent,
}

/// What a parameter is in its model.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ParamRole {
    /// A table whose rows are looked up.
    Embedding,
    /// The matrix whose product is the logits; with tied embeddings the table.
    Output,
    /// The gain of a norm.
    Norm,
    /// One number or a vector: gains and biases.
    Vector,
    /// A matrix of a product inside of the model: neither a table nor the output.
    Matrix,
    /// What makes queries, keys and values of a softmax layer, or reads its result.
    SoftmaxAttention,
    /// The same of a linear layer.
    LinearAttention,
}

/// A state of one parameter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ParamState {
    /// Running mean of its gradients.
    FirstMoment,
    /// Running mean of their squares.
    SecondMoment,
    /// Gradients of a step's batches so far.
    Gradient,
}

impl ParamState {
    /// All states, in declaration order.
    pub const ALL: [ParamState; 3] =
        [ParamState::FirstMoment, ParamState::SecondMoment, ParamState::Gradient];

    /// Name in the text form.
    pub const fn name(self) -> &'static str {
        match self {
            ParamState::FirstMoment => "first_moment",
            ParamState::SecondMoment => "second_moment",
            ParamState::Gradient => "gradient",
        }
    }
}

impl StateRole {
    /// The roles of states that belong to no parameter.
    pub const ALONE: [StateRole; 3] = [StateRole::LossScale, StateRole::KeyValueCache, StateRole::Recurrent];

    /// Name in the text form.
    pub const fn name(&self) -> &'static str {
        match self {
            StateRole::OfParam { state, .. } | StateRole::OfShard { state, .. } => state.name(),
            StateRole::LossScale => "loss_scale",
            StateRole::KeyValueCache => "key_value_cache",
            StateRole::Recurrent => "recurrent",
        }
    }

    /// The first element of the parameter that a state of a shard has.
    pub const fn start(&self) -> Option<usize> {
        match self {
            StateRole::OfShard { start, .. } => Some(*start),
            StateRole::OfParam { .. }
            | StateRole::LossScale
            | StateRole::KeyValueCache
            | StateRole::Recurrent => None,
        }
    }

    /// Name of the parameter that it belongs to.
    pub fn param(&self) -> Option<&str> {
        match self {
            StateRole::OfParam { of, .. } | StateRole::OfShard { of, .. } => Some(of),
            StateRole::LossScale | StateRole::KeyValueCache | StateRole::Recurrent => None,
        }
    }
}
