//! Points and weights of Gauss and Legendre on the way from gates of 1 to gates of 0.

/// `(place, weight)` of so many points in (0, 1), the largest place first: the weighted sum of any polynomial of a degree below
/// twice their number is its integral. None lies at an end, where a divergence from the teacher has no derivative.
pub fn gauss_legendre(points: usize) -> Vec<(f64, f64)> {
    let n = points as f64;
    let point = |index: usize| {
        // Newton's method from a first guess that is good for every number of points.
        let mut x = (std::f64::consts::PI * (index as f64 + 0.75) / (n + 0.5)).cos();
        let mut slope = 1.0;
        for _ in 0..100 {
            let (value, derivative) = legendre(points, x);
            slope = derivative;
            let step = value / derivative;
            x -= step;
            if step.abs() < 1e-15 {
                break;
            }
        }
        ((1.0 + x) / 2.0, 1.0 / ((1.0 - x * x) * slope * slope))
    };
    (0..points).map(point).collect()
}

/// The Legendre polynomial of a degree at x, and its derivative there.
fn legendre(degree: usize, x: f64) -> (f64, f64) {
    let (mut before, mut value) = (1.0, x);
    for k in 2..=degree {
        let k = k as f64;
        (before, value) = (value, ((2.0 * k - 1.0) * x * value - (k - 1.0) * before) / k);
    }
    (value, degree as f64 * (x * value - before) / (x * x - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polynomials_are_integrated_exactly() {
        for points in 1..=16 {
            let rule = gauss_legendre(points);
            assert!(rule.is_sorted_by(|a, b| a.0 > b.0) && rule.iter().all(|(x, _)| (0.0..1.0).contains(x)));
            for degree in 0..2 * points {
                let power = i32::try_from(degree).expect("small");
                let sum: f64 = rule.iter().map(|(x, weight)| weight * x.powi(power)).sum();
                let exact = 1.0 / (degree as f64 + 1.0);
                assert!((sum - exact).abs() < 1e-13, "{points} points, degree {degree}: {sum}, not {exact}");
            }
        }
        // A degree above, it no longer is.
        let sum: f64 = gauss_legendre(2).iter().map(|(x, weight)| weight * x.powi(4)).sum();
        assert!((sum - 0.2).abs() > 1e-3);
    }
}
