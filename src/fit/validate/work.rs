//! Fits and questions, spread over threads. Which thread does what has no influence on any result.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use super::{Context, Estimate, Predictor, Row, Split, ValidateOptions, question};

/// What one predictor said of all held-out rows, split by split.
pub(super) struct Answers {
    /// One per held-out row, in the order of the splits; `None` where it had no answer.
    pub(super) estimates: Vec<Option<Estimate>>,
    /// Why it had none, at the last split where it could not be fitted.
    pub(super) trouble: Option<String>,
}

type Piece = Result<Vec<Option<Estimate>>, String>;

/// The answers of every predictor, in their order.
pub(super) fn answers(
    rows: &[Row],
    splits: &[Split],
    predictors: &[Predictor],
    context: &Context,
    options: &ValidateOptions<'_>,
) -> Vec<Answers> {
    let total = predictors.len() * splits.len();
    let threads = options.threads.or_else(|| thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    let mut pieces: Vec<Option<Piece>> = (0..total).map(|_| None).collect();
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel::<(usize, Piece)>();
        for _ in 0..threads.clamp(1, total.max(1)) {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let piece = next.fetch_add(1, Ordering::Relaxed);
                    // Pieces run predictor by predictor: the law, the slowest, comes first.
                    let predictor = predictors.get(piece / splits.len().max(1));
                    let (Some(predictor), Some(split)) = (predictor, splits.get(piece % splits.len().max(1))) else {
                        break;
                    };
                    if sender.send((piece, one(rows, split, *predictor, context))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for (done, (piece, result)) in receiver.into_iter().enumerate() {
            if let Some(slot) = pieces.get_mut(piece) {
                *slot = Some(result);
            }
            (options.progress)(done + 1, total);
        }
    });
    let mut pieces = pieces.into_iter();
    predictors
        .iter()
        .map(|_| {
            let mut answers = Answers { estimates: Vec::new(), trouble: None };
            for (split, piece) in splits.iter().zip(pieces.by_ref()) {
                match piece.unwrap_or_else(|| Err("the fit did not finish".to_owned())) {
                    Ok(estimates) => answers.estimates.extend(estimates),
                    Err(reason) => {
                        answers.trouble = Some(reason);
                        answers.estimates.extend(split.test().iter().map(|_| None));
                    }
                }
            }
            answers
        })
        .collect()
}

/// One predictor on one split. This is the only place where held-out rows meet a predictor.
fn one(rows: &[Row], split: &Split, predictor: Predictor, context: &Context) -> Piece {
    let pick = |indices: &[usize]| -> Vec<Row> { indices.iter().filter_map(|i| rows.get(*i).cloned()).collect() };
    let estimator = predictor.fit(&pick(split.train()), context)?;
    let ask = |row: &Row| {
        let asked = if predictor.sees_held_out_latency() { row.clone() } else { question(row) };
        estimator(&asked).filter(|e| e.value.is_finite())
    };
    Ok(split.test().iter().map(|i| rows.get(*i).and_then(ask)).collect())
}
