//! Which rows are learnt from and which are held out.
//!
//! Rows travel in *units* that are never torn apart: all rows of one workload, in all configurations, repeats and
//! phases, and all that share a prefill with them ([`units()`]). A [`Split`] can only be made by naming units, and
//! refuses to have one on both sides.

use std::collections::{BTreeMap, BTreeSet};

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Error;
use crate::card::{GpuCard, ModelCard};
use crate::dataset::Row;
use crate::law::Pool;

pub(crate) use units::case_units;
pub use {scheme::Scheme, units::units};

mod scheme;
mod units;

/// Rows to learn from and rows to judge on; no unit is on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    train: Vec<usize>,
    test: Vec<usize>,
}

impl Split {
    /// A split of rows whose units are `units` (one entry per row). Refuses a row or a unit on both sides, an index
    /// without a row, and an empty side.
    pub fn new(train: Vec<usize>, test: Vec<usize>, units: &[usize]) -> Result<Self, Error> {
        let leak = |problem: String| Err(Error::Leak { problem });
        let mut learnt = BTreeSet::new();
        for i in &train {
            match units.get(*i) {
                Some(unit) => learnt.insert(*unit),
                None => return leak(format!("row {i} of {} rows is to be learnt from", units.len())),
            };
        }
        for i in &test {
            match units.get(*i) {
                Some(unit) if learnt.contains(unit) => {
                    return leak(format!("row {i} is held out, but its workload {unit} is learnt from"));
                }
                Some(_) => {}
                None => return leak(format!("row {i} of {} rows is to be held out", units.len())),
            }
        }
        if train.is_empty() || test.is_empty() {
            return leak(format!("{} rows to learn from and {} held out; both are needed", train.len(), test.len()));
        }
        Ok(Self { train, test })
    }

    /// Rows to learn from, as indices.
    pub fn train(&self) -> &[usize] {
        &self.train
    }

    /// Rows held out, as indices.
    pub fn test(&self) -> &[usize] {
        &self.test
    }

    /// The same split with at most `rows` training rows per scope (`scopes`: one entry per row), drawn evenly over the
    /// units: one row of each unit before a second of any.
    pub fn with_training_rows(mut self, rows: usize, units: &[usize], scopes: &[String], seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut by_scope: BTreeMap<&str, BTreeMap<usize, Vec<usize>>> = BTreeMap::new();
        for i in &self.train {
            if let (Some(scope), Some(unit)) = (scopes.get(*i), units.get(*i)) {
                by_scope.entry(scope).or_default().entry(*unit).or_default().push(*i);
            }
        }
        self.train = by_scope.into_values().flat_map(|units| draw(units, rows, &mut rng)).collect();
        self.train.sort_unstable();
        self
    }
}

/// `rows` rows, one of each unit in turn, units and rows in random order.
fn draw(units: BTreeMap<usize, Vec<usize>>, rows: usize, rng: &mut impl Rng) -> Vec<usize> {
    let mut stacks: Vec<Vec<usize>> = units.into_values().collect();
    stacks.shuffle(rng);
    stacks.iter_mut().for_each(|stack| stack.shuffle(rng));
    let mut drawn = Vec::with_capacity(rows);
    while drawn.len() < rows && stacks.iter().any(|s| !s.is_empty()) {
        let round = stacks.iter_mut().filter_map(Vec::pop);
        drawn.extend(round.take(rows - drawn.len()));
    }
    drawn
}

/// The card's name for a model that has one: rows under `llama-2-70b` and `meta-llama/Llama-2-70b-hf` are one model's, and
/// so are those of its finetunes.
fn model_of(row: &Row) -> String {
    let name = row.model.trim();
    ModelCard::builtin(name).map_or_else(|| name.to_lowercase(), |card| card.model)
}

/// The same for a GPU.
fn gpu_of(row: &Row) -> String {
    let name = row.gpu_model.trim();
    GpuCard::builtin(name).map_or_else(|| name.to_lowercase(), |card| card.gpu_model)
}

/// The row under its cards' names, so that no spelling makes two workloads of one.
fn canonical(row: &Row) -> Row {
    let plain = |s: &Option<String>| s.as_ref().map(|s| s.trim().to_lowercase()).filter(|s| !s.is_empty());
    Row {
        model: model_of(row),
        gpu_model: gpu_of(row),
        engine: plain(&row.engine),
        precision: plain(&row.precision),
        ..row.clone()
    }
}

/// The group of each row within which configurations are chosen: workload and phase.
pub fn choice_groups(rows: &[Row]) -> Vec<usize> {
    numbered(&rows.iter().map(|r| format!("{}|{}", r.workload_key(), r.phase)).collect::<Vec<_>>())
}

/// Numbers for labels, in sorted order of the labels.
fn numbered(labels: &[String]) -> Vec<usize> {
    let distinct: BTreeSet<&str> = labels.iter().map(String::as_str).collect();
    let number: BTreeMap<&str, usize> = distinct.into_iter().enumerate().map(|(i, label)| (label, i)).collect();
    labels.iter().map(|label| number.get(label.as_str()).copied().unwrap_or(0)).collect()
}

/// The splits of `scheme`, in a fixed order. `units` as [`units()`] gives them for `rows`.
pub fn splits(rows: &[Row], units: &[usize], scheme: Scheme, pool: Pool, seed: u64) -> Result<Vec<Split>, Error> {
    let nothing = |found: String| Error::NothingToHoldOut { scheme: scheme.to_string(), found };
    let by = |label: fn(&Row) -> String| {
        let parts = numbered(&rows.iter().map(label).collect::<Vec<_>>());
        hold_out_each(&parts, units)
    };
    let splits = match scheme {
        Scheme::Workloads { folds } => {
            let count = units.iter().max().map_or(0, |m| m + 1);
            if count < folds.max(2) {
                return Err(nothing(format!("found {count} workloads for {folds} folds")));
            }
            let mut order: Vec<usize> = (0..count).collect();
            order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
            let mut fold_of = vec![0; count];
            for (place, unit) in order.into_iter().enumerate() {
                if let Some(fold) = fold_of.get_mut(unit) {
                    *fold = place % folds.max(2);
                }
            }
            let parts: Vec<usize> = units.iter().map(|u| fold_of.get(*u).copied().unwrap_or(0)).collect();
            hold_out_each(&parts, units)?
        }
        Scheme::Models if pool == Pool::None => {
            return Err(nothing(
                "laws per scenario, which say nothing of another model; pool the models (--pool models)".to_owned(),
            ));
        }
        Scheme::Models => by(model_of)?,
        Scheme::Hardware => by(gpu_of)?,
        Scheme::Batches { up_to } => {
            let limit = up_to.or_else(|| middle_batch(rows)).unwrap_or(f64::INFINITY);
            let small = |i: &usize| rows.get(*i).is_some_and(|r| r.batch_size <= limit);
            let (train, test): (Vec<usize>, Vec<usize>) = (0..rows.len()).partition(small);
            if train.is_empty() || test.is_empty() {
                return Err(nothing(format!("{} rows up to batch {limit}, {} above", train.len(), test.len())));
            }
            vec![Split::new(train, test, units)?]
        }
    };
    if splits.is_empty() {
        return Err(nothing(format!("only one kind of row among {}; at least two are needed", rows.len())));
    }
    Ok(splits)
}

/// One split per part: it is held out, the rest is learnt from. Nothing if there is one part only.
fn hold_out_each(parts: &[usize], units: &[usize]) -> Result<Vec<Split>, Error> {
    let count = parts.iter().max().map_or(0, |m| m + 1);
    if count < 2 {
        return Ok(Vec::new());
    }
    (0..count)
        .map(|part| {
            let held_out = |i: &usize| parts.get(*i) == Some(&part);
            let (test, train): (Vec<usize>, Vec<usize>) = (0..parts.len()).partition(held_out);
            Split::new(train, test, units)
        })
        .collect()
}

/// The lower median of the distinct batch sizes.
fn middle_batch(rows: &[Row]) -> Option<f64> {
    let mut sizes: Vec<f64> = rows.iter().map(|r| r.batch_size).collect();
    sizes.sort_by(f64::total_cmp);
    sizes.dedup();
    sizes.get(sizes.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::super::synthetic::row;
    use super::*;

    fn grid() -> Vec<Row> {
        let mut rows = Vec::new();
        for batch in [1.0, 2.0, 4.0, 8.0] {
            for input in [128.0, 512.0, 2048.0] {
                rows.extend([1, 2, 4].map(|t| row(t, 1, batch, input, 64.0)));
            }
        }
        rows
    }

    #[test]
    fn a_unit_on_both_sides_is_refused() {
        let units = [0, 0, 1, 1];
        assert!(Split::new(vec![0, 1], vec![2, 3], &units).is_ok());
        for (train, test) in [(vec![0, 2], vec![3]), (vec![0], vec![0, 2]), (vec![0], vec![9]), (vec![], vec![1])] {
            assert!(Split::new(train.clone(), test.clone(), &units).is_err(), "{train:?} {test:?}");
        }
    }

    #[test]
    fn folds_hold_out_every_row_once_and_tear_no_workload() {
        let rows = grid();
        let units = units(&rows);
        assert_eq!(units.iter().collect::<BTreeSet<_>>().len(), 12);
        let splits = splits(&rows, &units, Scheme::Workloads { folds: 5 }, Pool::None, 3).unwrap();
        let mut held: Vec<usize> = splits.iter().flat_map(|s| s.test().to_vec()).collect();
        held.sort_unstable();
        assert_eq!(held, (0..rows.len()).collect::<Vec<_>>());
        for split in &splits {
            assert_eq!(split.train().len() + split.test().len(), rows.len());
            assert!(split.test().iter().all(|i| split.train().iter().all(|j| units[*i] != units[*j])));
        }
    }

    #[test]
    fn no_spelling_makes_two_workloads_of_one() {
        let honest = row(2, 1, 4.0, 512.0, 128.0);
        let with = |change: &dyn Fn(&mut Row)| {
            let mut row = honest.clone();
            change(&mut row);
            row
        };
        let rows = [
            honest.clone(),
            with(&|r| r.model = "llama-2-70b".to_owned()),
            with(&|r| r.model = " meta-llama/Llama-2-70b-chat-hf ".to_owned()),
            with(&|r| r.gpu_model = "NVIDIA A100-SXM4-80GB ".to_owned()),
            with(&|r| r.engine = Some(" ".to_owned())),
            with(&|r| r.line = 77),
            with(&|r| (r.tensor_parallel, r.num_gpus) = (8, 8)),
            with(&|r| r.energy_j = Some(1.0)),
        ];
        assert_eq!(units(&rows), [0; 8]);
        let backwards: Vec<Row> = rows.iter().rev().cloned().collect();
        assert_eq!(units(&backwards), [0; 8]);
        // A stranger's name is taken as it is, but for its spelling.
        let strangers = ["my/model", "My/Model ", "my/other"];
        let strangers: Vec<Row> = strangers.iter().map(|n| with(&|r| r.model = (*n).to_owned())).collect();
        assert_eq!(units(&strangers), [0, 0, 1]);
        // Two names of one model cannot be held out against each other.
        assert!(splits(&rows[..2], &units(&rows[..2]), Scheme::Models, Pool::Models, 0).is_err());
        assert!(splits(&rows[2..4], &units(&rows[2..4]), Scheme::Hardware, Pool::None, 0).is_err());
    }

    #[test]
    fn a_capped_draw_takes_one_row_of_each_workload_first() {
        let rows = grid();
        let units = units(&rows);
        let scopes: Vec<String> = rows.iter().map(Row::scenario_key).collect();
        let split = splits(&rows, &units, Scheme::Workloads { folds: 4 }, Pool::None, 1).unwrap().remove(0);
        assert_eq!(split.train().len(), 27);
        let nine = split.clone().with_training_rows(9, &units, &scopes, 7);
        let drawn: BTreeSet<usize> = nine.train().iter().map(|i| units[*i]).collect();
        assert_eq!((nine.train().len(), drawn.len()), (9, 9));
        assert_eq!(nine.test(), split.test());
        assert_eq!(split.clone().with_training_rows(9, &units, &scopes, 7), nine);
        assert_ne!(split.clone().with_training_rows(9, &units, &scopes, 8), nine);
        assert_eq!(split.clone().with_training_rows(99, &units, &scopes, 7), split);
    }

    #[test]
    fn batches_are_divided_at_the_limit() {
        let rows = grid();
        let units = units(&rows);
        let split = splits(&rows, &units, Scheme::Batches { up_to: None }, Pool::None, 0).unwrap().remove(0);
        assert!(split.train().iter().all(|i| rows[*i].batch_size <= 2.0));
        assert!(split.test().iter().all(|i| rows[*i].batch_size >= 4.0));
        let none = splits(&rows, &units, Scheme::Batches { up_to: Some(8.0) }, Pool::None, 0).unwrap_err();
        assert!(none.to_string().contains("0 above"), "{none}");
    }

    #[test]
    fn a_single_model_cannot_be_left_out() {
        let rows = grid();
        let units = units(&rows);
        assert!(splits(&rows, &units, Scheme::Models, Pool::Models, 0).is_err());
        assert!(splits(&rows, &units, Scheme::Hardware, Pool::None, 0).is_err());
        let apart = splits(&rows, &units, Scheme::Models, Pool::None, 0).unwrap_err();
        assert!(apart.to_string().contains("pool the models"), "{apart}");
    }
}
