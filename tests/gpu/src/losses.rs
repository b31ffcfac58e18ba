//! Losses of two trainings of one model, step by step, from their `metrics.jsonl`.

use std::collections::BTreeMap;

use serde_json::Value;

/// How far apart they are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Steps that both have.
    pub steps: usize,
    /// Largest difference of a loss.
    pub worst: f64,
    /// The step of the largest difference.
    pub at: u64,
    /// Mean of the differences' absolute values.
    pub mean: f64,
    /// By how much the first run's loss falls, from its first to its last step.
    pub learned: f64,
}

/// Reads the losses of training steps; records without one (validations) are passed over.
///
/// # Errors
/// The line that is not JSON, or that there is no loss.
pub fn read(text: &str) -> Result<BTreeMap<u64, f64>, String> {
    let mut losses = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let record: Value = serde_json::from_str(line).map_err(|e| format!("line {}: {e}", number + 1))?;
        if let (Some(step), Some(loss)) = (record["step"].as_u64(), record["loss"].as_f64()) {
            losses.insert(step, loss);
        }
    }
    if losses.is_empty() { Err("there is no loss in it".into()) } else { Ok(losses) }
}

/// Compares two runs.
///
/// # Errors
/// They have different steps, or a loss is not a number.
pub fn compare(a: &BTreeMap<u64, f64>, b: &BTreeMap<u64, f64>) -> Result<Comparison, String> {
    if !a.keys().eq(b.keys()) {
        let last = |losses: &BTreeMap<u64, f64>| losses.keys().last().copied().unwrap_or(0);
        let (n, m) = (a.len(), b.len());
        return Err(format!("{n} losses up to step {} beside {m} up to step {}", last(a), last(b)));
    }
    let (mut worst, mut at, mut sum) = (-1.0, 0, 0.0);
    for ((step, x), y) in a.iter().zip(b.values()) {
        let difference = (x - y).abs();
        if !difference.is_finite() {
            return Err(format!("step {step}: the losses are {x} and {y}"));
        }
        sum += difference;
        if difference > worst {
            (worst, at) = (difference, *step);
        }
    }
    let ends = a.values().next().zip(a.values().last());
    let learned = ends.map_or(0.0, |(first, last)| first - last);
    Ok(Comparison { steps: a.len(), worst, at, mean: sum / a.len().max(1) as f64, learned })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_read_and_compared() {
        let a = read(
            "{\"step\":1,\"loss\":3.0}\n{\"step\":2,\"validation_loss\":1.0}\n{\"step\":2,\"loss\":2.0}\n",
        );
        let b = read("{\"step\":1,\"loss\":3.0}\n{\"step\":2,\"loss\":2.5}\n");
        let found = compare(&a.expect("losses"), &b.clone().expect("losses")).expect("comparable");
        assert_eq!(found, Comparison { steps: 2, worst: 0.5, at: 2, mean: 0.25, learned: 1.0 });
        let c = read("{\"step\":1,\"loss\":3.0}\n").expect("losses");
        assert!(compare(&b.expect("losses"), &c).expect_err("other steps").contains("step 2"));
        assert!(read("{\"step\":1}\n").is_err() && read("{\"st").expect_err("no JSON").contains("line 1"));
        let nan = BTreeMap::from([(1, f64::NAN)]);
        assert!(compare(&c, &nan).expect_err("not a number").contains("NaN"));
    }
}
