//! Fits and questions, spread over threads. Which thread does what has no influence on any result.
//!
//! A piece of work is one predictor on the rows of one law in one split. Laws are taken one after the other, in a seeded
//! order, so that a search that is told to stop has judged some laws whole rather than all of them in part.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{Context, Estimate, Predictor, Row, Split, ValidateOptions, question};

/// What one predictor said of all held-out rows, split by split.
pub(super) struct Answers {
    /// One per held-out row, in the order of the splits; `None` where it had no answer.
    pub(super) estimates: Vec<Option<Estimate>>,
    /// Why it had none, at the last law and split where it could not be fitted.
    pub(super) trouble: Option<String>,
}

/// The answers of every predictor, and how far they go.
pub(super) struct Answered {
    /// One per predictor, in their order.
    pub(super) answers: Vec<Answers>,
    /// Per held-out row, whether its law was judged to the end.
    pub(super) judged: Vec<bool>,
    /// Laws judged to the end.
    pub(super) laws: usize,
}

/// The rows of one law in one split.
#[derive(Default)]
struct Part {
    train: Vec<usize>,
    /// Place among all held-out rows, and row.
    test: Vec<(usize, usize)>,
}

/// One predictor's answers to one part.
type Piece = Result<Vec<Option<Estimate>>, String>;

/// Asks every predictor about every held-out row, until told to stop; the first law is always judged to the end.
pub(super) fn answers(
    rows: &[Row],
    scopes: &[String],
    splits: &[Split],
    predictors: &[Predictor],
    context: &Context,
    options: &ValidateOptions<'_>,
) -> Answered {
    let laws = laws(scopes, splits, options.seed);
    let held_out: usize = splits.iter().map(|s| s.test().len()).sum();
    // Law by law, split by split, the law's own predictor first: it is the slowest.
    let pieces: Vec<(usize, &Part, usize)> = laws
        .iter()
        .enumerate()
        .flat_map(|(law, parts)| {
            parts.iter().flat_map(move |part| (0..predictors.len()).map(move |predictor| (law, part, predictor)))
        })
        .collect();
    let threads = options.threads.or_else(|| thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    let mut results: Vec<Option<Piece>> = pieces.iter().map(|_| None).collect();
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel::<(usize, Piece)>();
        for _ in 0..threads.clamp(1, pieces.len().max(1)) {
            let (sender, next, pieces, stop) = (sender.clone(), &next, &pieces, options.stop);
            scope.spawn(move || {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some((law, part, predictor)) = pieces.get(place) else { break };
                    if *law > 0 && stop() {
                        break;
                    }
                    let Some(predictor) = predictors.get(*predictor) else { break };
                    if sender.send((place, one(rows, part, *predictor, context))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for (done, (place, result)) in receiver.into_iter().enumerate() {
            if let Some(slot) = results.get_mut(place) {
                *slot = Some(result);
            }
            (options.progress)(done + 1, pieces.len());
        }
    });

    let mut whole = vec![true; laws.len()];
    for ((law, _, _), _) in pieces.iter().zip(&results).filter(|(_, result)| result.is_none()) {
        if let Some(slot) = whole.get_mut(*law) {
            *slot = false;
        }
    }
    let mut judged = vec![false; held_out];
    let mut answers: Vec<Answers> =
        predictors.iter().map(|_| Answers { estimates: vec![None; held_out], trouble: None }).collect();
    for ((law, part, predictor), result) in pieces.iter().zip(results) {
        let Some(answers) = answers.get_mut(*predictor).filter(|_| whole.get(*law) == Some(&true)) else { continue };
        for (place, _) in &part.test {
            judged.get_mut(*place).into_iter().for_each(|j| *j = true);
        }
        match result {
            Some(Ok(estimates)) => {
                for ((place, _), estimate) in part.test.iter().zip(estimates) {
                    answers.estimates.get_mut(*place).into_iter().for_each(|slot| *slot = estimate);
                }
            }
            Some(Err(reason)) => answers.trouble = Some(reason),
            None => {}
        }
    }
    Answered { answers, judged, laws: whole.iter().filter(|w| **w).count() }
}

/// The rows of each law with something held out, split by split; laws in a seeded order.
fn laws(scopes: &[String], splits: &[Split], seed: u64) -> Vec<Vec<Part>> {
    let mut laws: BTreeMap<&str, HashMap<usize, Part>> = BTreeMap::new();
    let mut place = 0;
    for (number, split) in splits.iter().enumerate() {
        for i in split.test() {
            if let Some(scope) = scopes.get(*i) {
                laws.entry(scope).or_default().entry(number).or_default().test.push((place, *i));
            }
            place += 1;
        }
        for i in split.train() {
            let part = scopes.get(*i).and_then(|scope| laws.get_mut(scope.as_str())?.get_mut(&number));
            part.into_iter().for_each(|part| part.train.push(*i));
        }
    }
    let in_order = |parts: HashMap<usize, Part>| {
        let parts: BTreeMap<usize, Part> = parts.into_iter().collect();
        parts.into_values().collect::<Vec<_>>()
    };
    let mut laws: Vec<Vec<Part>> = laws.into_values().map(in_order).collect();
    laws.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    laws
}

/// One predictor on one part. This is the only place where held-out rows meet a predictor.
fn one(rows: &[Row], part: &Part, predictor: Predictor, context: &Context) -> Piece {
    let learnt: Vec<Row> = part.train.iter().filter_map(|i| rows.get(*i).cloned()).collect();
    let estimator = predictor.fit(&learnt, context)?;
    let ask = |row: &Row| {
        let asked = if predictor.sees_held_out_latency() { row.clone() } else { question(row) };
        estimator(&asked).filter(|e| e.value.is_finite())
    };
    Ok(part.test.iter().map(|(_, i)| rows.get(*i).and_then(ask)).collect())
}
