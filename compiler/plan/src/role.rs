//! What a named tensor is to the runtime, which recognises it by this and not by parts of its name.

use serde::{Deserialize, Serialize};

/// Role of a named tensor.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Written by the caller before a run.
    Input,
    /// Trainable weight.
    Param,
    /// Another persistent tensor, which the programs of the model change.
    State(StateRole),
    /// Constant filled once by its [`crate::Init`].
    Table,
    /// Read by the caller after a run.
    Output,
}

/// What a state holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateRole {
    /// Something about one parameter, with an element for each of its elements.
    OfParam {
        /// A moment or an accumulated gradient.
        state: ParamState,
        /// Name of the parameter.
        of: String,
    },
    /// The scale of the loss in f16, or a count that it changes by.
    LossScale,
    /// Keys or values of all tokens so far.
    KeyValueCache,
    /// What a recurrence keeps of all tokens so far.
    Recurrent,
}

/// A state of one parameter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
}

impl Role {
    /// True if the tensor lasts from run to run, and is one for all programs of an arena.
    pub const fn is_persistent(&self) -> bool {
        match self {
            Role::Param | Role::State(_) | Role::Table => true,
            Role::Input | Role::Output => false,
        }
    }

    /// True if a run that goes on needs the tensor, beside the parameters: what the optimizer carries from step to step.
    pub const fn is_optimizer_state(&self) -> bool {
        match self {
            Role::State(StateRole::OfParam { state, .. }) => match state {
                ParamState::FirstMoment | ParamState::SecondMoment => true,
                ParamState::Gradient => false,
            },
            Role::State(StateRole::LossScale) => true,
            Role::State(StateRole::KeyValueCache | StateRole::Recurrent) => false,
            Role::Input | Role::Param | Role::Table | Role::Output => false,
        }
    }
}
