//! Non-negative least squares on a small Gram matrix (Lawson and Hanson 1974, in the normal-equation form of Bro and De
//! Jong 1997).
//!
//! The `nnls` crate solves one dense problem; here thousands of 8 x 8 problems per fit differ by a few per cent, so the
//! Gram matrix is built once by the caller, columns are scaled to unit norm, and the active set is warm-started.

use nalgebra::{DMatrix, DVector};

/// Added to the unit diagonal: columns that agree to six digits share their coefficient instead of cancelling.
const RIDGE: f64 = 1e-11;

/// Solves `min |A x - b|^2, x >= 0` given `gram = A'A` and `rhs = A'b`; `start` names the columns to begin with as
/// positive. Columns of zero norm get 0.
pub(super) fn nnls(gram: &DMatrix<f64>, rhs: &DVector<f64>, start: &[bool]) -> DVector<f64> {
    let n = rhs.len();
    let scale: Vec<f64> = (0..n).map(|j| gram[(j, j)].max(0.0).sqrt()).collect();
    let usable: Vec<bool> = scale.iter().map(|s| *s > 0.0 && s.is_finite()).collect();
    let g = |i: usize, j: usize| gram[(i, j)] / (scale[i] * scale[j]) + if i == j { RIDGE } else { 0.0 };
    let b = |i: usize| rhs[i] / scale[i];
    let tolerance = 1e-13 * (0..n).filter(|i| usable[*i]).map(|i| b(i).abs()).fold(1e-300, f64::max);

    let mut x = DVector::<f64>::zeros(n);
    let mut passive: Vec<usize> = (0..n).filter(|j| usable[*j] && start.get(*j).copied().unwrap_or(false)).collect();
    // Every pass either adds a column or drops at least one on the way to a strictly lower objective.
    for round in 0..6 * n.max(1) {
        if round > 0 || passive.is_empty() {
            let gradient = |j: usize| b(j) - (0..n).filter(|i| usable[*i]).map(|i| g(j, i) * x[i]).sum::<f64>();
            let candidate = (0..n)
                .filter(|j| usable[*j] && !passive.contains(j))
                .map(|j| (j, gradient(j)))
                .max_by(|a, b| a.1.total_cmp(&b.1));
            match candidate {
                Some((j, w)) if w > tolerance => passive.push(j),
                _ => break,
            }
        }
        loop {
            let Some(solution) = solve(&passive, &g, &b) else {
                passive.pop();
                break;
            };
            let blocked = passive.iter().zip(&solution).filter(|(_, s)| **s <= 0.0);
            let step = blocked.map(|(j, s)| x[*j] / (x[*j] - s)).filter(|a| a.is_finite()).fold(1.0_f64, f64::min);
            if solution.iter().all(|s| *s > 0.0) {
                x.fill(0.0);
                passive.iter().zip(&solution).for_each(|(j, s)| x[*j] = *s);
                break;
            }
            for (j, s) in passive.iter().zip(&solution) {
                x[*j] += step.clamp(0.0, 1.0) * (s - x[*j]);
            }
            let before = passive.len();
            let keep: Vec<usize> =
                passive.iter().zip(&solution).filter(|(j, s)| x[**j] > 1e-14 || **s > 0.0).map(|(j, _)| *j).collect();
            passive =
                if keep.len() < before { keep } else { passive.iter().copied().filter(|j| x[*j] > 1e-14).collect() };
            (0..n).filter(|j| !passive.contains(j)).for_each(|j| x[j] = 0.0);
            if passive.is_empty() {
                break;
            }
        }
    }
    DVector::from_fn(n, |j, _| if usable[j] { x[j] / scale[j] } else { 0.0 })
}

fn solve(columns: &[usize], g: &dyn Fn(usize, usize) -> f64, b: &dyn Fn(usize) -> f64) -> Option<Vec<f64>> {
    let k = columns.len();
    let matrix = DMatrix::from_fn(k, k, |i, j| g(columns[i], columns[j]));
    let rhs = DVector::from_fn(k, |i, _| b(columns[i]));
    matrix.cholesky().map(|c| c.solve(&rhs).iter().copied().collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gram(a: &DMatrix<f64>, b: &DVector<f64>) -> (DMatrix<f64>, DVector<f64>) {
        (a.transpose() * a, a.transpose() * b)
    }

    #[test]
    fn a_positive_solution_is_the_ordinary_one() {
        let a = DMatrix::from_row_slice(3, 2, &[1.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
        let (g, r) = gram(&a, &DVector::from_vec(vec![1.0, 2.0, 3.0]));
        let x = nnls(&g, &r, &[]);
        assert!((x[0] - 1.0).abs() < 1e-9 && (x[1] - 2.0).abs() < 1e-9, "{x}");
    }

    #[test]
    fn a_negative_coefficient_becomes_zero_and_the_rest_is_refitted() {
        // Unconstrained: x = (2, -1). With x1 = 0 the best x0 is a'b/a'a of the first column.
        let a = DMatrix::from_row_slice(2, 2, &[1.0, 1.0, 1.0, 2.0]);
        let (g, r) = gram(&a, &DVector::from_vec(vec![1.0, 0.0]));
        let x = nnls(&g, &r, &[true, true]);
        assert!((x[0] - 0.5).abs() < 1e-9 && x[1] == 0.0, "{x}");
    }

    proptest! {
        #[test]
        fn the_solution_meets_the_optimality_conditions(
            values in proptest::collection::vec(0.0f64..1.0, 20 * 6), b in proptest::collection::vec(-1.0f64..1.0, 20),
            start in proptest::collection::vec(any::<bool>(), 6),
        ) {
            // Columns that span twelve decades, as terms of a law do before scaling.
            let a = DMatrix::from_fn(20, 6, |i, j| values[i * 6 + j] * 10f64.powi(2 * j as i32));
            let b = DVector::from_vec(b);
            let (g, r) = gram(&a, &b);
            let x = nnls(&g, &r, &start);
            let gradient = &r - &g * &x;
            for j in 0..6 {
                let unit = g[(j, j)].sqrt();
                prop_assert!(x[j] >= 0.0);
                if x[j] > 0.0 {
                    prop_assert!(gradient[j].abs() / unit < 1e-6, "column {} is not stationary: {}", j, gradient[j] / unit);
                } else {
                    prop_assert!(gradient[j] / unit < 1e-6, "column {} should enter: {}", j, gradient[j] / unit);
                }
            }
        }
    }
}
