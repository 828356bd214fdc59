//! What do all laws in question say together, and which of them says it best?
//!
//! Which of a hundred laws that fit about as well has the least error is luck. Their mean prediction, each weighed by how
//! likely it is, errs less than most of them do, for they err in different directions where nothing was measured. A mean
//! of many laws is no law; the one whose predictions are nearest to it is.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::genome::Genome;
use super::ground::{Ground, Scope};
use super::kernel::Form;
use super::spread;
use crate::fit::problem::Observation;
use crate::law::{Case, RowKind};

/// Configurations on which laws are compared, for each scope.
const CONFIGURATIONS: usize = 300;
/// The random stream of those, apart from the streams of the searches.
const STREAM: u64 = 1 << 32;

/// The place of the law whose predictions are nearest, in logarithms, to the weighted mean of all.
pub(super) fn nearest(ground: &Ground, weighed: &[(&Genome, f64)], seed: u64, threads: usize) -> Option<usize> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(STREAM);
    let asked: Vec<Scope> = ground.scopes.iter().map(|scope| ground.alike(scope, mixed(scope, &mut rng))).collect();
    let mut answers: Vec<(&Genome, Vec<f64>)> = weighed.iter().map(|(genome, _)| (*genome, Vec::new())).collect();
    spread(&mut answers, threads, |(genome, answers)| *answers = predictions(ground, genome, &asked));
    let answers: Vec<Vec<f64>> = answers.into_iter().map(|(_, answers)| answers).collect();

    let total: f64 = weighed.iter().map(|(_, weight)| weight).sum();
    let mut mean = vec![0.0; answers.first()?.len()];
    for (own, (_, weight)) in answers.iter().zip(weighed) {
        mean.iter_mut().zip(own).for_each(|(m, a)| *m += weight / total * a);
    }
    let distance = |own: &Vec<f64>| own.iter().zip(&mean).map(|(a, m)| (a - m).powi(2)).sum::<f64>();
    let distances: Vec<f64> = answers.iter().map(distance).collect();
    (0..distances.len()).filter(|i| distances[*i].is_finite()).min_by(|a, b| distances[*a].total_cmp(&distances[*b]))
}

/// Configurations that were not measured, of what was: degrees of one row, batch, prompts and answers of others.
fn mixed(scope: &Scope, rng: &mut ChaCha8Rng) -> Vec<Observation> {
    let rows = &scope.observations;
    let mut any = || rows.get(rng.random_range(0..rows.len().max(1))).copied();
    let mut mix = || {
        let (degrees, batch, input, output) = (any()?, any()?, any()?, any()?);
        let stops_early = degrees.case.row_kind() == RowKind::Prefill;
        let case = Case {
            batch_size: batch.case.batch_size,
            input_tokens: input.case.input_tokens,
            output_tokens: if stops_early { degrees.case.output_tokens } else { output.case.output_tokens.max(2.0) },
            ..degrees.case
        };
        Some(Observation { case, value: 1.0, relative_std: None })
    };
    (0..CONFIGURATIONS).filter_map(|_| mix()).collect()
}

/// Logarithms of what a law, fitted to all rows, says of `asked`.
fn predictions(ground: &Ground, genome: &Genome, asked: &[Scope]) -> Vec<f64> {
    let answer = |(scope, asked): (&Scope, &Scope)| {
        let rows: Vec<usize> = (0..scope.rows()).collect();
        let numbers = Form::new(ground, scope, genome).fit(&rows);
        let rows: Vec<usize> = (0..asked.rows()).collect();
        // Measured values of 1 make logarithms of predictions of the residuals.
        Form::new(ground, asked, genome).residuals(&numbers, &rows)
    };
    ground.scopes.iter().zip(asked).flat_map(answer).collect()
}
