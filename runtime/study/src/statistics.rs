//! Means with intervals.

use serde::Serialize;

/// 97.5 % quantiles of Student's t for 1 to 30 degrees of freedom (Abramowitz and Stegun 1964, table 26.10).
const STUDENT: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];
/// The same of the normal distribution, to which Student's comes within 4 % by then.
const NORMAL: f64 = 1.96;

/// The mean of independent values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Mean {
    /// How many values.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// Half the width of the 95 % interval of the mean by Student's t; nothing of a single value.
    pub half_width: Option<f64>,
}

impl Mean {
    /// The mean of values, if there are any.
    pub fn of(values: &[f64]) -> Option<Mean> {
        let count = values.len();
        if count == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / count as f64;
        let half_width = (count > 1).then(|| {
            let variance =
                values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1) as f64;
            student(count - 1) * (variance / count as f64).sqrt()
        });
        Some(Mean { count, mean, half_width })
    }
}

/// The middle of values, if there are any.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[half]),
        _ => Some(0.5 * (sorted[half - 1] + sorted[half])),
    }
}

/// The power with which something grows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Power {
    /// Twice x is as many times y as 2 to the power of this.
    pub exponent: f64,
    /// Half the width of its 95 % interval by Student's t; nothing of two places, through which a line goes as it is.
    pub half_width: Option<f64>,
}

/// The power with which y grows with x: the slope of the least-squares line through the logarithms. Nothing of fewer than two
/// places, or of numbers that have no logarithm.
pub fn log_log_slope(pairs: &[(f64, f64)]) -> Option<Power> {
    let logs: Vec<(f64, f64)> =
        pairs.iter().filter(|(x, y)| *x > 0.0 && *y > 0.0).map(|(x, y)| (x.ln(), y.ln())).collect();
    let count = logs.len() as f64;
    let (x, y) = logs.iter().fold((0.0, 0.0), |(x, y), log| (x + log.0 / count, y + log.1 / count));
    let spread: f64 = logs.iter().map(|log| (log.0 - x).powi(2)).sum();
    let both: f64 = logs.iter().map(|log| (log.0 - x) * (log.1 - y)).sum();
    if logs.len() != pairs.len() || spread <= 0.0 {
        return None;
    }
    let exponent = both / spread;
    let half_width = logs.len().checked_sub(2).filter(|freedom| *freedom > 0).map(|freedom| {
        let rest: f64 = logs.iter().map(|log| (log.1 - y - exponent * (log.0 - x)).powi(2)).sum();
        student(freedom) * (rest / freedom as f64 / spread).sqrt()
    });
    Some(Power { exponent, half_width })
}

/// The 97.5 % quantile of Student's t, of at least one degree of freedom.
fn student(freedom: usize) -> f64 {
    STUDENT.get(freedom.saturating_sub(1)).copied().unwrap_or(NORMAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_students() {
        assert_eq!(Mean::of(&[]), None);
        assert_eq!(Mean::of(&[2.0]), Some(Mean { count: 1, mean: 2.0, half_width: None }));
        // Two values: t = 12.706, s = √2, divided by √2.
        let two = Mean::of(&[1.0, 3.0]).expect("two values");
        assert_eq!(two.mean, 2.0);
        assert!((two.half_width.expect("an interval") - 12.706).abs() < 1e-9);
        let many: Vec<f64> = (0..100).map(f64::from).collect();
        let many = Mean::of(&many).expect("a hundred values");
        // s of 0..99 is 29.011491975882016.
        assert!((many.half_width.expect("an interval") - 1.96 * 2.901149197588202).abs() < 1e-9);
    }

    #[test]
    fn powers_are_found_again() {
        let square: Vec<(f64, f64)> = [1.0, 2.0, 4.0, 8.0].map(|x: f64| (x, 3.0 * x.powi(2))).to_vec();
        let power = log_log_slope(&square).expect("a power");
        assert!((power.exponent - 2.0).abs() < 1e-12 && power.half_width.is_some_and(|half| half < 1e-12));
        // Logarithms 0, 1, 2 of x and 0, 1.5, 2 of y: a slope of 1, residuals -1/6, 1/3, -1/6, and t = 12.706.
        let e = 1_f64.exp();
        let bent = log_log_slope(&[(1.0, 1.0), (e, e.powf(1.5)), (e * e, e * e)]).expect("a power");
        assert!((bent.exponent - 1.0).abs() < 1e-12);
        let expected = 12.706 * (1.0_f64 / 6.0 / 2.0).sqrt();
        assert!((bent.half_width.expect("an interval") - expected).abs() < 1e-9, "{bent:?}");
        let two = log_log_slope(&[(1.0, 1.0), (2.0, 8.0)]).expect("a power");
        assert!((two.exponent - 3.0).abs() < 1e-12 && two.half_width.is_none());
        assert_eq!(log_log_slope(&[(1.0, 2.0)]), None);
        assert_eq!(log_log_slope(&[(1.0, 2.0), (2.0, 0.0)]), None);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
