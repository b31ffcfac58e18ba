//! The effective rank of a matrix.

/// Sweeps over all pairs of rows, at most: a handful is enough.
const SWEEPS: usize = 30;
/// Two rows are orthogonal when their product is this small a share of their lengths.
const SMALL: f64 = 1e-9;

/// Exponential of the entropy of the singular values' shares (Roy and Vetterli 2007), of rows of `width` numbers each. 1 of rows
/// that are multiples of one, their number where they are orthogonal and as long.
pub(super) fn effective_rank(rows: &[f64], width: usize) -> f64 {
    let values = singular_values(rows, width);
    let total: f64 = values.iter().sum();
    if total <= 0.0 {
        return 0.0;
    }
    let entropy: f64 =
        values.iter().map(|value| value / total).filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum();
    entropy.exp()
}

/// Square roots of the eigenvalues of the matrix of products of all rows, by Jacobi's rotations: it is small, however wide the rows
/// are.
fn singular_values(rows: &[f64], width: usize) -> Vec<f64> {
    let rows: Vec<&[f64]> = rows.chunks_exact(width.max(1)).collect();
    let m = rows.len();
    let mut a = vec![0.0; m * m];
    for i in 0..m {
        for j in 0..=i {
            let product: f64 = rows[i].iter().zip(rows[j]).map(|(x, y)| x * y).sum();
            (a[i * m + j], a[j * m + i]) = (product, product);
        }
    }
    for _ in 0..SWEEPS {
        let mut rotated = false;
        for p in 0..m {
            for q in p + 1..m {
                let (app, aqq, apq) = (a[p * m + p], a[q * m + q], a[p * m + q]);
                if apq.abs() <= SMALL * (app * aqq).abs().sqrt() + f64::MIN_POSITIVE {
                    continue;
                }
                rotated = true;
                let theta = (aqq - app) / (2.0 * apq);
                let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
                let t = if theta == 0.0 { 1.0 } else { t };
                let c = 1.0 / (t * t + 1.0).sqrt();
                let s = t * c;
                for k in 0..m {
                    let (x, y) = (a[k * m + p], a[k * m + q]);
                    (a[k * m + p], a[k * m + q]) = (c * x - s * y, s * x + c * y);
                }
                for k in 0..m {
                    let (x, y) = (a[p * m + k], a[q * m + k]);
                    (a[p * m + k], a[q * m + k]) = (c * x - s * y, s * x + c * y);
                }
            }
        }
        if !rotated {
            break;
        }
    }
    // What is less than the rounding of the largest is nothing.
    let largest = (0..m).map(|i| a[i * m + i]).fold(0.0, f64::max);
    (0..m)
        .map(|i| a[i * m + i])
        .map(|value| if value > 1e-14 * largest { value.sqrt() } else { 0.0 })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_that_are_known() {
        let close = |x: f64, y: f64| assert!((x - y).abs() < 1e-6, "{x} {y}");
        close(effective_rank(&[], 3), 0.0);
        close(effective_rank(&[1.0, 2.0, 2.0, 4.0, -1.0, -2.0], 2), 1.0);
        close(effective_rank(&[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0], 3), 3.0);
        // Singular values 3 and 1, turned.
        let (c, s) = (0.6, 0.8);
        let rows = [3.0 * c * c + s * s, 2.0 * c * s, 2.0 * c * s, 3.0 * s * s + c * c];
        let entropy = -(0.75_f64 * 0.75_f64.ln() + 0.25 * 0.25_f64.ln());
        close(effective_rank(&rows, 2), entropy.exp());
    }

    #[test]
    fn a_product_through_few_features_has_no_larger_rank() {
        let mut state = 1_u64;
        let mut draw = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as f64 / (1_u64 << 31) as f64
        };
        let (m, d, n) = (40, 3, 60);
        let left: Vec<f64> = (0..m * d).map(|_| draw()).collect();
        let right: Vec<f64> = (0..d * n).map(|_| draw()).collect();
        let rows: Vec<f64> = (0..m)
            .flat_map(|i| {
                let (left, right) = (&left, &right);
                (0..n).map(move |j| (0..d).map(|k| left[i * d + k] * right[k * n + j]).sum())
            })
            .collect();
        let rank = effective_rank(&rows, n);
        assert!(rank > 1.0 && rank <= 3.0 + 1e-3, "{rank}");
    }
}
