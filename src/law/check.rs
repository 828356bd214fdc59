//! What the numbers of a law must satisfy, wherever its file came from.

use nalgebra::{DMatrix, SymmetricEigen};

use super::fitted::Law;

/// How far a covariance may be from symmetric, and a correlation's eigenvalue below zero: digits lost in a file.
const ROUNDING: f64 = 1e-6;

impl Law {
    /// Checks that numbers are numbers, fit the skeleton, and that the covariance is one.
    pub(super) fn check(&self) -> Result<(), String> {
        let about =
            |problem: String| Err(format!("the law of {} for {}: {problem}", self.skeleton.target, self.scope()));
        let parameters = self.skeleton.parameter_count();
        if self.coefficients.len() != self.skeleton.terms.len() || self.exponents.len() != self.skeleton.exponents.len()
        {
            return about("it has the wrong number of parameters".to_owned());
        }
        if let Some(c) = self.coefficients.iter().find(|c| !c.value.is_finite() || c.value < 0.0) {
            return about(format!("coefficient {} is {}; expected a number from 0", c.name, c.value));
        }
        if let Some(e) = self.exponents.iter().find(|e| !e.value.is_finite()) {
            return about(format!("exponent {} is {}; expected a number", e.name, e.value));
        }
        let spreads = [("sigma_log", self.sigma_log), ("sigma_model_log", self.sigma_model_log)];
        if let Some((name, value)) = spreads.into_iter().find(|(_, v)| !v.is_finite() || *v < 0.0) {
            return about(format!("{name} is {value}; expected a number from 0"));
        }
        for (kind, scatter) in &self.scatter {
            let (sigma, degrees) = (scatter.sigma_log, scatter.degrees_of_freedom);
            if !sigma.is_finite() || sigma < 0.0 || !degrees.is_finite() || degrees <= 0.0 {
                return about(format!(
                    "the scatter of {kind} is {sigma} with {degrees} degrees of freedom; expected a number from 0, and one above 0"
                ));
            }
        }
        if self.covariance.len() != parameters || self.covariance.iter().any(|row| row.len() != parameters) {
            return about(format!(
                "the covariance is not {parameters} by {parameters}: the wrong number of parameters"
            ));
        }
        match covariance_problem(&self.covariance) {
            Some(problem) => about(problem),
            None => Ok(()),
        }
    }
}

/// Why a square matrix is no covariance.
fn covariance_problem(covariance: &[Vec<f64>]) -> Option<String> {
    let n = covariance.len();
    let entry = |i: usize, j: usize| covariance.get(i).and_then(|row| row.get(j)).copied().unwrap_or(f64::NAN);
    let place = |i: usize, j: usize| format!("row {}, column {} of the covariance", i + 1, j + 1);
    let places = || (0..n).flat_map(|i| (0..n).map(move |j| (i, j)));
    if let Some((i, j)) = places().find(|(i, j)| !entry(*i, *j).is_finite()) {
        return Some(format!("{} is {}; expected a number", place(i, j), entry(i, j)));
    }
    if let Some(i) = (0..n).find(|i| entry(*i, *i) < 0.0) {
        return Some(format!("{} is {}; expected a variance, from 0", place(i, i), entry(i, i)));
    }
    let scale = |i: usize, j: usize| entry(i, i).sqrt() * entry(j, j).sqrt();
    if let Some((i, j)) = places().find(|(i, j)| (entry(*i, *j) - entry(*j, *i)).abs() > ROUNDING * scale(*i, *j)) {
        return Some(format!(
            "{} is {}, and its mirror {}: it is not symmetric",
            place(i, j),
            entry(i, j),
            entry(j, i)
        ));
    }
    let correlation = DMatrix::from_fn(n, n, |i, j| if scale(i, j) > 0.0 { entry(i, j) / scale(i, j) } else { 0.0 });
    if let Some((i, j)) = places().find(|(i, j)| entry(*i, *j).abs() > (1.0 + ROUNDING) * scale(*i, *j)) {
        return Some(format!("{} is more than its variances allow", place(i, j)));
    }
    let least = SymmetricEigen::new(correlation).eigenvalues.min();
    (n > 0 && least < -ROUNDING * n as f64).then(|| {
        format!("the covariance is not positive semi-definite: an eigenvalue of its correlations is {least:.3}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(rows: &[[f64; 3]; 3]) -> String {
        covariance_problem(&rows.map(|r| r.to_vec())).unwrap_or_default()
    }

    #[test]
    fn a_covariance_may_have_held_parameters_and_twenty_decades() {
        assert_eq!(problem(&[[4e-24, 1.8e-13, 0.0], [1.8e-13, 0.01, 0.0], [0.0, 0.0, 0.0]]), "");
    }

    #[test]
    fn what_is_no_covariance_is_named() {
        for (rows, said) in [
            ([[1.0, f64::NAN, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], "row 1, column 2 of the covariance is NaN"),
            ([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]], "row 2, column 2 of the covariance is -1"),
            ([[1.0, 0.5, 0.0], [0.4, 1.0, 0.0], [0.0, 0.0, 1.0]], "not symmetric"),
            ([[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]], "more than its variances allow"),
            ([[1.0, 0.0, 0.0], [0.0, 0.0, 1e-3], [0.0, 1e-3, 1.0]], "more than its variances allow"),
            // Each pair is possible, all three are not: -0.9, -0.9, -0.9 has the eigenvalue 1 - 1.8.
            ([[1.0, -0.9, -0.9], [-0.9, 1.0, -0.9], [-0.9, -0.9, 1.0]], "eigenvalue of its correlations is -0.800"),
        ] {
            assert!(problem(&rows).contains(said), "{:?}: {}", rows, problem(&rows));
        }
    }
}
