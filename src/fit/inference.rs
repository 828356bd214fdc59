//! How sure the fit is: covariance, intervals, and the verdicts that go with them.
//!
//! At the minimum, with log residuals `r` and `J = d ln f / d parameter`, the covariance is
//! `s^2 (J' W J + prior)^-1`. `s^2` is the mean of `W r^2` over the degrees of freedom left, and over two more rows that
//! scatter as rows usually do. Parameters at a limit are held: they have
//! no standard error, and the upper end of their interval is the value at which they would be seen at 95 %.

use nalgebra::{DMatrix, SymmetricEigen};
use statrs::distribution::{ContinuousCDF, FisherSnedecor};

use super::problem::{Inner, Observation, Problem};
use super::search::Found;
use crate::law::{Coefficient, Exponent, Symbol, Verdict};

/// Probability of the parameter intervals.
const LEVEL: f64 = 0.95;
/// Observations that the expected scatter of rows counts for when theirs is estimated: few rows may agree by luck, and an
/// interval must not believe them.
const EXPECTED_SCATTER_ROWS: f64 = 2.0;
/// A direction of parameter space this much flatter than the steepest is not determined.
const FLAT: f64 = 1e-10;
/// An exponent this near its bound, relative to the box, sits at it.
const AT_BOUND: f64 = 1e-6;
/// Share of the prior's variance that is left when the rows have spoken, from which on they have said too little.
const HELD_BY_PRIOR: f64 = 0.8;
/// Huber weight below which a row counts as an outlier.
const OUTLIER_WEIGHT: f64 = 0.5;

/// Everything that is said about a fit beyond its numbers.
pub(crate) struct Inference {
    pub(crate) coefficients: Vec<Coefficient>,
    pub(crate) exponents: Vec<Exponent>,
    pub(crate) covariance: Vec<Vec<f64>>,
    pub(crate) sigma_log: f64,
    pub(crate) degrees_of_freedom: f64,
    pub(crate) verdicts: Vec<Verdict>,
}

pub(crate) fn infer(problem: &Problem<'_>, found: &Found, inner: &Inner, free: &[usize], lines: &[usize]) -> Inference {
    let skeleton = problem.skeleton;
    let (n, terms) = (problem.rows(), skeleton.terms.len());
    let at_bound = |j: usize| {
        let (spec, a) = (&skeleton.exponents[j], found.exponents[j]);
        let slack = AT_BOUND * (spec.high - spec.low);
        if a <= spec.low + slack {
            Some(spec.low)
        } else if a >= spec.high - slack {
            Some(spec.high)
        } else {
            None
        }
    };
    // Parameters that may move, as columns of the Jacobian; coefficients are taken relative to their value.
    let moving_terms: Vec<usize> = (0..terms).filter(|j| inner.coefficients[*j] > 0.0).collect();
    let acts = |j: usize| (0..n).any(|i| problem.exponent_sensitivity(inner, i, j) != 0.0);
    let moving_exponents: Vec<usize> = free.iter().copied().filter(|j| at_bound(*j).is_none() && acts(*j)).collect();
    let q = moving_terms.len() + moving_exponents.len();
    let jacobian = DMatrix::from_fn(n, q, |i, c| match moving_terms.get(c) {
        Some(j) => inner.coefficients[*j] * inner.design[(i, *j)] / inner.fitted[i],
        None => problem.exponent_sensitivity(inner, i, moving_exponents[c - moving_terms.len()]),
    });
    let weighted = DMatrix::from_fn(n, q, |i, c| inner.weights[i] * jacobian[(i, c)]);
    let data = jacobian.transpose() * weighted;
    let mut information = data.clone();
    for (c, j) in moving_exponents.iter().enumerate() {
        let d = moving_terms.len() + c;
        information[(d, d)] += (problem.sigma / skeleton.exponents[*j].prior_sd).powi(2);
    }
    // A coefficient without a prior of its own is trusted to its own size at best: directions that the rows say nothing
    // of would otherwise add nothing to an interval.
    let carded = |j: usize| problem.coefficient_prior_information(j) > 0.0;
    let prior_information = |j: usize| match problem.coefficient_prior_information(j) {
        information if information > 0.0 => information * inner.coefficients[j] * inner.coefficients[j],
        _ => problem.sigma * problem.sigma,
    };
    for (d, j) in moving_terms.iter().enumerate() {
        information[(d, d)] += prior_information(*j);
    }
    let squares: f64 = inner.residuals.iter().zip(&inner.weights).map(|(r, w)| w * r * r).sum();
    // Parameters that the prior alone holds cost the data no degree of freedom.
    let spare = |inverse: &DMatrix<f64>| (n as f64 - (&data * inverse).trace().clamp(0.0, n as f64)).max(0.0);
    let rough = spare(&pseudo_inverse(&information).0);
    let expected = EXPECTED_SCATTER_ROWS * problem.sigma * problem.sigma;
    let sigma_log = ((squares + expected) / (rough + EXPECTED_SCATTER_ROWS)).sqrt();
    // The priors stand in units of `problem.sigma`, the covariance in units of `sigma_log`.
    let rescale = (sigma_log / problem.sigma).powi(2);
    let information = &data + (&information - &data) * rescale;
    let prior_information = |j: usize| rescale * prior_information(j);
    let (inverse, flat) = pseudo_inverse(&information);
    let degrees_of_freedom = spare(&inverse) + EXPECTED_SCATTER_ROWS;
    let reach = crate::law::quantile(LEVEL, degrees_of_freedom);

    let mut verdicts = Vec::new();
    verdicts.push(match &found.trouble {
        None => Verdict::Converged { agreeing_starts: found.agreeing_starts, starts: found.starts },
        Some(reason) => Verdict::NotConverged { reason: reason.clone() },
    });
    if n < 2 * skeleton.parameter_count() {
        verdicts.push(Verdict::TooFewRows { rows: n, parameters: skeleton.parameter_count() });
    }

    let relative_std = |c: usize| sigma_log * inverse[(c, c)].max(0.0).sqrt();
    let coefficients = skeleton.terms.iter().enumerate().map(|(j, term)| {
        let value = inner.coefficients[j];
        let moving = moving_terms.iter().position(|m| *m == j);
        let (std_error, low, high) = match moving {
            Some(c) if inverse[(c, c)] * prior_information(j) > HELD_BY_PRIOR => {
                let why = if carded(j) {
                    "the rows say little of its size, which comes from the GPU's card"
                } else {
                    "other terms explain these rows as well; vary batch, lengths and parallelism apart"
                };
                let parameters = vec![term.name.clone()];
                verdicts.push(Verdict::Unidentified { parameters, why: why.to_owned() });
                (None, 0.0, Some(value + reach * relative_std(c) * value))
            }
            Some(c) if !flat[c] => {
                let std = relative_std(c) * value;
                if std > value {
                    verdicts.push(Verdict::WeaklyDetermined { parameter: term.name.clone() });
                }
                (Some(std), (value - reach * std).max(0.0), Some(value + reach * std))
            }
            Some(_) => {
                let why =
                    "other terms explain these rows as well; vary batch, lengths and parallelism apart".to_owned();
                verdicts.push(Verdict::Unidentified { parameters: vec![term.name.clone()], why });
                (None, 0.0, None)
            }
            None if problem.term_is_observable(j) => {
                verdicts.push(Verdict::AtLimit { parameters: vec![term.name.clone()], limit: "0".to_owned() });
                // One-sided: the value whose column would stand 95 % clear of the noise.
                let column: f64 =
                    (0..n).map(|i| inner.weights[i] * (inner.design[(i, j)] / inner.fitted[i]).powi(2)).sum();
                (
                    None,
                    0.0,
                    Some(crate::law::quantile(2.0 * LEVEL - 1.0, degrees_of_freedom) * sigma_log / column.sqrt()),
                )
            }
            None => {
                let why = format!("{} is zero on every row; {}", term.title, missing_variation(term));
                verdicts.push(Verdict::Unidentified { parameters: vec![term.name.clone()], why });
                (None, 0.0, None)
            }
        };
        Coefficient { name: term.name.clone(), value, std_error, low, high, unit: term.unit.clone() }
    });
    let coefficients: Vec<_> = coefficients.collect();

    let exponents = skeleton.exponents.iter().enumerate().map(|(j, spec)| {
        let value = found.exponents[j];
        let moving = moving_exponents.iter().position(|m| *m == j).map(|c| c + moving_terms.len());
        let std_error = match moving {
            Some(c) => Some(relative_std(c)),
            None if !free.contains(&j) => {
                let why = format!("the rows never vary {}; held at its prior {}", scaled_by(problem, j), spec.prior);
                verdicts.push(Verdict::Unidentified { parameters: vec![spec.name.clone()], why });
                None
            }
            None if !acts(j) => {
                let why = "every term that it scales came out as zero; held at its prior".to_owned();
                verdicts.push(Verdict::Unidentified { parameters: vec![spec.name.clone()], why });
                None
            }
            None => {
                let limit = at_bound(j).map_or_else(String::new, |l| l.to_string());
                verdicts.push(Verdict::AtLimit { parameters: vec![spec.name.clone()], limit });
                None
            }
        };
        let reach = std_error.map_or(spec.high - spec.low, |s| reach * s);
        Exponent {
            name: spec.name.clone(),
            value,
            std_error,
            low: (value - reach).max(spec.low),
            high: (value + reach).min(spec.high),
        }
    });
    let exponents: Vec<_> = exponents.collect();

    let parameter = |c: usize| match moving_terms.get(c) {
        Some(j) => (*j, inner.coefficients[*j]),
        None => (terms + moving_exponents[c - moving_terms.len()], 1.0),
    };
    let mut covariance = vec![vec![0.0; skeleton.parameter_count()]; skeleton.parameter_count()];
    for a in 0..q {
        for b in 0..q {
            let ((i, scale_i), (j, scale_j)) = (parameter(a), parameter(b));
            covariance[i][j] = sigma_log * sigma_log * inverse[(a, b)] * scale_i * scale_j;
        }
    }
    verdicts.extend(outliers(inner, problem.knee, lines));
    let verdicts = gathered(verdicts);
    Inference { coefficients, exponents, covariance, sigma_log, degrees_of_freedom, verdicts }
}

/// Parameters with the same fate and the same reason share one line.
fn gathered(verdicts: Vec<Verdict>) -> Vec<Verdict> {
    let mut out: Vec<Verdict> = Vec::with_capacity(verdicts.len());
    for verdict in verdicts {
        let joined = out.iter_mut().any(|earlier| match (earlier, &verdict) {
            (Verdict::AtLimit { parameters, limit }, Verdict::AtLimit { parameters: more, limit: other })
            | (
                Verdict::Unidentified { parameters, why: limit },
                Verdict::Unidentified { parameters: more, why: other },
            ) if limit == other => {
                parameters.extend(more.iter().cloned());
                true
            }
            _ => false,
        });
        if !joined {
            out.push(verdict);
        }
    }
    out
}

/// Inverse over the directions that the data determines, and which parameters lean on an undetermined one.
fn pseudo_inverse(information: &DMatrix<f64>) -> (DMatrix<f64>, Vec<bool>) {
    let q = information.nrows();
    if q == 0 {
        return (DMatrix::zeros(0, 0), Vec::new());
    }
    let eigen = SymmetricEigen::new(information.clone());
    let largest = eigen.eigenvalues.iter().copied().fold(0.0, f64::max);
    let mut inverse = DMatrix::zeros(q, q);
    let mut flat = vec![false; q];
    for (value, vector) in eigen.eigenvalues.iter().zip(eigen.eigenvectors.column_iter()) {
        if *value > FLAT * largest {
            inverse += vector * vector.transpose() / *value;
        } else {
            flat.iter_mut().zip(vector.iter()).for_each(|(f, v)| *f |= v.abs() > 0.1);
        }
    }
    (inverse, flat)
}

fn scaled_by(problem: &Problem<'_>, exponent: usize) -> &'static str {
    let name = &problem.skeleton.exponents[exponent].name;
    let tensor = problem.skeleton.terms.iter().any(|t| t.scaling.get("t") == Some(name));
    if tensor { "tensor_parallel where its terms matter" } else { "pipeline_parallel where its terms matter" }
}

fn missing_variation(term: &crate::law::Term) -> &'static str {
    let uses = |s: Symbol| term.product.iter().any(|f| f.symbol == s);
    if uses(Symbol::TensorParallelLessOne) {
        "measure some rows with tensor_parallel above 1"
    } else if uses(Symbol::PipelineParallelLessOne) {
        "measure some rows with pipeline_parallel above 1"
    } else if uses(Symbol::KvBytes) {
        "the model keeps no KV cache"
    } else {
        "measure rows in which it takes part"
    }
}

fn outliers(inner: &Inner, knee: f64, lines: &[usize]) -> Option<Verdict> {
    let mut far: Vec<(f64, usize)> = inner
        .residuals
        .iter()
        .zip(lines)
        .filter(|(r, _)| r.abs() * OUTLIER_WEIGHT > knee)
        .map(|(r, line)| (r.abs(), *line))
        .collect();
    far.sort_by(|a, b| b.0.total_cmp(&a.0));
    (!far.is_empty())
        .then(|| Verdict::Outliers { count: far.len(), lines: far.iter().take(5).map(|(_, line)| *line).collect() })
}

/// Whether residuals bend or lean along a variable that the law already knows: a quadratic in its log explains more than
/// a fifth of their variance, and would do so by chance less than once in a thousand.
pub(crate) fn residual_structure(observations: &[Observation], residuals: &[f64]) -> Vec<Verdict> {
    let symbols = [
        Symbol::Batch,
        Symbol::Input,
        Symbol::Output,
        Symbol::TensorParallel,
        Symbol::PipelineParallel,
        Symbol::ActiveParams,
        Symbol::Waves,
    ];
    let n = residuals.len();
    let names = [
        "batch_size",
        "input_tokens",
        "output_tokens",
        "tensor_parallel",
        "pipeline_parallel",
        "active_params",
        "waves",
    ];
    let bends = |symbol: Symbol| -> Option<bool> {
        let x: Vec<f64> = observations.iter().map(|o| o.case.value(symbol).max(1e-9).ln()).collect();
        let mean = x.iter().sum::<f64>() / n as f64;
        let spread = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
        if n < 20 || spread < 1e-9 {
            return None;
        }
        let basis = DMatrix::from_fn(n, 3, |i, c| ((x[i] - mean) / (spread / n as f64).sqrt()).powi(c as i32));
        let y = nalgebra::DVector::from_column_slice(residuals);
        let solution = basis.clone().svd(true, true).solve(&y, 1e-9).ok()?;
        let mean_y = y.mean();
        let total: f64 = y.iter().map(|v| (v - mean_y).powi(2)).sum();
        let left = (&y - basis * solution).norm_squared();
        let (df1, df2) = (2.0, n as f64 - 3.0);
        let f = ((total - left) / df1) / (left / df2).max(1e-300);
        let p = FisherSnedecor::new(df1, df2).ok()?.sf(f.max(0.0));
        Some(total > 0.0 && 1.0 - left / total > 0.2 && p < 1e-3)
    };
    symbols
        .into_iter()
        .zip(names)
        .filter(|(s, _)| bends(*s).unwrap_or(false))
        .map(|(_, name)| Verdict::ResidualStructure { along: name.to_owned() })
        .collect()
}
