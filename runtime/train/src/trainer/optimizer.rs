//! The optimizer that a config asks for: which parameter is updated by which rule. To add one: its name in
//! `config/sections.rs`, with settings that only it has, and an arm here.

use std::collections::BTreeSet;

use glob::Pattern;
use linc_config::nearest_to_pattern;
use linc_device::words::{count, thousands};
use linc_driver::{
    AdamSpec, AdamWSpec, AdjustLr, Model, MuonSpec, OptimizerOptions, ParamGroup, ParamRole, Parameter,
    UpdateOp, UpdateRule,
};

use super::grad_norms;
use crate::config::{AdjustLrFn, Group, GroupRole, JobConfig, Optimizer, OptimizerName};
use crate::error::TrainError;

/// The optimizer of a training run with its numbers, which are compiled into the program of a step.
pub(super) struct Updates {
    pub(super) options: OptimizerOptions,
    /// The groups with what they have, a line each.
    pub(super) lines: Vec<String>,
    /// Names of the norms of parts of the gradients, in their order.
    pub(super) norms: Vec<String>,
}

/// Finds the rule of every parameter.
///
/// # Errors
/// A group without a parameter, at its place.
pub(super) fn updates(config: &JobConfig, model: &Model) -> Result<Updates, TrainError> {
    let owners = owners(config, &model.parameters)?;
    let settings = &config.optimizer;
    let (mut groups, mut lines) = (vec![], vec![]);
    let numbers =
        settings.groups.iter().enumerate().map(|(i, group)| (Some(i), Numbers::of_group(settings, group)));
    for (owner, numbers) in numbers.chain([(None, Numbers::new(settings))]) {
        let own = model.parameters.iter().zip(&owners).filter(|(_, o)| **o == owner).map(|(param, _)| param);
        let takes_muon = |param: &&Parameter| {
            numbers.name == OptimizerName::Muon && param.roles.contains(&ParamRole::Matrix)
        };
        let (matrices, others): (Vec<_>, Vec<_>) = own.partition(takes_muon);
        let rest = match numbers.name {
            OptimizerName::AdamW | OptimizerName::Muon => OptimizerName::AdamW,
            OptimizerName::Adam => OptimizerName::Adam,
        };
        for (params, name) in [(matrices, OptimizerName::Muon), (others, rest)] {
            if params.is_empty() {
                continue;
            }
            lines.push(line(config, name, &numbers, &params));
            // What is left is what no group names.
            if owner.is_some() || name == OptimizerName::Muon {
                let names: BTreeSet<String> = params.iter().map(|param| param.name.clone()).collect();
                groups.push(ParamGroup { params: names, rule: numbers.rule(name), lr: numbers.lr });
            }
        }
    }
    let all = Numbers::new(settings);
    let update = match all.name {
        OptimizerName::AdamW | OptimizerName::Muon => UpdateOp::AdamW(all.adam()),
        OptimizerName::Adam => UpdateOp::Adam(AdamSpec(all.adam())),
    };
    let (names, norms) = grad_norms::sets(config.metrics.grad_norms, &model.parameters).into_iter().unzip();
    let options = OptimizerOptions { update, groups, max_norm: config.training.max_norm, norms };
    Ok(Updates { options, lines, norms: names })
}

/// The number of the group that each parameter belongs to.
fn owners(config: &JobConfig, params: &[Parameter]) -> Result<Vec<Option<usize>>, TrainError> {
    let mut owners = vec![None; params.len()];
    for (index, group) in config.optimizer.groups.iter().enumerate() {
        let problem = |message: String, help: String| {
            let message = format!("entry {} of `groups`: {message}", index + 1);
            TrainError::from(config.problem(&["optimizer.groups"], message, Some(help)))
        };
        let mut patterns = vec![];
        for text in &group.params {
            let pattern = Pattern::new(text).map_err(|error| {
                problem(format!("`{text}` is no pattern: {}", error.msg), "* stands for any text".into())
            })?;
            if !params.iter().any(|param| pattern.matches(&param.name)) {
                let names = params.iter().map(|param| param.name.as_str());
                let near = nearest_to_pattern(text, names).unwrap_or_default();
                return Err(problem(
                    format!("no parameter's name matches `{text}`"),
                    format!("the nearest is `{near}`; * stands for any text, the dots included"),
                ));
            }
            patterns.push(pattern);
        }
        let roles: Vec<ParamRole> = group.role.iter().map(|role| param_role(*role)).collect();
        let fits = |param: &Parameter| {
            (patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(&param.name)))
                && (roles.is_empty() || roles.iter().any(|role| param.roles.contains(role)))
        };
        let fitting: Vec<usize> = (0..params.len()).filter(|i| fits(&params[*i])).collect();
        let free: Vec<usize> = fitting.iter().copied().filter(|i| owners[*i].is_none()).collect();
        if free.is_empty() {
            return Err(if fitting.is_empty() {
                let words: Vec<&str> = group.role.iter().map(|role| role.word()).collect();
                let words = words.join("\" or \"");
                let within = if group.params.is_empty() { "" } else { " among those that `params` match" };
                problem(
                    format!("the model has no parameter with the role \"{words}\"{within}"),
                    "leave the group out".into(),
                )
            } else {
                problem(
                    "entries before it have all its parameters".into(),
                    "a parameter belongs to the first entry that matches it: put the narrower one first"
                        .into(),
                )
            });
        }
        for i in free {
            owners[i] = Some(index);
        }
    }
    Ok(owners)
}

fn param_role(role: GroupRole) -> ParamRole {
    match role {
        GroupRole::Embedding => ParamRole::Embedding,
        GroupRole::Output => ParamRole::Output,
        GroupRole::Norm => ParamRole::Norm,
        GroupRole::Vector => ParamRole::Vector,
        GroupRole::Matrix => ParamRole::Matrix,
        GroupRole::SoftmaxAttention => ParamRole::SoftmaxAttention,
        GroupRole::LinearAttention => ParamRole::LinearAttention,
    }
}

/// The numbers of a group: its own, else the optimizer's.
struct Numbers<'c> {
    settings: &'c Optimizer,
    name: OptimizerName,
    /// Factor of the learning rate.
    lr: f64,
    weight_decay: f64,
    beta1: f64,
    beta2: f64,
    momentum: f64,
}

impl<'c> Numbers<'c> {
    fn new(settings: &'c Optimizer) -> Self {
        Self::of_group(settings, &Group::default())
    }

    fn of_group(settings: &'c Optimizer, group: &Group) -> Self {
        let lr =
            group.lr.map(|lr| if lr == settings.lr { 1.0 } else { lr / settings.lr.max(f64::MIN_POSITIVE) });
        Numbers {
            settings,
            name: group.name.unwrap_or(settings.name),
            lr: lr.or(group.lr_factor).unwrap_or(1.0),
            weight_decay: group.weight_decay.unwrap_or(settings.weight_decay),
            beta1: group.beta1.unwrap_or(settings.beta1),
            beta2: group.beta2.unwrap_or(settings.beta2),
            momentum: group.momentum.unwrap_or(settings.momentum),
        }
    }

    fn adam(&self) -> AdamWSpec {
        let Numbers { beta1, beta2, weight_decay, .. } = *self;
        AdamWSpec { beta1, beta2, eps: self.settings.eps, weight_decay }
    }

    fn rule(&self, name: OptimizerName) -> UpdateRule {
        match name {
            OptimizerName::AdamW => UpdateRule::Joined(UpdateOp::AdamW(self.adam())),
            OptimizerName::Adam => UpdateRule::Joined(UpdateOp::Adam(AdamSpec(self.adam()))),
            OptimizerName::Muon => UpdateRule::Muon(MuonSpec {
                momentum: self.momentum,
                nesterov: self.settings.nesterov,
                steps: self.settings.ns_steps,
                weight_decay: self.weight_decay,
                adjust: match self.settings.adjust_lr_fn {
                    AdjustLrFn::Original => AdjustLr::Original,
                    AdjustLrFn::MatchRmsAdamW => AdjustLr::MatchRmsAdamW,
                },
            }),
        }
    }
}

/// `AdamW, learning rate 0.0008, weight decay 0.1: 9 parameters, 1,152 numbers: layers.0.attention_norm, ..`
fn line(config: &JobConfig, name: OptimizerName, numbers: &Numbers<'_>, params: &[&Parameter]) -> String {
    const SHOWN: usize = 3;
    let total: u64 = params.iter().map(|param| param.numel).sum();
    let names: Vec<&str> = params.iter().take(SHOWN).map(|param| param.name.as_str()).collect();
    let more = if params.len() > SHOWN { ", .." } else { "" };
    // As many digits as a person would write.
    let lr = format!("{:.6e}", config.optimizer.lr * numbers.lr).parse::<f64>().unwrap_or_default();
    format!(
        "Optimizer: {}, learning rate {lr}, weight decay {}: {} of {} numbers: {}{more}",
        name.word(),
        numbers.weight_decay,
        count(params.len(), "parameter"),
        thousands(total),
        names.join(", "),
    )
}
