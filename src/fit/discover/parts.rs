//! Which rows make a part: one architecture, one GPU, one scenario, or workloads drawn anew.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::card::ModelCard;
use crate::dataset::{Dataset, Row};
use crate::fit::split;
use crate::schema::Phase;

/// Rows below which a part is not searched: a dozen parameters need more than a dozen rows.
const SMALLEST_PART: usize = 20;

/// By what rows are divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PartKind {
    /// All rows.
    All,
    /// Model architecture: dense, mixture of experts, state space, hybrid.
    Architecture,
    /// GPU model.
    Hardware,
    /// Model, GPU, engine and precision.
    Scenario,
    /// Workloads drawn with replacement.
    Resample,
}

pub(super) type Pieces = Vec<(PartKind, String, Vec<Row>)>;
/// The part that a row belongs to.
type Label<'a> = &'a dyn Fn(&Row) -> String;

/// Parts by architecture, hardware and scenario. A division into one part says nothing and is left out.
pub(super) fn divide(dataset: &Dataset) -> (Pieces, Vec<(String, usize)>) {
    let architecture = |row: &Row| {
        let own = row.architecture.clone();
        let of_card = || ModelCard::builtin(&row.model).map(|c| c.architecture.to_string());
        own.or_else(of_card).unwrap_or_else(|| "architecture unknown".to_owned())
    };
    let labels: [(PartKind, Label<'_>); 3] = [
        (PartKind::Architecture, &architecture),
        (PartKind::Hardware, &|row: &Row| row.gpu_model.clone()),
        (PartKind::Scenario, &|row: &Row| row.scenario_key()),
    ];
    let (mut found, mut too_small): (Pieces, _) = (Vec::new(), Vec::new());
    for (kind, label) in labels {
        let mut parts: BTreeMap<String, Vec<Row>> = BTreeMap::new();
        for row in &dataset.rows {
            parts.entry(label(row)).or_default().push(row.clone());
        }
        if parts.len() < 2 {
            continue;
        }
        for (name, rows) in parts {
            // Hardware that comes with one scenario each is divided once.
            let twin = found.iter().any(|(_, _, other)| *other == rows);
            // The fit leaves decode rows out where it has their whole batches.
            let fitted = rows.iter().filter(|r| r.phase != Phase::Decode).count();
            match fitted >= SMALLEST_PART {
                _ if twin => {}
                true => found.push((kind, name, rows)),
                false => too_small.push((name, fitted)),
            }
        }
    }
    (found, too_small)
}

/// As many workloads as there are, drawn with replacement; copies of a workload stay in one fold.
pub(super) fn resample(dataset: &Dataset, seed: u64, number: usize) -> Vec<Row> {
    let units = split::units(&dataset.rows);
    let count = units.iter().max().map_or(0, |m| m + 1);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(1000 + number as u64);
    let mut rows = Vec::new();
    for _ in 0..count {
        let drawn = rng.random_range(0..count);
        rows.extend(dataset.rows.iter().zip(&units).filter(|(_, u)| **u == drawn).map(|(r, _)| r.clone()));
    }
    rows
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::fit::synthetic::row;

    fn dataset() -> Dataset {
        let mut rows = Vec::new();
        for (gpu, model) in [("A100-SXM4-80GB", "a"), ("H100-SXM5-80GB", "a"), ("H100-SXM5-80GB", "b")] {
            for i in 0..30 {
                let own = Row {
                    model: model.to_owned(),
                    gpu_model: gpu.to_owned(),
                    ..row(1, 1, 1.0, 10.0 + f64::from(i), 5.0)
                };
                rows.push(own);
            }
        }
        rows.truncate(85);
        Dataset { rows, ..Dataset::default() }
    }

    #[test]
    fn rows_are_divided_by_hardware_and_scenario_and_small_parts_are_named() {
        let (parts, too_small) = divide(&dataset());
        let names: Vec<_> = parts.iter().map(|(kind, name, rows)| (*kind, name.as_str(), rows.len())).collect();
        let hardware = |name, rows| (PartKind::Hardware, name, rows);
        // The A100 has one scenario, which is not divided once more; one architecture is no division.
        assert_eq!(names[..2], [hardware("A100-SXM4-80GB", 30), hardware("H100-SXM5-80GB", 55)]);
        assert_eq!(names.len(), 4);
        assert!(too_small.is_empty());
        let few = Dataset { rows: dataset().rows.into_iter().take(40).collect(), ..Dataset::default() };
        assert_eq!(divide(&few).1.first().map(|(_, rows)| *rows), Some(10));
    }

    #[test]
    fn resamples_draw_whole_workloads_and_repeat_with_the_seed() {
        let data = dataset();
        let one = resample(&data, 7, 0);
        assert_eq!(one.len(), 85);
        assert_eq!(one, resample(&data, 7, 0));
        assert_ne!(one, resample(&data, 7, 1));
        let lines: BTreeSet<_> = one.iter().map(|r| (r.workload_key(), r.gpu_model.clone())).collect();
        // About 1 - 1/e of the workloads appear.
        assert!((40..70).contains(&lines.len()), "{}", lines.len());
    }
}
