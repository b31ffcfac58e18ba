//! How near a run comes to the limits of its machine, and where it loses time: by kernel, by sort of work, and by part of the model.

use std::collections::{BTreeMap, BTreeSet};

use linc_exec::{Profile, ProfileRow};
use linc_plan::{Label, WorkKind};
use serde::Serialize;

use super::machine::{Limit, Machine};

/// The share of its limit that a kernel could be brought to: what few reach, and products do.
pub const GOAL: f64 = 0.85;

/// Launches that are added up.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RooflineRow {
    /// A kernel, a sort of work, or a part of the model.
    pub name: String,
    /// Launches of a run.
    pub launches: f64,
    /// Milliseconds of a run.
    pub ms: f64,
    /// Of all kernels' time.
    pub share: f64,
    /// 10^9 operations per second.
    pub gflops: f64,
    /// Of the peak. More than 1 tells that operations, or the peak, are counted wrong.
    pub of_peak: f64,
    /// 10^9 bytes per second, of those that must move.
    pub gbytes: f64,
    /// Of the fastest copy of such a size; at most 1.
    pub of_copy: f64,
    /// What limits most of its time.
    pub limit: Limit,
    /// Of the limit that each launch comes nearest to.
    pub attained: f64,
    /// Milliseconds of a run above what the limits allow.
    pub lost_ms: f64,
    /// Milliseconds of a run that would be saved if no launch came less near to its limit than [`GOAL`].
    pub saved_ms: f64,
}

/// A profile beside the limits of its machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Roofline {
    /// Milliseconds of all kernels of a run.
    pub ms: f64,
    /// Of their limits.
    pub attained: f64,
    /// Share of the time that would be saved if no launch came less near to its limit than [`GOAL`].
    pub saved: f64,
    /// By kernel, slowest first.
    pub kernels: Vec<RooflineRow>,
    /// By sort of work, most time lost first.
    pub work: Vec<RooflineRow>,
    /// By part of the model, slowest first: blocks with attention by the kind of their layer, other blocks of all layers together.
    pub parts: Vec<RooflineRow>,
}

/// What is known of launches that are added up.
#[derive(Clone, Debug, Default)]
struct Tally {
    row: ProfileRow,
    /// Seconds that bytes take at the speed of a copy.
    copying: f64,
    /// Seconds at the limit that each comes nearest to.
    least: f64,
    saved: f64,
    limits: BTreeMap<Limit, f64>,
}

impl Tally {
    fn add(&mut self, entry: &ProfileRow, machine: &Machine) {
        let shares = machine.shares(entry);
        let seconds = entry.time.as_secs_f64();
        self.row.add(entry);
        self.copying += shares.bytes * seconds;
        self.least += shares.nearest() * seconds;
        self.saved += (seconds - shares.nearest() * seconds / GOAL).max(0.0);
        *self.limits.entry(shares.limit()).or_default() += seconds;
    }

    /// Of so many runs, whose kernels take so many seconds together.
    fn row(self, name: String, runs: f64, total: f64, machine: &Machine) -> RooflineRow {
        let seconds = self.row.time.as_secs_f64();
        let of = |part: f64| part / seconds.max(1e-12);
        let ms = |seconds: f64| 1e3 * seconds / runs;
        let limit =
            self.limits.iter().max_by(|a, b| a.1.total_cmp(b.1)).map_or(Limit::None, |(limit, _)| *limit);
        RooflineRow {
            name,
            launches: self.row.calls as f64 / runs,
            ms: ms(seconds),
            share: seconds / total.max(1e-12),
            gflops: self.row.gflops(),
            of_peak: 1e9 * self.row.gflops() / machine.peak_flops.max(1.0),
            gbytes: self.row.gbytes(),
            of_copy: of(self.copying),
            limit,
            attained: of(self.least),
            lost_ms: ms(seconds - self.least),
            saved_ms: ms(self.saved),
        }
    }
}

impl Roofline {
    /// `layers` has the word for the kind of each layer; `runs` are those that the rows are per: steps of training.
    pub fn of(profile: &Profile, machine: &Machine, layers: &[&str], runs: u64) -> Roofline {
        let runs = runs.max(1) as f64;
        let kind = |label: &Label| label.layer.and_then(|layer| layers.get(layer).copied());
        let with_attention: BTreeSet<(Option<usize>, &str)> = profile
            .entries()
            .filter(|(label, _)| label.attention().is_some())
            .map(|(label, _)| (label.layer, &*label.scope))
            .collect();
        let part = |label: &Label| match kind(label) {
            Some(kind) if with_attention.contains(&(label.layer, &label.scope)) => {
                format!("{kind} attention")
            }
            _ if label.scope.is_empty() => "outside of blocks".to_owned(),
            _ => label.scope.clone(),
        };
        let work = |label: &Label| match (label.work, kind(label)) {
            (WorkKind::Attention(_), Some(kind)) => format!("{kind} {}", label.work.name()),
            (work, _) => work.name().to_owned(),
        };
        let mut all = Tally::default();
        let mut by: [BTreeMap<String, Tally>; 3] = Default::default();
        for (label, entry) in profile.entries() {
            all.add(entry, machine);
            let names = [entry.name.clone(), work(label), part(label)];
            for (by, name) in by.iter_mut().zip(names) {
                by.entry(name).or_default().add(entry, machine);
            }
        }
        let total = profile.total().as_secs_f64();
        let rows = |by: BTreeMap<String, Tally>, order: fn(&RooflineRow) -> f64| {
            let row = |(name, tally): (String, Tally)| tally.row(name, runs, total, machine);
            let mut rows: Vec<RooflineRow> = by.into_iter().map(row).collect();
            rows.sort_by(|a, b| order(b).total_cmp(&order(a)).then_with(|| a.name.cmp(&b.name)));
            rows
        };
        let [kernels, work, parts] = by;
        let all = all.row(String::new(), runs, total, machine);
        Roofline {
            ms: all.ms,
            attained: all.attained,
            saved: all.saved_ms / all.ms.max(1e-12),
            kernels: rows(kernels, |row| row.ms),
            work: rows(work, |row| row.lost_ms),
            parts: rows(parts, |row| row.ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use linc_plan::{Action, AttentionPass, Plan, Ref, Step};

    use super::super::machine::tests::machine;
    use super::*;

    fn step(layer: Option<usize>, scope: &str, work: WorkKind, flops: u64, bytes: u64) -> Step {
        let at = Ref { buffer: 0, offset: 0 };
        let label = Label { layer, scope: scope.into(), op: "o".into(), work };
        Step { action: Action::Copy { from: at, to: at, bytes: 0 }, label, flops, bytes }
    }

    /// A softmax layer and a linear one, a loss and an update: products of a millisecond at their limit take two, attention takes
    /// ten; what moves bytes is at its limit.
    fn profile() -> Profile {
        let attention = WorkKind::Attention(AttentionPass::Forward);
        let steps = vec![
            step(Some(0), "attention", WorkKind::Product, 1_000_000, 0),
            step(Some(0), "attention", attention, 1_000_000, 0),
            step(Some(0), "feed_forward", WorkKind::Product, 1_000_000, 0),
            step(Some(1), "attention", attention, 1_000_000, 0),
            step(Some(1), "feed_forward", WorkKind::Product, 1_000_000, 0),
            step(None, "loss", WorkKind::Loss, 0, 1_000_000),
            step(None, "", WorkKind::Optimizer, 0, 1_000_000),
        ];
        let plan = Plan {
            name: "p".into(),
            persistent_bytes: 0,
            scratch_bytes: 0,
            buffers: vec![],
            kernels: vec![],
            steps,
            bindings: vec![],
            world: linc_plan::World::default(),
        };
        let mut profile = Profile::default();
        for _ in 0..2 {
            profile.add(&plan, &[2, 10, 2, 10, 2, 10, 10].map(Duration::from_millis));
        }
        profile
    }

    #[test]
    fn time_is_added_up_by_part_and_by_work() {
        let roofline = Roofline::of(&profile(), &machine(), &["softmax", "linear"], 2);
        assert!((roofline.ms - 46.0).abs() < 1e-6, "{roofline:?}");
        let parts: Vec<(&str, f64)> = roofline.parts.iter().map(|row| (&*row.name, row.ms.round())).collect();
        let expected = [
            ("softmax attention", 12.0),
            ("linear attention", 10.0),
            ("loss", 10.0),
            ("outside of blocks", 10.0),
            ("feed_forward", 4.0),
        ];
        assert_eq!(parts, [expected[0], expected[1], expected[2], expected[3], expected[4]]);
        let work: Vec<(&str, f64, Limit)> =
            roofline.work.iter().map(|row| (&*row.name, row.lost_ms.round(), row.limit)).collect();
        let lost = [
            ("linear attention forward", 9.0, Limit::None),
            ("softmax attention forward", 9.0, Limit::None),
            ("products", 3.0, Limit::Flops),
            ("loss", 0.0, Limit::Bytes),
            ("optimizer", 0.0, Limit::Bytes),
        ];
        assert_eq!(work, lost);
        assert_eq!(roofline.kernels.len(), 1, "all are copies");
        assert!((roofline.kernels[0].launches - 7.0).abs() < 1e-9);
    }

    #[test]
    fn what_would_be_saved_is_counted_launch_by_launch() {
        let roofline = Roofline::of(&profile(), &machine(), &["softmax", "linear"], 2);
        // Five launches of a millisecond at their limit each; what is at its limit saves nothing, and costs nothing either.
        let saved = 2.0 * (10.0 - 1.0 / GOAL) + 3.0 * (2.0 - 1.0 / GOAL);
        assert!((roofline.saved - saved / 46.0).abs() < 1e-6, "{roofline:?}");
        assert!((roofline.attained - 25.0 / 46.0).abs() < 1e-6, "{roofline:?}");
        let products = roofline.work.iter().find(|row| row.name == "products").expect("products");
        assert!((products.of_peak - 0.5).abs() < 1e-6 && (products.gflops - 0.5).abs() < 1e-6);
        assert!((products.saved_ms - 3.0 * (2.0 - 1.0 / GOAL)).abs() < 1e-6, "{products:?}");
    }
}
