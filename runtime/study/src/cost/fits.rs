//! How times and bytes grow with the length, and where linear layers begin to win.

use linc_bench::{CostReport, CostRow, Work};
use serde::Serialize;

use super::{measured, ratios};
use crate::statistics::{Power, log_log_slope};

/// Lengths that an exponent is taken of, at least: the longest ones, since at short ones other work takes the time.
const LEAST: usize = 3;

/// What grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// The whole time of a run.
    Time,
    /// The time of attention alone.
    AttentionTime,
    /// Memory of a step but for what does not grow: parameters, their gradients and the optimizer's state.
    Memory,
    /// Caches and states of a sequence.
    Kept,
}

impl Quantity {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Quantity::Time => "time",
            Quantity::AttentionTime => "attention time",
            Quantity::Memory => "memory that grows",
            Quantity::Kept => "cache and states",
        }
    }

    /// The quantity of a point, if it has it.
    fn of(self, row: &CostRow) -> Option<f64> {
        let bytes =
            |names: &[&str]| names.iter().filter_map(|name| row.memory.get(*name)).sum::<u64>() as f64;
        match self {
            Quantity::Time => row.ms.map(|ms| ms.median),
            Quantity::AttentionTime => row.attention_ms,
            Quantity::Memory => Some(
                row.memory.values().sum::<u64>() as f64
                    - bytes(&["parameters", "gradients", "optimizer_state"]),
            ),
            Quantity::Kept => Some((row.cache_bytes + row.state_bytes) as f64),
        }
    }

    /// The same as the plan counts it: operations in place of times.
    fn of_plan(self, row: &CostRow) -> Option<f64> {
        match self {
            Quantity::Time => Some(row.flops as f64),
            Quantity::AttentionTime => Some(row.attention_flops as f64),
            Quantity::Memory | Quantity::Kept => None,
        }
    }

    /// The exponent of theory for long sequences, where all layers have one: softmax attention compares each token with all
    /// before it, linear attention with a state that does not grow; neither keeps the weights.
    fn theory(self, work: Work, ratio: f64) -> Option<f64> {
        let of_kind = |softmax: f64, linear: f64| match ratio {
            0.0 => Some(softmax),
            1.0 => Some(linear),
            _ => None,
        };
        match (self, work) {
            (Quantity::Time, _) => None,
            (Quantity::AttentionTime, Work::Training | Work::Prefill) => of_kind(2.0, 1.0),
            (Quantity::AttentionTime, Work::Decode) | (Quantity::Kept, _) => of_kind(1.0, 0.0),
            (Quantity::Memory, _) => Some(1.0),
        }
    }
}

/// What grows in each work.
const FITTED: [(Work, Quantity); 8] = [
    (Work::Training, Quantity::AttentionTime),
    (Work::Training, Quantity::Time),
    (Work::Training, Quantity::Memory),
    (Work::Prefill, Quantity::AttentionTime),
    (Work::Prefill, Quantity::Time),
    (Work::Decode, Quantity::AttentionTime),
    (Work::Decode, Quantity::Time),
    (Work::Decode, Quantity::Kept),
];

/// An exponent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Fit {
    /// Training, prompts, or tokens behind them.
    pub work: Work,
    /// What grows.
    pub quantity: Quantity,
    /// Share of linear layers.
    pub ratio: f64,
    /// As it was measured; bytes are those of the plan.
    #[serde(flatten)]
    pub power: Power,
    /// The same of the plan's operations at the same lengths.
    pub plan: Option<f64>,
    /// For long sequences, where all layers are of one kind.
    pub theory: Option<f64>,
    /// The shortest of the lengths.
    pub from: usize,
    /// The longest.
    pub to: usize,
    /// How many.
    pub points: usize,
}

/// The exponents of a measurement, over the longer half of the lengths of each.
pub fn fits(report: &CostReport) -> Vec<Fit> {
    let mut found = vec![];
    for (work, quantity) in FITTED {
        for ratio in ratios(report) {
            let rows = measured(report, work, ratio);
            let taken = rows.len().div_ceil(2).max(LEAST).min(rows.len());
            let rows = &rows[rows.len() - taken..];
            let pairs = |of: &dyn Fn(&CostRow) -> Option<f64>| -> Option<Vec<(f64, f64)>> {
                rows.iter().map(|row| Some((row.length as f64, of(row)?))).collect()
            };
            let power = pairs(&|row| quantity.of(row)).and_then(|pairs| log_log_slope(&pairs));
            let (Some(power), Some(first), Some(last)) = (power, rows.first(), rows.last()) else { continue };
            let plan = pairs(&|row| quantity.of_plan(row)).and_then(|pairs| log_log_slope(&pairs));
            found.push(Fit {
                work,
                quantity,
                ratio,
                power,
                plan: plan.map(|power| power.exponent),
                theory: quantity.theory(work, ratio),
                from: first.length,
                to: last.length,
                points: rows.len(),
            });
        }
    }
    found
}

/// From where on a ratio is faster than the least one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "wins")]
pub enum Wins {
    /// At all lengths that both were measured at.
    Always {
        /// The shortest.
        from: usize,
    },
    /// From here on, between two lengths that were measured, by the line through the logarithms.
    From {
        /// Tokens.
        length: f64,
    },
    /// At no length up to this.
    Not {
        /// The longest.
        up_to: usize,
    },
}

/// Where a ratio begins to win.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Crossover {
    /// Training, prompts, or tokens behind them.
    pub work: Work,
    /// Share of linear layers.
    pub ratio: f64,
    /// The share that it is compared with.
    pub than: f64,
    /// From where on.
    #[serde(flatten)]
    pub wins: Wins,
}

/// Where each ratio begins to be faster than the least one that was measured, for good.
pub fn crossovers(report: &CostReport) -> Vec<Crossover> {
    let all = ratios(report);
    let Some((than, others)) = all.split_first() else { return vec![] };
    let mut found = vec![];
    for work in Work::ALL {
        let base = measured(report, work, *than);
        for ratio in others {
            let gains: Vec<(usize, f64)> = measured(report, work, *ratio)
                .into_iter()
                .filter_map(|row| {
                    let other = base.iter().find(|other| other.length == row.length)?;
                    Some((row.length, (other.ms?.median / row.ms?.median).ln()))
                })
                .collect();
            found.extend(wins(&gains).map(|wins| Crossover { work, ratio: *ratio, than: *than, wins }));
        }
    }
    found
}

/// From where on logarithms of gains are above 0.
fn wins(gains: &[(usize, f64)]) -> Option<Wins> {
    let (first, last) = (gains.first()?, gains.last()?);
    match gains.iter().rposition(|(_, gain)| *gain <= 0.0) {
        None => Some(Wins::Always { from: first.0 }),
        Some(at) if at + 1 == gains.len() => Some(Wins::Not { up_to: last.0 }),
        Some(at) => {
            let ((n, low), (m, high)) = (gains[at], gains[at + 1]);
            let share = -low / (high - low);
            let length = ((n as f64).ln() + share * ((m as f64) / (n as f64)).ln()).exp();
            Some(Wins::From { length })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crossover_is_where_it_wins_for_good() {
        assert_eq!(wins(&[]), None);
        assert_eq!(wins(&[(512, 0.1), (1024, 0.2)]), Some(Wins::Always { from: 512 }));
        assert_eq!(wins(&[(512, 0.1), (1024, -0.2)]), Some(Wins::Not { up_to: 1024 }));
        let Some(Wins::From { length }) = wins(&[(512, 0.1), (1024, -0.1), (4096, 0.1), (8192, 0.3)]) else {
            panic!("it wins from somewhere on");
        };
        assert!((length - 2048.0).abs() < 1e-6, "{length}");
    }
}
