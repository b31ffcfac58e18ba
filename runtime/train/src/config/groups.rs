//! What the optimizer's groups say by themselves. Which parameters they have, the model tells.

use linc_config::Settings;

use super::{JobConfig, Optimizer, OptimizerName};

impl JobConfig {
    pub(super) fn check_groups(&self, settings: &mut Settings<'_>) {
        const GROUPS: &str = "optimizer.groups";
        for (index, group) in self.optimizer.groups.iter().enumerate() {
            let number = index + 1;
            if group.params.is_empty() && group.role.is_empty() {
                settings.conflict(
                    &[GROUPS],
                    format!("entry {number} of `groups` says neither `params` nor `role`"),
                    "say what belongs to it: `params = \"*norm*\"` or `role = \"norm\"`",
                );
            }
            if group.lr.is_some() && group.lr_factor.is_some() {
                settings.conflict(
                    &[GROUPS],
                    format!("entry {number} of `groups` has `lr` and `lr_factor`"),
                    "keep one of the two",
                );
            }
            if group.lr.is_some_and(|lr| lr > 0.0) && self.optimizer.lr == 0.0 {
                settings.conflict(
                    &[GROUPS, "optimizer.lr"],
                    format!("entry {number} of `groups` has a learning rate, but the peak of the schedule is 0"),
                    "give [optimizer] an `lr` above 0, and a group that is to stay as it is `lr_factor = 0.0`",
                );
            }
        }
        self.warn_of_muon(settings);
    }

    /// Numbers of Muon do nothing without it.
    fn warn_of_muon(&self, settings: &mut Settings<'_>) {
        let (own, default) = (&self.optimizer, Optimizer::default());
        let names = own.groups.iter().filter_map(|group| group.name).chain([own.name]);
        if names.into_iter().any(|name| name == OptimizerName::Muon) {
            return;
        }
        for (differs, key) in [
            (own.momentum != default.momentum, "momentum"),
            (own.nesterov != default.nesterov, "nesterov"),
            (own.ns_steps != default.ns_steps, "ns_steps"),
            (own.adjust_lr_fn != default.adjust_lr_fn, "adjust_lr_fn"),
        ] {
            if differs {
                let name = own.name.word();
                settings.warn(
                    &[&format!("optimizer.{key}")],
                    &format!("`{key}` has no effect: it is Muon's, and the optimizer is {name}"),
                );
            }
        }
    }
}
