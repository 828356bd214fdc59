//! How sure the fit is: covariance, intervals, and the verdicts that go with them.
//!
//! At the minimum, with log residuals `r` and `J = d ln f / d parameter`, the covariance is
//! `s^2 (J' W J + prior)^-1`. `s^2` is the mean square of the residuals of rows left out of refits (`left_out`), and of two
//! more rows that scatter as rows usually do; without refits, the mean of `W r^2` over the degrees of freedom left. Repeats
//! that err alike count as fewer rows ([`independence`]). Parameters at a limit are held: they have no standard error, and
//! the upper end of their interval is the value at which they would be seen at 95 %.

use std::collections::BTreeMap;

use nalgebra::{DMatrix, SymmetricEigen};
use statrs::distribution::{ContinuousCDF, FisherSnedecor};

use super::left_out::{EXPECTED_ROWS, Full, LeftOut};
use super::problem::{Inner, Observation, Problem, SIGMA0};
use super::search::Found;
use crate::law::{Coefficient, Exponent, RowKind, Scatter, Symbol, Target, Verdict};

/// Probability of the parameter intervals.
pub(crate) const LEVEL: f64 = 0.95;
/// A direction of parameter space this much flatter than the steepest is not determined.
const FLAT: f64 = 1e-10;
/// An exponent this near its bound, relative to the box, sits at it.
const AT_BOUND: f64 = 1e-6;
/// Share of the prior's variance that is left when the rows have spoken, from which on they have said too little.
const HELD_BY_PRIOR: f64 = 0.8;
/// Rows that correct a law of another platform.
const CORRECTING_ROWS: usize = 10;
/// Repeats beyond the first of their configuration from which on it can be told what repeats share.
const REPEATS_NEEDED: f64 = 3.0;
/// Huber weight below which a row counts as an outlier.
const OUTLIER_WEIGHT: f64 = 0.5;

/// Everything that is said about a fit beyond its numbers.
pub(crate) struct Inference {
    pub(crate) coefficients: Vec<Coefficient>,
    pub(crate) exponents: Vec<Exponent>,
    pub(crate) covariance: Vec<Vec<f64>>,
    pub(crate) sigma_log: f64,
    pub(crate) scatter: BTreeMap<RowKind, Scatter>,
    pub(crate) degrees_of_freedom: f64,
    pub(crate) verdicts: Vec<Verdict>,
    /// How much of a row of its own each row is.
    pub(crate) independence: Vec<f64>,
}

pub(crate) fn infer(
    problem: &Problem<'_>,
    found: &Found,
    inner: &Inner,
    free: &[usize],
    lines: &[usize],
    left_out: Option<&LeftOut>,
) -> Inference {
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
    let independence = independence(problem, inner, q);
    let weights: Vec<f64> = inner.weights.iter().zip(&independence).map(|(w, g)| w * g).collect();
    let weighted = DMatrix::from_fn(n, q, |i, c| weights[i] * jacobian[(i, c)]);
    let data = jacobian.transpose() * weighted;
    // Moving parameters as the belief counts them, with the value to which they are relative.
    let parameter = |c: usize| match moving_terms.get(c) {
        Some(j) => (*j, inner.coefficients[*j]),
        None => (terms + moving_exponents[c - moving_terms.len()], 1.0),
    };
    let carded = |j: usize| problem.belief.knows_coefficient(j);
    let prior = DMatrix::from_fn(q, q, |a, b| {
        let ((i, value_i), (j, value_j)) = (parameter(a), parameter(b));
        // A coefficient without a prior of its own is trusted to its own size at best: directions that the rows say
        // nothing of would otherwise add nothing to an interval.
        if a == b && i < terms && !carded(i) { 1.0 } else { problem.belief.precision(i, j, (value_i, value_j)) }
    });
    let information = &data + &prior * problem.sigma.powi(2);
    let squares: f64 = inner.residuals.iter().zip(&weights).map(|(r, w)| w * r * r).sum();
    let rows: f64 = independence.iter().sum();
    // Parameters that the prior alone holds cost the data no degree of freedom.
    let spare = |inverse: &DMatrix<f64>| (rows - (&data * inverse).trace().clamp(0.0, rows)).max(0.0);
    // Energies repeat to some 3 %, and the law follows them; of times it has half as much to say.
    let expected = if skeleton.target == Target::EnergyJ { problem.sigma } else { problem.sigma.max(SIGMA0) };
    let scatters = left_out.map(|left_out| {
        let (jacobian, information) = (&jacobian, &information);
        let full = Full { jacobian, weights: &weights, information, independence: &independence, expected };
        left_out.scatters(problem, &full)
    });
    let (sigma_log, scatter) = match scatters {
        Some(scatters) => (scatters.all, scatters.by_kind),
        None => {
            let degrees = spare(&pseudo_inverse(&information).0) + EXPECTED_ROWS;
            (((squares + EXPECTED_ROWS * expected.powi(2)) / degrees).sqrt(), BTreeMap::new())
        }
    };
    // The priors stand in units of `problem.sigma`, the covariance in units of `sigma_log`.
    let rescale = (sigma_log / problem.sigma).powi(2);
    let information = &data + &prior * (problem.sigma.powi(2) * rescale);
    let (inverse, flat) = pseudo_inverse(&information);
    let degrees_of_freedom = spare(&inverse) + EXPECTED_ROWS;
    let reach = crate::law::quantile(LEVEL, degrees_of_freedom);

    let mut verdicts = Vec::new();
    verdicts.push(match &found.trouble {
        None => Verdict::Converged { agreeing_starts: found.agreeing_starts, starts: found.starts },
        Some(reason) => Verdict::NotConverged { reason: reason.clone() },
    });
    // What is carried over from another platform needs correcting, not finding.
    let needed = if problem.belief.is_carried { CORRECTING_ROWS } else { 2 * skeleton.parameter_count() };
    if n < needed {
        verdicts.push(Verdict::TooFewRows { rows: n, parameters: skeleton.parameter_count() });
    }

    let believed_variance = |j: usize, value: f64| if carded(j) { problem.belief.variance(j, value) } else { 1.0 };
    let relative_std = |c: usize| sigma_log * inverse[(c, c)].max(0.0).sqrt();
    let coefficients = skeleton.terms.iter().enumerate().map(|(j, term)| {
        let value = inner.coefficients[j];
        let moving = moving_terms.iter().position(|m| *m == j);
        let (std_error, low, high) = match moving {
            Some(c) if sigma_log.powi(2) * inverse[(c, c)] > HELD_BY_PRIOR * believed_variance(j, value) => {
                let why = if carded(j) {
                    format!("the rows say little of its size, which comes from {}", problem.belief.origin)
                } else {
                    "other terms explain these rows as well; vary batch, lengths and parallelism apart".to_owned()
                };
                let parameters = vec![term.name.clone()];
                verdicts.push(Verdict::Unidentified { parameters, why });
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
                let why = format!(
                    "the rows never vary {}; held at its prior {}",
                    scaled_by(problem, j),
                    (value * 1e4).round() / 1e4
                );
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

    let mut covariance = vec![vec![0.0; skeleton.parameter_count()]; skeleton.parameter_count()];
    for a in 0..q {
        for b in 0..q {
            let ((i, scale_i), (j, scale_j)) = (parameter(a), parameter(b));
            covariance[i][j] = sigma_log * sigma_log * inverse[(a, b)] * scale_i * scale_j;
        }
    }
    verdicts.extend(outliers(inner, problem.knee, lines));
    let verdicts = gathered(verdicts);
    Inference { coefficients, exponents, covariance, sigma_log, scatter, degrees_of_freedom, verdicts, independence }
}

/// How much of a row of its own each row is. Repeats of one configuration err alike, from a power reading that they share
/// to what the law misses there: with `rho` the share of the variance that they have in common, `n` of them count as
/// `n / (1 + (n-1) rho)` rows.
fn independence(problem: &Problem<'_>, inner: &Inner, parameters: usize) -> Vec<f64> {
    let mut sums: BTreeMap<usize, (f64, f64, f64)> = BTreeMap::new();
    for ((cluster, r), w) in problem.repeats.iter().zip(&inner.residuals).zip(&inner.weights) {
        let (count, weight, sum) = sums.entry(*cluster).or_default();
        (*count, *weight, *sum) = (*count + 1.0, *weight + w, *sum + w * r);
    }
    let within_degrees: f64 = sums.values().map(|(count, _, _)| count - 1.0).sum();
    let squares = |centre: &dyn Fn(usize) -> f64| -> f64 {
        let rows = problem.repeats.iter().zip(&inner.residuals).zip(&inner.weights);
        rows.map(|((cluster, r), w)| w * (r - centre(*cluster)).powi(2)).sum()
    };
    let mean = |cluster: usize| sums.get(&cluster).map_or(0.0, |(_, weight, sum)| sum / weight.max(f64::MIN_POSITIVE));
    let n = problem.rows() as f64;
    let total = squares(&|_| 0.0) / (n - parameters as f64).max(1.0);
    if within_degrees < REPEATS_NEEDED || total <= 0.0 {
        return vec![1.0; problem.rows()];
    }
    let shared = (1.0 - squares(&mean) / within_degrees / total).clamp(0.0, 1.0);
    let count = |cluster: &usize| sums.get(cluster).map_or(1.0, |(count, _, _)| *count);
    problem.repeats.iter().map(|cluster| 1.0 / (1.0 + (count(cluster) - 1.0) * shared)).collect()
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
pub(super) fn pseudo_inverse(information: &DMatrix<f64>) -> (DMatrix<f64>, Vec<bool>) {
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
