//! Adam (arXiv 1412.6980) as `torch.optim.Adam` has it: AdamW but for the weight decay, which is the gradient of an L2
//! penalty and so a part of both moments.

use linc_text::Parsed;

use super::{AdamWSpec, Update};
use crate::attributes::Attributes;
use crate::facts::Facts;
use crate::role::ParamState;

/// The numbers of AdamW, of which `weight_decay` times the parameter is added to its clipped gradient.
#[derive(Clone, PartialEq, Debug)]
pub struct AdamSpec(pub AdamWSpec);

impl AdamSpec {
    const NAME: &str = "adam";

    pub(super) fn parse(name: &str, a: &mut Attributes) -> Parsed<Option<Self>> {
        if name != Self::NAME {
            return Ok(None);
        }
        AdamWSpec::read(a).map(|numbers| Some(AdamSpec(numbers)))
    }
}

impl Update for AdamSpec {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn states(&self) -> &'static [(ParamState, &'static str)] {
        self.0.states()
    }

    fn facts(&self) -> &'static Facts {
        self.0.facts()
    }

    fn attributes(&self) -> Vec<String> {
        self.0.attributes()
    }
}
